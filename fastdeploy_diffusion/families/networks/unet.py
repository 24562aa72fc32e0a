"""The config of UNets."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.activations import Activations, Shapes
from fastdeploy_diffusion.families.networks.census import Census, Convolution, Site
from fastdeploy_diffusion.families.networks.network_config import (
    Epsilon,
    HeadCount,
    LatentSize,
    LayerCount,
    NetworkConfig,
    PerBlock,
    Stack,
    Width,
    check_division,
    per_block,
)
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind
from fastdeploy_diffusion.shown import show

# Height and width of the original, top and left of the crop, height and width of the target.
SIZE_NUMBERS = 6
_DOWN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D")
_UP_BLOCKS = ("UpBlock2D", "CrossAttnUpBlock2D")
_WAYS = ("down", "up")

_ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None, "text_time"),
    "addition_embed_type_num_heads": (64,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
# Dropout acts in training only; upcast_attention asks half-precision runs for what float32 does.
_INERT = frozenset({"dropout", "upcast_attention"})


@dataclass(frozen=True)
class UNet2DConditionConfig(NetworkConfig):
    """The keys of a UNet's ``config.json`` that decide what it computes.

    ``attention_head_dim`` holds the *number* of heads wherever ``num_attention_heads`` is absent:
    a name that the published files got wrong and that has to be read as they meant it.
    """

    only = _ONLY
    inert = _INERT

    sample_size: LatentSize | tuple[LatentSize, LatentSize] | None = None
    in_channels: Width = 4
    out_channels: Width = 4
    flip_sin_to_cos: bool = True
    freq_shift: Annotated[int, Field(ge=0, le=1)] = 0
    down_block_types: PerBlock[str] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: PerBlock[str] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: PerBlock[Width] = (320, 640, 1280, 1280)
    layers_per_block: LayerCount | PerBlock[LayerCount] = 2
    norm_num_groups: Width = 32
    norm_eps: Epsilon = 1e-5
    cross_attention_dim: Width | PerBlock[Width] = 1280
    transformer_layers_per_block: LayerCount | PerBlock[LayerCount] = 1
    attention_head_dim: HeadCount | PerBlock[HeadCount] = 8
    num_attention_heads: HeadCount | PerBlock[HeadCount] | None = None
    use_linear_projection: bool = False
    addition_embed_type: str | None = None
    addition_time_embed_dim: Width | None = None
    projection_class_embeddings_input_dim: Width | None = None

    def __post_init__(self) -> None:
        for key, known in (("down_block_types", _DOWN_BLOCKS), ("up_block_types", _UP_BLOCKS)):
            for block in per_block(key, getattr(self, key), self.blocks):
                if block not in known:
                    raise UnsupportedModelError(
                        f"UNet2DConditionConfig: {key} has {show(block)}, which is not implemented",
                        allowed=", ".join(known),
                    )
        name, widths = type(self).__name__, self.block_out_channels
        check_division(name, "norm_num_groups", self.norm_num_groups, widths)
        key = "num_attention_heads" if self.num_attention_heads else "attention_head_dim"
        for width, heads in zip(widths, self.heads, strict=True):
            check_division(name, key, heads, (width,))
        if len(set(self.context_dims)) > 1:
            raise UnsupportedModelError(
                f"{name}: cross_attention_dim = {list(self.context_dims)} is not implemented",
                allowed="the same width for all blocks: they read the same text",
            )
        for key, dim in (
            ("block_out_channels", widths[0]),
            ("addition_time_embed_dim", self.addition_time_embed_dim),
        ):
            # The exponents of a sinusoid's frequencies are divided by it.
            if dim is not None and dim // 2 <= self.freq_shift:
                raise UnsupportedModelError(
                    f"{name}: {key} begins with {dim}, too narrow for sinusoids with freq_shift = "
                    f"{self.freq_shift}",
                    allowed=f"at least {2 * self.freq_shift + 2}",
                )
        if self.addition_embed_type == "text_time" and not (
            self.addition_time_embed_dim and self.projection_class_embeddings_input_dim
        ):
            raise UnsupportedModelError(
                "UNet2DConditionConfig: addition_embed_type 'text_time' needs "
                "addition_time_embed_dim and projection_class_embeddings_input_dim"
            )
        if self.text_embeds_dim is not None and self.text_embeds_dim < 1:
            raise UnsupportedModelError(
                f"{name}: projection_class_embeddings_input_dim = "
                f"{self.projection_class_embeddings_input_dim} leaves no room for a text beside "
                f"{SIZE_NUMBERS} sizes of addition_time_embed_dim = {self.addition_time_embed_dim}"
            )

    @property
    def stacks(self) -> list[Stack]:
        """All stacks of layers, those that hold others first."""
        levels = range(self.blocks)
        stacks = [Stack("block_out_channels", f"{way}_blocks", self.blocks) for way in _WAYS]
        depths = [("mid_block", self.depths[-1])]
        for way, types in zip(_WAYS, (self.down_block_types, self.up_block_types), strict=True):
            for position, kind in enumerate(types):
                is_up = way == "up"
                level = levels[-1 - position] if is_up else position
                block = f"{way}_blocks.{position}"
                layers = self.layers[level] + is_up
                stacks.append(Stack("layers_per_block", f"{block}.resnets", layers))
                if kind.startswith("CrossAttn"):
                    depths.append((block, self.depths[level]))
        return stacks + [
            Stack("transformer_layers_per_block", f"{block}.attentions.0.transformer_blocks", depth)
            for block, depth in depths
        ]

    @property
    def text_embeds_dim(self) -> int | None:
        """Width of SDXL's pooled text, which is embedded with sizes; None in SD 1.x and 2.x."""
        if self.addition_embed_type is None:
            return None
        sizes = SIZE_NUMBERS * (self.addition_time_embed_dim or 0)
        return (self.projection_class_embeddings_input_dim or 0) - sizes

    @property
    def blocks(self) -> int:
        """Number of resolutions."""
        return len(self.block_out_channels)

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads at each resolution."""
        return per_block(
            "attention_head_dim", self.num_attention_heads or self.attention_head_dim, self.blocks
        )

    @property
    def finest_attention(self) -> int:
        """The largest resolution that has attention; the first is 0, the middle's the last."""
        kinds = zip(self.down_block_types, self.up_block_types[::-1], strict=True)
        attends = (any(each.startswith("CrossAttn") for each in kind) for kind in kinds)
        return next((level for level, found in enumerate(attends) if found), self.blocks - 1)

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual blocks at each resolution on the way down."""
        return per_block("layers_per_block", self.layers_per_block, self.blocks)

    @property
    def depths(self) -> tuple[int, ...]:
        """Transformer blocks in each attention at each resolution."""
        return per_block(
            "transformer_layers_per_block", self.transformer_layers_per_block, self.blocks
        )

    @property
    def context_dims(self) -> tuple[int, ...]:
        """Width of the text conditioning at each resolution."""
        return per_block("cross_attention_dim", self.cross_attention_dim, self.blocks)

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
        down = sum(
            self.layers[level] * each[level]
            for level, kind in enumerate(self.down_block_types)
            if kind.startswith("CrossAttn")
        )
        levels = range(self.blocks - 1, -1, -1)
        up = sum(
            (self.layers[level] + 1) * each[level]
            for level, kind in zip(levels, self.up_block_types, strict=True)
            if kind.startswith("CrossAttn")
        )
        return down + each[-1] + up

    def _list_convolutions(self) -> Iterator[Convolution]:
        """List two of each residual block, and one after each doubling."""
        width = self.block_out_channels[0]
        skips = [width]
        for level, outputs in enumerate(self.block_out_channels):
            for _ in range(self.layers[level]):
                yield from (Convolution(width, outputs), Convolution(outputs, outputs))
                width = outputs
                skips.append(width)
            if level < self.blocks - 1:
                skips.append(width)
        yield from [Convolution(width, width)] * 4
        for level in reversed(range(self.blocks)):
            outputs = self.block_out_channels[level]
            for _ in range(self.layers[level] + 1):
                inputs = width + skips.pop()
                yield from (Convolution(inputs, outputs), Convolution(outputs, outputs))
                width = outputs
            if level:
                yield Convolution(width, width)


UNET = NetworkKind("UNet2DConditionModel", "diffusers", "denoiser", UNet2DConditionConfig, "unet")
