"""Residual convolution blocks and the changes of resolution between them."""

from typing import Any

from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.models.sizes import read_sizes


class ResnetBlock2D(nn.Layer):
    """GroupNorm → SiLU → Conv, twice, with the time embedding added between, and a skip.

    Args:
        groups: Of both GroupNorms.
        eps: Of both GroupNorms.
        time_dim: Width of the time embedding; ``None`` for the autoencoder, which has none.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: int, eps: float, time_dim: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, epsilon=eps)
        self.conv1 = nn.Conv2D(inputs, outputs, 3, padding=1)
        if time_dim is not None:
            self.time_emb_proj = nn.Linear(time_dim, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, epsilon=eps)
        self.conv2 = nn.Conv2D(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2D(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, features: Tensor, time: Tensor | None = None) -> Tensor:
        """Map (B, inputs, H, W), given ``time`` (B, time_dim), to (B, outputs, H, W)."""
        hidden = self.conv1(F.silu(self.norm1(features)))
        if time is not None:
            hidden = hidden + self.project_time(time).unsqueeze([2, 3])
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if self.conv_shortcut is not None:
            features = self.conv_shortcut(features)
        return features + hidden

    def project_time(self, time: Tensor) -> Tensor:
        """Project the time embedding to the summand of every pixel, (B, outputs)."""
        projected: Tensor = self.time_emb_proj(F.silu(time))
        return projected


class Downsample2D(nn.Layer):
    """Halve height and width with a strided 3×3 convolution.

    Args:
        asymmetric: Pad only right and below, as the autoencoder's encoder does.
    """

    def __init__(self, channels: int, asymmetric: bool = False) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2D(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        if self.asymmetric:
            features = F.pad(features, [0, 1, 0, 1])
        return self.conv(features)


class Upsample2D(nn.Layer):
    """Double height and width by repeating pixels, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2D(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, size: tuple[Any, Any] | None = None) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W), or to a size that is up to one pixel less."""
        repeated = repeat_pixels(features)
        if size is not None:
            height, width = size
            repeated = repeated[:, :, :height, :width]
        return self.conv(repeated)


def repeat_pixels(features: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by two, (B, C, H, W) to (B, C, 2H, 2W).

    Written with broadcasting: Paddle's ``interpolate`` fails under oneDNN and in the ONNX export.
    """
    _, channels, height, width = read_sizes(features)
    spread = features.unsqueeze([3, 5]).expand([-1, -1, -1, 2, -1, 2])
    # Sums: a computed size that is multiplied becomes a floating-point number on the way.
    return spread.reshape([0, channels, height + height, width + width])
