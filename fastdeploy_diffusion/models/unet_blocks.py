"""The UNet's blocks: residual blocks, each optionally followed by a transformer over its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import paddle
from paddle import Tensor, nn

from fastdeploy_diffusion.models.attention import Context, Transformer2DModel
from fastdeploy_diffusion.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from fastdeploy_diffusion.models.sizes import read_sizes


@dataclass(frozen=True)
class BlockSpec:
    """The settings that the blocks of one resolution share."""

    channels: int
    time_dim: int
    groups: int
    eps: float
    heads: int
    depth: int
    context_dim: int
    linear_projection: bool

    def resnet(self, inputs: int) -> ResnetBlock2D:
        """Make a residual block from ``inputs`` channels to this resolution's."""
        return ResnetBlock2D(inputs, self.channels, self.groups, self.eps, self.time_dim)

    def transformer(self) -> Transformer2DModel:
        """Make a transformer over the pixels of this resolution."""
        return Transformer2DModel(
            self.channels,
            self.heads,
            self.depth,
            self.context_dim,
            self.groups,
            self.linear_projection,
        )

    def transformers(self, count: int, attend: bool) -> nn.LayerList | None:
        """Make ``count`` transformers, or none at a resolution without attention."""
        return nn.LayerList([self.transformer() for _ in range(count)]) if attend else None


class DownBlock(nn.Layer):
    """``DownBlock2D`` and ``CrossAttnDownBlock2D``."""

    def __init__(
        self, spec: BlockSpec, inputs: int, layers: int, attend: bool, shrink: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.LayerList(
            [spec.resnet(inputs if index == 0 else spec.channels) for index in range(layers)]
        )
        self.attentions = spec.transformers(layers, attend)
        self.downsamplers = nn.LayerList([Downsample2D(spec.channels)]) if shrink else None

    def forward(
        self, hidden: Tensor, time: Tensor, context: Tensor | Context
    ) -> tuple[Tensor, list[Tensor]]:
        """Map (B, C, H, W); also returns every intermediate result for the way up."""
        skips = []
        for index, resnet in enumerate(self.resnets):
            hidden = resnet(hidden, time)
            if self.attentions is not None:
                hidden = self.attentions[index](hidden, context)
            skips.append(hidden)
        if self.downsamplers is not None:
            hidden = self.downsamplers[0](hidden)
            skips.append(hidden)
        return hidden, skips


class MidBlock(nn.Layer):
    """``UNetMidBlock2DCrossAttn``, and of ControlNets without attention ``UNetMidBlock2D``.

    Args:
        attend: Whether a transformer and another residual block follow the first one.
    """

    def __init__(self, spec: BlockSpec, attend: bool) -> None:
        super().__init__()
        resnets = 2 if attend else 1
        self.resnets = nn.LayerList([spec.resnet(spec.channels) for _ in range(resnets)])
        self.attentions = spec.transformers(1, attend)

    def forward(self, hidden: Tensor, time: Tensor, context: Tensor | Context) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        hidden = self.resnets[0](hidden, time)
        if self.attentions is None:
            return hidden
        return self.resnets[1](self.attentions[0](hidden, context), time)


class UpBlock(nn.Layer):
    """``UpBlock2D`` and ``CrossAttnUpBlock2D``.

    Args:
        inputs: Channels of the input of each residual block, skip included.
        attend: Whether a transformer follows each residual block.
        grow: Whether the resolution doubles at the end.
    """

    def __init__(self, spec: BlockSpec, inputs: Sequence[int], attend: bool, grow: bool) -> None:
        super().__init__()
        self.resnets = nn.LayerList([spec.resnet(channels) for channels in inputs])
        self.attentions = spec.transformers(len(inputs), attend)
        self.upsamplers = nn.LayerList([Upsample2D(spec.channels)]) if grow else None

    def forward(
        self, hidden: Tensor, skips: list[Tensor], time: Tensor, context: Tensor | Context
    ) -> Tensor:
        """Map (B, C, H, W), taking this block's share from the end of ``skips``."""
        for index, resnet in enumerate(self.resnets):
            hidden = resnet(paddle.concat([hidden, skips.pop()], axis=1), time)
            if self.attentions is not None:
                hidden = self.attentions[index](hidden, context)
        if self.upsamplers is not None:
            # An odd size was rounded up on the way down: return to the size of the next skip.
            _, _, height, width = read_sizes(skips[-1])
            hidden = self.upsamplers[0](hidden, (height, width))
        return hidden
