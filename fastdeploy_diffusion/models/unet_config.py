"""What a UNet's ``config.json`` may say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.models.model_config import per_block, read_config

# Height and width of the original, top and left of the crop, height and width of the target.
SIZE_NUMBERS = 6
_DOWN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D")
_UP_BLOCKS = ("UpBlock2D", "CrossAttnUpBlock2D")

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
class UNet2DConditionConfig:
    """The keys of a UNet's ``config.json`` that decide what it computes.

    ``attention_head_dim`` holds the *number* of heads wherever ``num_attention_heads`` is absent:
    a name that the published files got wrong and that has to be read as they meant it.
    """

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int | tuple[int, ...] = 1280
    transformer_layers_per_block: int | tuple[int, ...] = 1
    attention_head_dim: int | tuple[int, ...] = 8
    num_attention_heads: int | tuple[int, ...] | None = None
    use_linear_projection: bool = False
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None

    def __post_init__(self) -> None:
        for key, known in (("down_block_types", _DOWN_BLOCKS), ("up_block_types", _UP_BLOCKS)):
            for block in per_block(key, getattr(self, key), self.blocks):
                if block not in known:
                    raise UnsupportedModelError(
                        f"UNet2DConditionConfig: {key} has {block!r}, which is not implemented",
                        allowed=", ".join(known),
                    )
        for channels, heads in zip(self.block_out_channels, self.heads, strict=True):
            if channels % heads:
                raise UnsupportedModelError(
                    f"UNet2DConditionConfig: {channels} channels do not divide among {heads} heads"
                )
        if self.addition_embed_type == "text_time" and not (
            self.addition_time_embed_dim and self.projection_class_embeddings_input_dim
        ):
            raise UnsupportedModelError(
                "UNet2DConditionConfig: addition_embed_type 'text_time' needs "
                "addition_time_embed_dim and projection_class_embeddings_input_dim"
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "UNet2DConditionConfig":
        """Read a parsed ``config.json``; UnsupportedModelError for what is not implemented."""
        only = dict(_ONLY)
        # Read as a field below, but only two of its values are implemented.
        if raw.get("addition_embed_type") in only.pop("addition_embed_type"):
            return read_config(cls, raw, only=only, inert=_INERT)
        raise UnsupportedModelError(
            "UNet2DConditionConfig: addition_embed_type = "
            f"{raw['addition_embed_type']!r} is not implemented",
            allowed="null, 'text_time'",
        )

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
