"""Projections of the same tokens as one: Q, K and V of self-attention, K and V of cross-attention.

One matrix product of three times the width instead of three.
"""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, ClassVar, NamedTuple

from paddle import Tensor, nn

from fastdeploy_diffusion.models.attention import Attention
from fastdeploy_diffusion.models.autoencoder import SpatialAttention
from fastdeploy_diffusion.models.clip import CLIPAttention
from fastdeploy_diffusion.models.flux_blocks import FluxAttention
from fastdeploy_diffusion.models.t5 import T5Attention
from fastdeploy_diffusion.passes.base import Derivation, LayerPass
from fastdeploy_diffusion.passes.expectations import count_attentions, count_qkv_triples
from fastdeploy_diffusion.passes.stack_linears import check_biases, stack_linears

_MERGED = "merged"


class _Triple(NamedTuple):
    """Projections to queries, keys and values; what takes their place; and what calls them."""

    names: tuple[str, str, str]
    merged: str = _MERGED
    method: str = "project"


# By class. Queries, keys and values of Flux's single blocks are another pass' business.
_TRIPLES: Mapping[type, tuple[_Triple, ...]] = {
    Attention: (_Triple(("to_q", "to_k", "to_v")),),
    SpatialAttention: (_Triple(("to_q", "to_k", "to_v")),),
    CLIPAttention: (_Triple(("q_proj", "k_proj", "v_proj")),),
    T5Attention: (_Triple(("q", "k", "v")),),
    FluxAttention: (
        _Triple(("to_q", "to_k", "to_v")),
        _Triple(("add_q_proj", "add_k_proj", "add_v_proj"), "merged_context", "project_context"),
    ),
}


class MergeQKV(LayerPass):
    """Queries, keys and values of self-attention; in Flux's double blocks, of each stream."""

    name: ClassVar[str] = "merge-qkv"

    def match(self, layer: nn.Layer) -> bool:
        """Self-attention that is not merged yet, with projections that nothing else goes with."""
        return (
            _is_attention(layer)
            and not getattr(layer, "is_cross", False)
            and getattr(layer, "is_joint", True)
        )

    def check(self, layer: nn.Layer) -> str:
        """Three that are merged must all have a bias, or none."""
        reasons = (check_biases(layer, triple.names) for triple in _TRIPLES[type(layer)])
        return next(filter(None, reasons), "")

    def count_places(self, layer: nn.Layer) -> int:
        """One for each stream."""
        return len(_TRIPLES[type(layer)])

    def rewrite(self, layer: nn.Layer) -> Mapping[str, Derivation]:
        """Put one linear layer in the place of three."""
        derivations: dict[str, Derivation] = {}
        for triple in _TRIPLES[type(layer)]:
            derivations |= stack_linears(layer, triple.names, triple.merged)
            setattr(layer, triple.method, MethodType(_make_projection(triple.merged), layer))
        return derivations

    def expect(self, network: nn.Layer) -> int | None:
        """Every self-attention of the config, once for each stream that takes part."""
        return count_qkv_triples(network)


class MergeKV(LayerPass):
    """Keys and values of cross-attention."""

    name: ClassVar[str] = "merge-kv"

    def match(self, layer: nn.Layer) -> bool:
        """Cross-attention that is not merged yet."""
        return _is_attention(layer) and getattr(layer, "is_cross", False)

    def check(self, layer: nn.Layer) -> str:
        """Both must have a bias, or none."""
        return check_biases(layer, _name_keys_and_values(layer))

    def rewrite(self, layer: nn.Layer) -> Mapping[str, Derivation]:
        """Put one linear layer in the place of two."""
        derivations = stack_linears(layer, _name_keys_and_values(layer), _MERGED)
        layer.project = MethodType(_project_context, layer)
        return derivations

    def expect(self, network: nn.Layer) -> int | None:
        """Every cross-attention of the config."""
        counts = count_attentions(network)
        return None if counts is None else counts.cross_attentions


def _is_attention(layer: nn.Layer) -> bool:
    return type(layer) in _TRIPLES and not hasattr(layer, _MERGED)


def _name_keys_and_values(layer: nn.Layer) -> tuple[str, ...]:
    (triple,) = _TRIPLES[type(layer)]
    return triple.names[1:]


def _make_projection(merged: str) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def project(
        self: Any, tokens: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = getattr(self, merged)(tokens).chunk(3, axis=-1)
        return query, key, value

    return project


def _project_context(self: Any, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    key, value = self.merged(context).chunk(2, axis=-1)
    return self.to_q(tokens), key, value
