"""The config of T5's encoders."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import Self

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.keys.diffusers import T5_RULES
from fastdeploy_diffusion.families.networks.census import Census, Site
from fastdeploy_diffusion.families.networks.network_config import (
    TRANSFORMERS_INERT,
    Epsilon,
    HeadCount,
    LayerCount,
    NetworkConfig,
    Stack,
    VocabularySize,
    Width,
)
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind

_ONLY: dict[str, tuple[Any, ...]] = {
    "model_type": ("t5",),
    "feed_forward_proj": ("gated-gelu",),
    "dense_act_fn": ("gelu_new",),
    "is_gated_act": (True,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}
# Of the decoder, of training and of other tasks.
_INERT = TRANSFORMERS_INERT | {
    *("eos_token_id", "classifier_dropout", "dropout_rate", "n_positions", "num_decoder_layers"),
    *("output_past", "scale_decoder_outputs", "task_specific_params"),
}


@dataclass(frozen=True)
class T5Config(NetworkConfig):
    """The keys of a T5 encoder's ``config.json`` that decide what it computes."""

    only = _ONLY
    inert = _INERT

    vocab_size: VocabularySize = 32128
    d_model: Width = 512
    d_kv: Width = 64
    d_ff: Width = 2048
    num_layers: LayerCount = 6
    num_heads: HeadCount = 8
    relative_attention_num_buckets: Annotated[int, Field(ge=4, le=4096)] = 32
    relative_attention_max_distance: Annotated[int, Field(ge=2, le=2**16)] = 128
    layer_norm_epsilon: Epsilon = 1e-6

    def __post_init__(self) -> None:
        buckets, farthest = (
            self.relative_attention_num_buckets,
            self.relative_attention_max_distance,
        )
        if buckets % 4 or farthest <= buckets // 4:
            raise UnsupportedModelError(
                f"T5Config: relative_attention_num_buckets = {buckets} with "
                f"relative_attention_max_distance = {farthest} is not implemented",
                allowed="a multiple of 4, and a distance of more than a quarter of it",
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a parsed ``config.json``; UnsupportedModelError for unimplemented options."""
        # Left out, it is that of T5 1.0, which no Flux model has.
        return super().from_dict({"feed_forward_proj": "relu", **raw})

    @property
    def stacks(self) -> list[Stack]:
        """All stacks of layers."""
        return [Stack("num_layers", "encoder.block", self.num_layers)]

    def census(self) -> Census:
        """Count the places that passes rewrite: attention, feed-forward and norms of each block."""
        sites = (Site.SELF_ATTENTION, Site.QKV, Site.TANH_GELU)
        return {
            **dict.fromkeys(sites, self.num_layers),
            Site.RMS_NORM: 2 * self.num_layers + 1,  # and the last
        }


T5 = NetworkKind("T5EncoderModel", "transformers", "text_encoder", T5Config, "t5", T5_RULES)
