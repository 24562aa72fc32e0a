"""The config of ControlNets."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.activations import Activations, Shapes
from fastdeploy_diffusion.families.networks.census import Census, Convolution, Site
from fastdeploy_diffusion.families.networks.network_config import PerBlock, Stack, Width
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind
from fastdeploy_diffusion.families.networks.unet_encoder import (
    ENCODER_INERT,
    ENCODER_ONLY,
    UNetEncoderConfig,
)

PICTURE = "controlnet_cond"  # the input for the control picture
MIDDLES = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D")


@dataclass(frozen=True)
class ControlNetConfig(UNetEncoderConfig):
    """The keys of a ControlNet's ``config.json`` that decide what it computes."""

    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **ENCODER_ONLY,
        "conditioning_channels": (3,),
    }
    inert = ENCODER_INERT

    mid_block_type: str = "UNetMidBlock2DCrossAttn"
    controlnet_conditioning_channel_order: Literal["rgb", "bgr"] = "rgb"
    conditioning_embedding_out_channels: PerBlock[Width] = (16, 32, 96, 256)
    global_pool_conditions: bool = False

    def __post_init__(self) -> None:
        if self.mid_block_type not in MIDDLES:
            raise UnsupportedModelError(
                f"ControlNetConfig: mid_block_type is {self.mid_block_type!r}, which is not "
                "implemented",
                allowed=", ".join(MIDDLES),
            )
        super().__post_init__()

    @property
    def has_middle_attention(self) -> bool:
        """Whether the middle has a transformer, between two residual blocks; else it has one."""
        return self.mid_block_type == "UNetMidBlock2DCrossAttn"

    @property
    def reads_text(self) -> bool:
        """Whether any of its blocks has a transformer."""
        return self.count_down([1] * self.blocks) > 0

    @property
    def downscale(self) -> int:
        """Pixels of the control picture to one of the latents, in one direction."""
        return int(2 ** (len(self.conditioning_embedding_out_channels) - 1))

    @property
    def stacks(self) -> list[Stack]:
        """All stacks of layers, those that hold others first."""
        key, name = "conditioning_embedding_out_channels", "controlnet_cond_embedding.blocks"
        layers = 2 * (len(self.conditioning_embedding_out_channels) - 1)
        return [*super().stacks, *([Stack(key, name, layers)] if layers else [])]

    def count_activations(self, shapes: Shapes) -> Activations:
        """Count the numbers alive at once in a run, for shapes of its inputs."""
        rows, _, height, width = shapes["sample"]
        # Where no block has a transformer, no text is read.
        tokens = shapes["encoder_hidden_states"][1] if self.reads_text else 0
        picture = height * width * self.downscale**2
        # Of the control picture: convolved, activated, and itself.
        features = picture * (3 + 2 * self.conditioning_embedding_out_channels[0])
        skips = scores = 0
        for level, own in enumerate(self.block_out_channels):
            pixels = height * width
            skips += pixels * sum(skip.channels for skip in self.skips if skip.level == level)
            kind, is_last = self.down_block_types[level], level == self.blocks - 1
            attends = kind.startswith("CrossAttn") or (is_last and self.has_middle_attention)
            if attends:
                scores = max(scores, rows * self.heads[level] * pixels * max(pixels, tokens))
            # A skip, and half of GEGLU's hidden layer; or what is joined, normalised, convolved.
            features = max(features, skips + pixels * own * (6 if attends else 3))
            height, width = -(-height // 2), -(-width // 2)
        # What leaves the zero convolutions is as large as all skips.
        return Activations(rows * max(features, 2 * skips), scores)

    def census(self) -> Census:
        """Count the places that passes rewrite; invariants depend on timestep and prompt alone."""
        resnets = sum(self.layers) + self.middle_resnets
        blocks = self.count_down(self.depths)
        embedded = len(self.conditioning_embedding_out_channels)
        attention = (Site.SELF_ATTENTION, Site.CROSS_ATTENTION, Site.QKV)
        return {
            **dict.fromkeys((*attention, Site.GEGLU), blocks),
            Site.INVARIANT: resnets + blocks,
            # Of the embedded timestep, in its embedding and in that of SDXL's conditions; and
            # after each convolution of the picture's embedding but the last.
            Site.SILU: resnets + 1 + bool(self.addition_embed_type) + 2 * embedded - 1,
            Site.GROUP_NORM_SILU: 2 * resnets,
            Site.GROUP_NORM: self.count_down([1] * self.blocks),
            **Counter([*self.list_encoder_convolutions(), *self._list_embedding_convolutions()]),
        }

    def _list_embedding_convolutions(self) -> Iterator[Convolution]:
        """List those of the picture's embedding that keep the resolution, but for the first."""
        *wider, last = self.conditioning_embedding_out_channels
        yield from (Convolution(width, width) for width in wider)
        yield Convolution(last, self.block_out_channels[0])


CONTROLNET = NetworkKind(
    "ControlNetModel", "diffusers", "controlnet", ControlNetConfig, "controlnet"
)
