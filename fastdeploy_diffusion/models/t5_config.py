"""What the ``config.json`` of a T5 encoder may say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.models.model_config import read_config
from fastdeploy_diffusion.models.transformers_keys import INERT_KEYS

_ONLY: dict[str, tuple[Any, ...]] = {
    "model_type": ("t5",),
    "feed_forward_proj": ("gated-gelu",),
    "dense_act_fn": ("gelu_new",),
    "is_gated_act": (True,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}
# Of the decoder, of training and of other tasks.
_INERT = INERT_KEYS | {
    "eos_token_id",
    "classifier_dropout",
    "dropout_rate",
    "n_positions",
    "num_decoder_layers",
    "output_past",
    "scale_decoder_outputs",
    "task_specific_params",
}


@dataclass(frozen=True)
class T5Config:
    """The keys of a T5 encoder's ``config.json`` that decide what it computes."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        buckets, farthest = (
            self.relative_attention_num_buckets,
            self.relative_attention_max_distance,
        )
        if buckets < 4 or buckets % 4 or farthest <= buckets // 4:
            raise UnsupportedModelError(
                f"T5Config: relative_attention_num_buckets = {buckets} with "
                f"relative_attention_max_distance = {farthest} is not implemented",
                allowed="a multiple of 4, and a distance of more than a quarter of it",
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "T5Config":
        """Read a parsed ``config.json``; UnsupportedModelError for what is not implemented."""
        # Left out, it is that of T5 1.0, which no Flux model has.
        return read_config(cls, {"feed_forward_proj": "relu", **raw}, only=_ONLY, inert=_INERT)
