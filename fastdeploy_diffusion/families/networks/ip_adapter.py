"""The config of IP-Adapters, which are published without one: it follows from their tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import Self

from fastdeploy_diffusion.families.networks.census import Census, Site
from fastdeploy_diffusion.families.networks.network_config import (
    NetworkConfig,
    Stack,
    read_config,
)

IMAGE_KEYS = "image_keys_"
IMAGE_VALUES = "image_values_"
"""Begin the names of a UNet's inputs for each IP-Adapter, before its number."""
BASE_TOKENS = 4  # of the base kind, which its tensors do not tell
HEAD_DIM = 64  # of the resampler's attentions, likewise

LAYER = "fastdeploy_diffusion.models.ip_adapter:IPAdapter"
ROLE = "ip_adapter"


@dataclass(frozen=True)
class Resampler:
    """The sizes of the perceiver resampler (Alayrac et al., 2022) of the kind "plus".

    Args:
        hidden_dim: Width of its tokens.
        inner_dim: Width of queries, keys and values, of 64 a head.
        ff_dim: Width inside the feed-forward.
    """

    hidden_dim: int
    inner_dim: int
    ff_dim: int
    layers: int

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.inner_dim // HEAD_DIM


@dataclass(frozen=True)
class IPAdapterConfig(NetworkConfig):
    """The sizes of an IP-Adapter.

    Args:
        embed_dim: Width of what it takes: of the vision tower's projected output, or with a
            resampler of its hidden states.
        cross_attention_dim: Width of the tokens that it makes.
        tokens: Number of these for one picture.
        widths: Of each cross-attention of the UNet, in diffusers' order.
        resampler: Of the kind "plus"; ``None``: of the base kind.
    """

    embed_dim: int
    cross_attention_dim: int
    tokens: int
    widths: tuple[int, ...]
    resampler: Resampler | None = None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read what a bundle holds of it."""
        own = raw.get("resampler")
        resampler = read_config(Resampler, own, only={}) if own else None
        return super().from_dict({**raw, "resampler": resampler})

    @property
    def kind(self) -> str:
        """Its kind, in the words of those who publish them."""
        return "plus" if self.resampler else "base"

    @property
    def stacks(self) -> Sequence[Stack]:
        """None that another file says: the number of layers is that of the tensors."""
        return ()

    def census(self) -> Census:
        """Count the places that passes rewrite: those of the resampler's layers."""
        layers = self.resampler.layers if self.resampler else 0
        return dict.fromkeys((Site.IMAGE_ATTENTION, Site.GELU), layers)
