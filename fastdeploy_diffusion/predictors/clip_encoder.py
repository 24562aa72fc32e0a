"""What the text encoders with CLIP's network have in common."""

from collections.abc import Callable
from typing import Any

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.models.clip import CLIPTextConfig, CLIPTextModel
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.prompt_encoder import PromptEncoder
from fastdeploy_diffusion.tokenizers import CLIPTokenizer


class CLIPEncoder(PromptEncoder):
    """CLIP's tokenizer and text encoder.

    Args:
        checkpoint: Where config and weights come from.
        config: Engine, device and precision.
        tokenizer: Its vocabulary must be the encoder's.
        wrap: Makes a layer of the encoder, as ``encoder``, that gives what the family takes.

    Raises:
        UnsupportedModelError: The encoder's config is not implemented, or tokenizer and encoder
            do not fit together.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: DiffusionConfig,
        tokenizer: CLIPTokenizer,
        wrap: Callable[[Any], Any],
    ) -> None:
        self.tokenizer = tokenizer
        self.config = CLIPTextConfig.from_dict(checkpoint.config("text_encoder"))
        _check_fit(tokenizer, self.config)
        network = Network(
            lambda: CLIPTextModel(self.config),
            checkpoint.config("text_encoder"),
            checkpoint.tensors("text_encoder"),
            wrap=wrap,
            prefix="encoder.",
        )
        super().__init__("text_encoder", config, network, self.config.vocab_size)


def _check_fit(tokenizer: CLIPTokenizer, config: CLIPTextConfig) -> None:
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
