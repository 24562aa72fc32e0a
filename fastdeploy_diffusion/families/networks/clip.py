"""The config of CLIP's text encoders."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.keys.diffusers import CLIP_RULES
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
    check_division,
)
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind
from fastdeploy_diffusion.shown import show

_ACTIVATIONS = {"quick_gelu": Site.QUICK_GELU, "gelu": Site.GELU}
_ONLY: dict[str, tuple[Any, ...]] = {
    "model_type": ("clip_text_model",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "use_attention_mask": (False,),
}


@dataclass(frozen=True)
class CLIPTextConfig(NetworkConfig):
    """The keys of a text encoder's ``config.json`` that decide what it computes."""

    only = _ONLY
    inert = TRANSFORMERS_INERT

    vocab_size: VocabularySize = 49408
    hidden_size: Width = 512
    intermediate_size: Width = 2048
    projection_dim: Width = 512
    num_hidden_layers: LayerCount = 12
    num_attention_heads: HeadCount = 8
    max_position_embeddings: Width = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    eos_token_id: Annotated[int, Field(ge=0, lt=2**22)] = 49407

    def __post_init__(self) -> None:
        if self.hidden_act not in _ACTIVATIONS:
            raise UnsupportedModelError(
                f"CLIPTextConfig: hidden_act = {show(self.hidden_act)} is not implemented",
                allowed=", ".join(_ACTIVATIONS),
            )
        name, heads = type(self).__name__, self.num_attention_heads
        check_division(name, "num_attention_heads", heads, (self.hidden_size,))

    @property
    def stacks(self) -> list[Stack]:
        """All stacks of layers."""
        return [Stack("num_hidden_layers", "encoder.layers", self.num_hidden_layers)]

    def census(self) -> Census:
        """Count the places that passes rewrite: an attention and a feed-forward in each layer."""
        sites = (Site.SELF_ATTENTION, Site.QKV, _ACTIVATIONS[self.hidden_act])
        return dict.fromkeys(sites, self.num_hidden_layers)


_KIND = ("transformers", "text_encoder", CLIPTextConfig, "clip", CLIP_RULES, "text_model.")
CLIP = NetworkKind("CLIPTextModel", *_KIND)
PROJECTED_CLIP = NetworkKind("CLIPTextModelWithProjection", *_KIND)
