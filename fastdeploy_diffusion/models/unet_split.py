"""A UNet in two: what needs no sample, and what does."""

from typing import Any

from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.models.unet import UNet2DConditionModel

# The UNet's parts that leave it for the prologue, and those that the step keeps.
MOVED = ("time_proj", "time_embedding")
_KEPT = ("conv_in", "down_blocks", "mid_block", "up_blocks", "conv_norm_out", "conv_out")


class UNetPrologue(nn.Layer):
    """What a UNet computes once a request.

    Args:
        unet: Whose embedding of the timestep moves here.
        time_width: Channels of all residual blocks.
        context_dim: Width of the text conditioning.
        context_width: Channels of all keys and values.
    """

    add_time_proj = None

    def __init__(self, unet: Any, time_width: int, context_dim: int, context_width: int) -> None:
        super().__init__()
        for name in MOVED:
            setattr(self, name, getattr(unet, name))
        time_dim = unet.time_embedding.linear_2.weight.shape[1]
        self.time_projections = nn.Linear(time_dim, time_width)
        self.context_projections = nn.Linear(context_dim, context_width, bias_attr=False)

    def forward(self, timestep: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the invariants.

        Args:
            timestep: Any number of timesteps, (S,) float32.
            encoder_hidden_states: Text conditioning, (B, T, context_dim) float32.

        Returns:
            For each timestep what the residual blocks add, (S, time_width), and the keys and values
            of all cross-attentions, (B, T, context_width); both float32.
        """
        time = UNet2DConditionModel.embed_time(self, timestep, None, None)
        return (
            self.time_projections(F.silu(time)),
            self.context_projections(encoder_hidden_states),
        )


class UNetStep(nn.Layer):
    """What a UNet computes at every step, with the weights of a UNet that has a prologue."""

    def __init__(self, unet: nn.Layer) -> None:
        super().__init__()
        for name in _KEPT:
            setattr(self, name, getattr(unet, name))

    def forward(self, sample: Tensor, time_features: Tensor, context_features: Tensor) -> Tensor:
        """Predict for a batch.

        Args:
            sample: Noisy latents, (B, in_channels, H, W) float32.
            time_features: The prologue's, (B, time_width) float32.
            context_features: The prologue's, (B, T, context_width) float32.

        Returns:
            The prediction, (B, out_channels, H, W) float32.
        """
        return UNet2DConditionModel.denoise(self, sample, time_features, context_features)
