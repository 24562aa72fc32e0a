"""The sub-predictor of an IP-Adapter, which runs once a request, after its vision tower."""

from dataclasses import replace
from functools import cached_property

from fastdeploy_diffusion.checkpoints.ip_adapter import IPAdapterCheckpoint
from fastdeploy_diffusion.config import DiffusionConfig, EngineChoice
from fastdeploy_diffusion.engines.placement import AUTO
from fastdeploy_diffusion.families.networks.ip_adapter import LAYER, ROLE
from fastdeploy_diffusion.precision import is_quantized
from fastdeploy_diffusion.predictors.image_encoder import EMBEDS, HIDDEN_STATES, ImageEncoder
from fastdeploy_diffusion.predictors.open_component import open_network
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import Size


class IPAdapter:
    """An IP-Adapter of Stable Diffusion 1.x, 2.x or XL.

    Args:
        encoder: Its vision tower, which others may share.
        name: In reports.

    Attributes:
        features: The output of the tower that it takes.

    Raises:
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self,
        checkpoint: IPAdapterCheckpoint,
        encoder: ImageEncoder,
        config: DiffusionConfig,
        choice: EngineChoice,
        name: str,
    ) -> None:
        self.checkpoint, self.config, self.encoder = checkpoint, checkpoint.config, encoder
        self.features = HIDDEN_STATES if self.config.resampler else EMBEDS
        if is_quantized(choice.precision):  # it is small, and runs once a request
            choice = replace(choice, precision=AUTO, pinned_by=None)
        self.component = open_network(
            name,
            LAYER,
            self.config,
            checkpoint.source,
            config,
            choice,
            is_calibrated=False,
            role=ROLE,
        )

    @cached_property
    def digest(self) -> str:
        """The digest of its weights."""
        return self.checkpoint.source.digest()

    def signature(self, batch: Size = None) -> Signature:
        """Make the signature for a number of pictures."""
        outputs = self.encoder.signature(batch).outputs
        (features,) = (each for each in outputs if each.name == self.features)
        made = (batch, self.config.tokens, sum(self.config.widths))
        return Signature(
            (features,),
            (TensorSpec("keys", made, "float32"), TensorSpec("values", made, "float32")),
        )
