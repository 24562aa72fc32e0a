"""The first stage of a request: what it says of where embeddings come from."""

import numpy as np
import pytest

from fastdeploy_diffusion.predictors.component import Part
from fastdeploy_diffusion.predictors.embedding_files import Embedding
from fastdeploy_diffusion.predictors.text_stage import TextStage
from fastdeploy_diffusion.predictors.texts import EmbeddingReport, Texts, Wanted
from fastdeploy_diffusion.runtime.program import Signature
from fastdeploy_diffusion.tokenizers.chunks import Chunk


class Encoder:
    """A component of which only the name is asked."""

    name = "text_encoder"


class Kept:
    """A cache that has every text, with an error of its own for each."""

    def __init__(self, errors):
        self._errors = errors

    def find(self, text, signature):
        number = int(np.frombuffer(text.content, np.int64)[0])
        return Embedding(np.full((1, 2), number, np.float32), self._errors[number])


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([1e-6, 3e-6, 2e-6], 3e-6),
        ([3e-6, 1e-6, 2e-6], 3e-6),
        # Nothing is proven of all where nothing is of one.
        ([1e-6, None, 2e-6], None),
        ([None, None, None], None),
    ],
)
def test_the_largest_error_of_the_texts_is_told(errors, told):
    encoder = Encoder()
    chunks = [Chunk(np.array([each], np.int64).tobytes()) for each in (0, 1, 2, 1)]
    texts = Texts(encoder, tuple((each,) for each in chunks), Wanted("hidden_states", -1))
    part = Part(encoder, Signature((), ()), {})
    stage = TextStage({"prompt_embeds": texts}, [part], Kept(errors))
    embeddings = stage.encode(residency=None)  # all are kept: nothing is lent
    np.testing.assert_array_equal(np.stack(embeddings["prompt_embeds"])[:, 0, 0], [0, 1, 2, 1])
    assert stage.encoders == []
    assert stage.report() == (EmbeddingReport("text_encoder", 3, 3, told),)
