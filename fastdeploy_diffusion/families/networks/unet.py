"""The config of UNets."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.activations import Activations, Shapes
from fastdeploy_diffusion.families.networks.census import Census, Convolution, Site
from fastdeploy_diffusion.families.networks.network_config import (
    LatentSize,
    PerBlock,
    Stack,
    Width,
)
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind
from fastdeploy_diffusion.families.networks.unet_encoder import (
    ENCODER_INERT,
    ENCODER_ONLY,
    UNetEncoderConfig,
)

_UP_BLOCKS = ("UpBlock2D", "CrossAttnUpBlock2D")


@dataclass(frozen=True)
class UNet2DConditionConfig(UNetEncoderConfig):
    """The keys of a UNet's ``config.json`` that decide what it computes."""

    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **ENCODER_ONLY,
        "attention_type": ("default",),
        "center_input_sample": (False,),
        "class_embeddings_concat": (False,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "cross_attention_norm": (None,),
        "dual_cross_attention": (False,),
        "mid_block_only_cross_attention": (None, False),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "resnet_out_scale_factor": (1.0,),
        "resnet_skip_time_act": (False,),
        "reverse_transformer_layers_per_block": (None,),
        "time_cond_proj_dim": (None,),
        "time_embedding_act_fn": (None,),
        "time_embedding_dim": (None,),
        "time_embedding_type": ("positional",),
        "timestep_post_act": (None,),
    }
    inert = ENCODER_INERT | {"dropout"}  # which acts in training only

    sample_size: LatentSize | tuple[LatentSize, LatentSize] | None = None
    out_channels: Width = 4
    up_block_types: PerBlock[str] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3

    def __post_init__(self) -> None:
        self.check_blocks("up_block_types", _UP_BLOCKS)
        super().__post_init__()

    @property
    def stacks(self) -> list[Stack]:
        """All stacks of layers, those that hold others first."""
        stacks = [*super().stacks, Stack("block_out_channels", "up_blocks", self.blocks)]
        for position, kind in enumerate(self.up_block_types):
            level, block = self.blocks - 1 - position, f"up_blocks.{position}"
            stacks.append(Stack("layers_per_block", f"{block}.resnets", self.layers[level] + 1))
            if kind.startswith("CrossAttn"):
                stacks.append(self.stack_transformers(block, self.depths[level]))
        return stacks

    @property
    def finest_attention(self) -> int:
        """The largest resolution that has attention; the first is 0, the middle's the last."""
        kinds = zip(self.down_block_types, self.up_block_types[::-1], strict=True)
        attends = (any(each.startswith("CrossAttn") for each in kind) for kind in kinds)
        return next((level for level, found in enumerate(attends) if found), self.blocks - 1)

    @property
    def ip_adapters(self) -> int:
        """Number of IP-Adapters whose tokens it attends to."""
        return 0

    def list_cross_attentions(self) -> list[tuple[str, int]]:
        """List the cross-attentions by path, with their widths, in diffusers' order.

        That is the order in which IP-Adapters number them: down, up, and then the middle.
        """
        places = [
            (f"down_blocks.{level}", level, kind, self.layers[level])
            for level, kind in enumerate(self.down_block_types)
        ]
        for position, kind in enumerate(self.up_block_types):
            level = self.blocks - 1 - position
            places.append((f"up_blocks.{position}", level, kind, self.layers[level] + 1))
        places.append(("mid_block", self.blocks - 1, "CrossAttnMidBlock", 1))
        return [
            (
                f"{block}.attentions.{layer}.transformer_blocks.{depth}.attn2",
                self.block_out_channels[level],
            )
            for block, level, kind, layers in places
            if kind.startswith("CrossAttn")
            for layer in range(layers)
            for depth in range(self.depths[level])
        ]

    def count_activations(self, shapes: Shapes) -> Activations:
        """Count the numbers alive at once in a run, for shapes of its inputs."""
        rows, _, height, width = shapes["sample"]
        tokens = shapes["encoder_hidden_states"][1]
        channels, up_blocks = self.block_out_channels, self.up_block_types[::-1]
        skips = features = scores = 0
        for level, own in enumerate(channels):
            pixels = height * width
            attends = level == len(channels) - 1 or up_blocks[level].startswith("CrossAttn")
            # Skips that the way up still needs of this level and those above it: the first
            # convolution, or the downsampler before, and each residual block.
            skips += pixels * ((channels[level - 1] if level else own) + self.layers[level] * own)
            joined = channels[min(level + 1, len(channels) - 1)] + own
            moments = [2 * joined + own]  # joined, normalised, convolved
            if attends:
                # A skip, and half of GEGLU's hidden layer: engines that split it hold all of it.
                moments.append(6 * own)
                heads = self.heads[level]
                scores = max(scores, rows * heads * pixels * max(pixels, tokens))
            features = max(features, skips + pixels * max(moments))
            height, width = -(-height // 2), -(-width // 2)
        return Activations(rows * features, scores)

    def census(self) -> Census:
        """Count the places that passes rewrite; invariants depend on timestep and prompt alone."""
        # The middle has two; the way up has one more a level than the way down.
        resnets = 2 + sum(2 * layers + 1 for layers in self.layers)
        blocks = self._count_by_level(self.depths)
        is_alone = self.addition_embed_type is None
        finest = [0] * self.blocks
        finest[self.finest_attention] = self.depths[self.finest_attention]
        attention = (Site.SELF_ATTENTION, Site.CROSS_ATTENTION, Site.QKV)
        return {
            **dict.fromkeys((*attention, Site.GEGLU), blocks),
            Site.FINEST_SELF_ATTENTION: self._count_by_level(finest),
            Site.INVARIANT: resnets + blocks,
            Site.SILU: resnets + (1 if is_alone else 2),  # of the embedded timestep, and in it
            Site.GROUP_NORM_SILU: 2 * resnets + 1,
            Site.GROUP_NORM: self._count_by_level([1] * self.blocks),
            Site.UPSAMPLER: self.blocks - 1,
            **Counter(self._list_convolutions()),
        }

    def _count_by_level(self, each: Sequence[int]) -> int:
        """Sum a count per transformer over all transformers, given by level."""
        levels = range(self.blocks - 1, -1, -1)
        up = sum(
            (self.layers[level] + 1) * each[level]
            for level, kind in zip(levels, self.up_block_types, strict=True)
            if kind.startswith("CrossAttn")
        )
        return self.count_down(each) + up

    def _list_convolutions(self) -> Iterator[Convolution]:
        """List two of each residual block, and one after each doubling."""
        yield from self.list_encoder_convolutions()
        width, skips = self.block_out_channels[-1], list(self.skips)
        for level in reversed(range(self.blocks)):
            outputs = self.block_out_channels[level]
            for _ in range(self.layers[level] + 1):
                inputs = width + skips.pop().channels
                yield from (Convolution(inputs, outputs), Convolution(outputs, outputs))
                width = outputs
            if level:
                yield Convolution(width, width)


@dataclass(frozen=True)
class RefinerUNetConfig(UNet2DConditionConfig):
    """The UNet of SDXL's refiner: an aesthetic score takes the place of the target's size."""

    size_numbers: ClassVar[int] = 5


UNET = NetworkKind("UNet2DConditionModel", "diffusers", "denoiser", UNet2DConditionConfig, "unet")
REFINER_UNET = replace(UNET, config=RefinerUNetConfig)
