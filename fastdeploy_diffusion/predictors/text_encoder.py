"""The sub-predictor that turns prompts into conditioning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import integers
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.errors import RequestError, UnsupportedModelError
from fastdeploy_diffusion.models.clip import CLIPTextConfig, CLIPTextModel
from fastdeploy_diffusion.models.components import TextConditioner
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import Size
from fastdeploy_diffusion.tokenizers import CLIPTokenizer


@dataclass(frozen=True)
class EncodedTexts:
    """What the text encoder says of N texts; all float32.

    Args:
        hidden_states: Of the chosen layer, (N, T, D).
        pooled: (N, P).
    """

    hidden_states: npt.NDArray[np.float32]
    pooled: npt.NDArray[np.float32]


class TextEncoder:
    """Tokenizer and CLIP text encoder.

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
                wrap=lambda encoder: TextConditioner(encoder, normalize=True),
                prefix="encoder.",
            ),
            generators={"input_ids": integers(0, self.config.vocab_size)},
        )

    def signature(self, batch: Size = None) -> Signature:
        """For this many texts of the tokenizer's length."""
        tokens, width = self.tokenizer.max_length, self.config.hidden_size
        layers = self.config.num_hidden_layers + 1
        return Signature(
            (TensorSpec("input_ids", (batch, tokens), "int64"),),
            (
                TensorSpec("hidden_states", (layers, batch, tokens, width), "float32"),
                TensorSpec("pooled", (batch, width), "float32"),
            ),
        )

    def check_clip_skip(self, clip_skip: int) -> None:
        """Refuse a number of layers that the encoder does not have."""
        if not 0 <= clip_skip <= self.config.num_hidden_layers:
            raise RequestError(
                f"clip_skip is {clip_skip}",
                allowed=f"0 to {self.config.num_hidden_layers}, the encoder's layers",
            )

    def encode(self, session: Session, texts: Sequence[str], clip_skip: int) -> EncodedTexts:
        """Encode texts, each distinct one once.

        Args:
            session: That of the component.
            texts: N prompts.
            clip_skip: How many of the last layers to leave out.
        """
        distinct = list(dict.fromkeys(texts))
        tokens = self.tokenizer.encode(distinct)
        outputs = session.run(input_ids=tokens.input_ids)
        rows = [distinct.index(text) for text in texts]
        return EncodedTexts(
            outputs["hidden_states"][-(clip_skip + 1)][rows], outputs["pooled"][rows]
        )


def check_fit(tokenizer: CLIPTokenizer, config: CLIPTextConfig) -> None:
    """Refuse a tokenizer that is not the encoder's.

    Raises:
        UnsupportedModelError: It has more tokens, or gives longer texts, than the encoder knows.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise UnsupportedModelError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the text encoder "
            f"{config.vocab_size}",
            fix="use the tokenizer of this checkpoint",
        )
    if tokenizer.max_length > config.max_position_embeddings:
        raise UnsupportedModelError(
            f"the tokenizer gives {tokenizer.max_length} tokens, the text encoder reads "
            f"{config.max_position_embeddings}",
            fix="correct model_max_length in tokenizer_config.json",
        )
