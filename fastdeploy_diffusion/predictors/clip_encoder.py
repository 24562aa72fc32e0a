"""What the text encoders with CLIP's network have in common."""

from pathlib import Path

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import integers
from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.lazy import Deferred
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.predictors.prompt_encoder import PromptEncoder
from fastdeploy_diffusion.tokenizers import CLIPTokenizer


class CLIPEncoder(PromptEncoder):
    """CLIP's tokenizer and text encoder.

    Args:
        checkpoint: Where config and weights come from.
        config: Engine, device and precision.
        tokenizer: Its vocabulary must be the encoder's.
        wrap: Makes a layer of the encoder, as ``encoder``, that gives what the family takes.
        name: The component.

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
        wrap: Deferred,
        name: str = "text_encoder",
    ) -> None:
        self.tokenizer = tokenizer
        self.config = checkpoint.read_network(name, CLIPTextConfig.from_dict)
        _check_fit(checkpoint.path, tokenizer, self.config, name)
        self.component = open_component(
            checkpoint,
            config,
            name,
            self.config,
            generators={"input_ids": integers(0, self.config.vocab_size)},
            wrap=wrap,
            prefix="encoder.",
        )


def _check_fit(path: Path, tokenizer: CLIPTokenizer, config: CLIPTextConfig, name: str) -> None:
    if tokenizer.largest_id >= config.vocab_size:
        raise UnsupportedModelError(
            f"{path}: the tokenizer of {name} gives ids up to {tokenizer.largest_id}, and "
            f"{name} knows {config.vocab_size} tokens: they are not of one model",
            fix="use the tokenizer of this checkpoint",
        )
    if tokenizer.max_length > config.max_position_embeddings:
        raise UnsupportedModelError(
            f"{path}: the tokenizer of {name} gives {tokenizer.max_length} tokens a text, and "
            f"{name} reads {config.max_position_embeddings} (max_position_embeddings)",
            fix="correct model_max_length in tokenizer_config.json",
        )
