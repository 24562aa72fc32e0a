"""The first stage of a request: what its text encoders say of its texts."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.predictors.part import Part
from fastdeploy_diffusion.predictors.prompt_encoder import Text, Texts
from fastdeploy_diffusion.predictors.residency import Residency

FloatArray = npt.NDArray[np.float32]


class TextStage:
    """The texts of one request.

    Every distinct text is encoded once and by itself, so that its embedding does not depend on what
    else is asked for at the same time.

    Args:
        texts: By what they become: fields of `Conditioning`.
        encoders: The text encoders, in the order in which they run.
    """

    def __init__(self, texts: Mapping[str, Texts], encoders: Sequence[Part]) -> None:
        self._texts = {name: each.split() for name, each in texts.items()}
        self._missing = list(dict.fromkeys(text for each in self._texts.values() for text in each))
        self._encoders = [
            part
            for part in encoders
            if any(text.component is part.component for text in self._missing)
        ]
        self._embedded: dict[Text, FloatArray] = {}

    @property
    def encoders(self) -> list[Part]:
        """Those that have something to read."""
        return self._encoders

    def encode(self, residency: Residency) -> dict[str, FloatArray]:
        """Give the embeddings of all texts, stacked, by what they become; raises as ``lend``."""
        for part in self._encoders:
            with residency.lend(part) as session:
                for text in self._missing:
                    if text.component is part.component:
                        ids = np.frombuffer(text.input_ids, np.int64)
                        outputs = session.run(input_ids=ids[None].copy())
                        self._embedded[text] = text.wanted.take(outputs)
        return {
            name: np.stack([self._embedded[text] for text in texts])
            for name, texts in self._texts.items()
        }
