"""The config that UNets share with the networks made like their way down."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.census import Convolution
from fastdeploy_diffusion.families.networks.network_config import (
    Epsilon,
    HeadCount,
    LayerCount,
    NetworkConfig,
    PerBlock,
    Stack,
    Width,
    check_division,
    per_block,
)
from fastdeploy_diffusion.shown import show

_DOWN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D")

ENCODER_ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None, "text_time"),
    "addition_embed_type_num_heads": (64,),
    "class_embed_type": (None,),
    "downsample_padding": (1,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_scale_factor": (1,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
}
# It asks half-precision runs for what float32 does.
ENCODER_INERT = frozenset({"upcast_attention"})


class Skip(NamedTuple):
    """A result on the way down that the way up takes.

    Args:
        level: How often its resolution is halved.
    """

    channels: int
    level: int


@dataclass(frozen=True)
class UNetEncoderConfig(NetworkConfig):
    """The keys of the embeddings, the way down and the middle.

    ``attention_head_dim`` holds the *number* of heads wherever ``num_attention_heads`` is absent:
    a name that the published files got wrong and that has to be read as they meant it.
    """

    # Height and width of the original, top and left of the crop, height and width of the target.
    size_numbers: ClassVar[int] = 6

    in_channels: Width = 4
    flip_sin_to_cos: bool = True
    freq_shift: Annotated[int, Field(ge=0, le=1)] = 0
    down_block_types: PerBlock[str] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
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
        name, widths = type(self).__name__, self.block_out_channels
        self.check_blocks("down_block_types", _DOWN_BLOCKS)
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
                f"{name}: addition_embed_type 'text_time' needs "
                "addition_time_embed_dim and projection_class_embeddings_input_dim"
            )
        if self.text_embeds_dim is not None and self.text_embeds_dim < 1:
            raise UnsupportedModelError(
                f"{name}: projection_class_embeddings_input_dim = "
                f"{self.projection_class_embeddings_input_dim} leaves no room for a text beside "
                f"{self.size_numbers} sizes of addition_time_embed_dim = "
                f"{self.addition_time_embed_dim}"
            )

    def check_blocks(self, key: str, known: Sequence[str]) -> None:
        """Refuse kinds of blocks that are not implemented.

        Raises:
            UnsupportedModelError: Names the key and the kind.
        """
        for block in per_block(key, getattr(self, key), self.blocks):
            if block not in known:
                raise UnsupportedModelError(
                    f"{type(self).__name__}: {key} has {show(block)}, which is not implemented",
                    allowed=", ".join(known),
                )

    @property
    def has_middle_attention(self) -> bool:
        """Whether the middle has a transformer, between two residual blocks; else it has one."""
        return True

    @property
    def stacks(self) -> list[Stack]:
        """All stacks of layers, those that hold others first."""
        stacks = [Stack("block_out_channels", "down_blocks", self.blocks)]
        depths = [("mid_block", self.depths[-1])] if self.has_middle_attention else []
        for level, kind in enumerate(self.down_block_types):
            block = f"down_blocks.{level}"
            stacks.append(Stack("layers_per_block", f"{block}.resnets", self.layers[level]))
            if kind.startswith("CrossAttn"):
                depths.append((block, self.depths[level]))
        return stacks + [self.stack_transformers(*each) for each in depths]

    def stack_transformers(self, block: str, depth: int) -> Stack:
        """Describe the stack of a block's transformers."""
        name = f"{block}.attentions.0.transformer_blocks"
        return Stack("transformer_layers_per_block", name, depth)

    @property
    def text_embeds_dim(self) -> int | None:
        """Width of SDXL's pooled text, which is embedded with sizes; None in SD 1.x and 2.x."""
        if self.addition_embed_type is None:
            return None
        sizes = self.size_numbers * (self.addition_time_embed_dim or 0)
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

    @property
    def skips(self) -> tuple[Skip, ...]:
        """Every result on the way down that the way up takes, first to last."""
        skips = [Skip(self.block_out_channels[0], 0)]
        for level, width in enumerate(self.block_out_channels):
            skips += [Skip(width, level)] * self.layers[level]
            if level < self.blocks - 1:
                skips.append(Skip(width, level + 1))
        return tuple(skips)

    @property
    def middle_resnets(self) -> int:
        """Number of residual blocks in the middle."""
        return 2 if self.has_middle_attention else 1

    def count_down(self, each: Sequence[int]) -> int:
        """Sum a count per transformer over those of the way down and the middle, by level."""
        down = sum(
            self.layers[level] * each[level]
            for level, kind in enumerate(self.down_block_types)
            if kind.startswith("CrossAttn")
        )
        return down + (each[-1] if self.has_middle_attention else 0)

    def list_encoder_convolutions(self) -> Iterator[Convolution]:
        """List two of each residual block of the way down and the middle."""
        width = self.block_out_channels[0]
        for level, outputs in enumerate(self.block_out_channels):
            for _ in range(self.layers[level]):
                yield from (Convolution(width, outputs), Convolution(outputs, outputs))
                width = outputs
        yield from [Convolution(width, width)] * (2 * self.middle_resnets)
