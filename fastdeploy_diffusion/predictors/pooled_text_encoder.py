"""The sub-predictor that sums up prompts as one vector each."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import integers
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.models.clip import CLIPTextConfig, CLIPTextModel
from fastdeploy_diffusion.models.components import PooledTextConditioner
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.text_encoder import check_fit
from fastdeploy_diffusion.program import Signature, TensorSpec
from fastdeploy_diffusion.tokenizers import CLIPTokenizer


class PooledTextEncoder:
    """Tokenizer and CLIP text encoder, of which Flux takes the pooled output.

    Args:
        checkpoint: Where config and weights come from.
        config: Engine, device and precision.
        tokenizer: Its vocabulary must be the encoder's.

    Raises:
        UnsupportedModelError: The encoder's config is not implemented, or tokenizer and encoder
            do not fit together.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: DiffusionConfig, tokenizer: CLIPTokenizer
    ) -> None:
        self.tokenizer = tokenizer
        self.config = checkpoint.read_config("text_encoder", CLIPTextConfig.from_dict)
        check_fit(tokenizer, self.config)
        self.component = Component(
            "text_encoder",
            config.component("text_encoder"),
            cpu_fallback=config.cpu_fallback,
            passes=config.passes,
            cache=open_cache(config),
            network=Network(
                lambda: CLIPTextModel(self.config),
                checkpoint.config("text_encoder"),
                checkpoint.tensors("text_encoder"),
                wrap=PooledTextConditioner,
                prefix="encoder.",
            ),
            generators={"input_ids": integers(0, self.config.vocab_size)},
        )

    def signature(self) -> Signature:
        """For any number of texts of the tokenizer's length."""
        return Signature(
            (TensorSpec("input_ids", (None, self.tokenizer.max_length), "int64"),),
            (TensorSpec("pooled", (None, self.config.hidden_size), "float32"),),
        )

    def encode(self, session: Session, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode N texts, each distinct one once, to (N, P); ``session`` is the component's."""
        distinct = list(dict.fromkeys(texts))
        pooled = session.run(input_ids=self.tokenizer.encode(distinct).input_ids)["pooled"]
        return pooled[[distinct.index(text) for text in texts]]
