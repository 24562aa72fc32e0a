"""The configs of CLIP's text encoders and vision towers."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.keys.diffusers import CLIP_RULES, CLIP_VISION_RULES
from fastdeploy_diffusion.families.networks.census import Census, Site
from fastdeploy_diffusion.families.networks.network_config import (
    TRANSFORMERS_INERT,
    Epsilon,
    HeadCount,
    ImageSize,
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
_VISION_ONLY: dict[str, tuple[Any, ...]] = {
    "model_type": ("clip_vision_model",),
    "num_channels": (3,),
}


@dataclass(frozen=True)
class CLIPEncoderConfig(NetworkConfig):
    """The keys of a ``config.json`` that CLIP's two transformers share."""

    inert = TRANSFORMERS_INERT

    hidden_size: Width
    intermediate_size: Width
    projection_dim: Width
    num_hidden_layers: LayerCount
    num_attention_heads: HeadCount
    hidden_act: str
    layer_norm_eps: Epsilon

    def __post_init__(self) -> None:
        name, heads = type(self).__name__, self.num_attention_heads
        if self.hidden_act not in _ACTIVATIONS:
            raise UnsupportedModelError(
                f"{name}: hidden_act = {show(self.hidden_act)} is not implemented",
                allowed=", ".join(_ACTIVATIONS),
            )
        check_division(name, "num_attention_heads", heads, (self.hidden_size,))

    @property
    def stacks(self) -> list[Stack]:
        """All stacks of layers."""
        return [Stack("num_hidden_layers", "encoder.layers", self.num_hidden_layers)]

    def census(self) -> Census:
        """Count the places that passes rewrite: an attention and a feed-forward in each layer."""
        sites = (Site.SELF_ATTENTION, Site.QKV, _ACTIVATIONS[self.hidden_act])
        return dict.fromkeys(sites, self.num_hidden_layers)


@dataclass(frozen=True)
class CLIPTextConfig(CLIPEncoderConfig):
    """The keys of a text encoder's ``config.json`` that decide what it computes."""

    only = _ONLY

    hidden_size: Width = 512
    intermediate_size: Width = 2048
    projection_dim: Width = 512
    num_hidden_layers: LayerCount = 12
    num_attention_heads: HeadCount = 8
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    vocab_size: VocabularySize = 49408
    max_position_embeddings: Width = 77
    eos_token_id: Annotated[int, Field(ge=0, lt=2**22)] = 49407


@dataclass(frozen=True)
class CLIPVisionConfig(CLIPEncoderConfig):
    """The keys of a vision tower's ``config.json`` that decide what it computes."""

    only = _VISION_ONLY

    hidden_size: Width = 768
    intermediate_size: Width = 3072
    projection_dim: Width = 512
    num_hidden_layers: LayerCount = 12
    num_attention_heads: HeadCount = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    image_size: ImageSize = 224
    patch_size: ImageSize = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size > self.image_size:
            raise UnsupportedModelError(
                f"CLIPVisionConfig: patch_size is {self.patch_size}, and image_size "
                f"{self.image_size}",
                allowed="patches that fit into the picture",
            )

    @property
    def tokens(self) -> int:
        """Number of tokens that it makes of a picture: one for all, and one for each patch."""
        return (self.image_size // self.patch_size) ** 2 + 1


_KIND = ("transformers", "text_encoder", CLIPTextConfig, "clip", CLIP_RULES, "text_model.")
CLIP = NetworkKind("CLIPTextModel", *_KIND)
PROJECTED_CLIP = NetworkKind("CLIPTextModelWithProjection", *_KIND)
CLIP_VISION = NetworkKind(
    "CLIPVisionModelWithProjection",
    "transformers",
    "image_encoder",
    CLIPVisionConfig,
    "clip_vision",
    CLIP_VISION_RULES,
    "vision_model.",
)
