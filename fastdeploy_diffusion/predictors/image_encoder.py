"""The sub-predictor that turns pictures into what IP-Adapters take: CLIP's vision tower."""

from functools import cached_property

from fastdeploy_diffusion.checkpoints.image_encoder import ImageEncoderCheckpoint
from fastdeploy_diffusion.config import DiffusionConfig, EngineChoice
from fastdeploy_diffusion.families.networks.clip import CLIP_VISION
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.precision import is_quantized
from fastdeploy_diffusion.predictors.open_component import open_network
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import Size

EMBEDS = "image_embeds"
HIDDEN_STATES = "hidden_states"


class ImageEncoder:
    """CLIP's vision tower.

    Args:
        name: In reports.

    Raises:
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self,
        checkpoint: ImageEncoderCheckpoint,
        config: DiffusionConfig,
        choice: EngineChoice,
        name: str,
    ) -> None:
        self.checkpoint, self.config = checkpoint, checkpoint.config
        self.component = open_network(
            name,
            CLIP_VISION.layer,
            self.config,
            checkpoint.source,
            config,
            choice,
            is_calibrated=is_quantized(choice.precision),
            role=CLIP_VISION.role,
            wrap=defer("fastdeploy_diffusion.models.components:ImageConditioner"),
            prefix="encoder.",
        )

    @cached_property
    def digest(self) -> str:
        """The digest of its weights."""
        return self.checkpoint.source.digest()

    def signature(self, batch: Size = None) -> Signature:
        """Make the signature for a number of pictures."""
        config = self.config
        pixels = (batch, 3, config.image_size, config.image_size)
        hidden = (batch, config.tokens, config.hidden_size)
        return Signature(
            (TensorSpec("pixel_values", pixels, "float32"),),
            (
                TensorSpec(EMBEDS, (batch, config.projection_dim), "float32"),
                TensorSpec(HIDDEN_STATES, hidden, "float32"),
            ),
        )
