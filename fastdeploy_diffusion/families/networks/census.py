"""The kinds of places that passes rewrite; each network's config counts its own."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, TypeAlias


class Site(Enum):
    """A kind of place in a network; a place may be of several kinds."""

    SELF_ATTENTION = "self-attention"
    FINEST_SELF_ATTENTION = "self-attention at the largest resolution of a UNet that has any"
    CROSS_ATTENTION = "cross-attention"
    IMAGE_ATTENTION = "attention to the tokens of an image prompt, or of these to a picture"
    ROTARY_ATTENTION = "attention with rotary embedding"
    ROTATION = "rotary embedding of queries, or of keys"
    QKV = "one stream of tokens, projected to queries, keys and values alone"
    QKV_MLP = "the same tokens, projected to queries, keys, values and a hidden layer"
    INVARIANT = "projection that depends on the timestep or the prompt alone"
    GEGLU = "feed-forward with GEGLU"
    GELU = "feed-forward with exact GELU"
    TANH_GELU = "feed-forward with GELU's tanh approximation"
    QUICK_GELU = "feed-forward with CLIP's quick GELU"
    SILU = "SiLU without a GroupNorm before it"
    GROUP_NORM_SILU = "GroupNorm before SiLU"
    GROUP_NORM = "GroupNorm before attention"
    RMS_NORM = "RMSNorm"
    ADAPTIVE_NORM = "LayerNorm with modulation"
    UPSAMPLER = "doubling of the resolution"


class Convolution(NamedTuple):
    """A 3×3 convolution that keeps the resolution; the first and last of a network do not count."""

    inputs: int
    outputs: int


Census: TypeAlias = Mapping[Site | Convolution, int]
"""Number of places of each kind in a network; 0 for kinds that are left out."""
