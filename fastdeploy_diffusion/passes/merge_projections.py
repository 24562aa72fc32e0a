"""Projections of the same tokens as one: Q, K and V of self-attention, K and V of cross-attention.

One matrix product of three times the width instead of three; the numbers are the same, for every
output is the same sum.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any, ClassVar

import numpy as np
from paddle import LazyGuard, Tensor, nn

from fastdeploy_diffusion.models.attention import Attention
from fastdeploy_diffusion.models.autoencoder import SpatialAttention
from fastdeploy_diffusion.models.clip import CLIPAttention
from fastdeploy_diffusion.passes.base import Derivation, FloatArray, LayerPass
from fastdeploy_diffusion.passes.expectations import count_attentions

# By class: the names of the three projections.
_PROJECTIONS: Mapping[type, tuple[str, str, str]] = {
    Attention: ("to_q", "to_k", "to_v"),
    SpatialAttention: ("to_q", "to_k", "to_v"),
    CLIPAttention: ("q_proj", "k_proj", "v_proj"),
}
_MERGED = "merged"


class MergeQKV(LayerPass):
    """Queries, keys and values of self-attention."""

    name: ClassVar[str] = "merge-qkv"

    def match(self, layer: nn.Layer) -> bool:
        """Self-attention that is not merged yet."""
        return _is_attention(layer) and not getattr(layer, "is_cross", False)

    def check(self, layer: nn.Layer) -> str:
        """The three must all have a bias, or none."""
        return _check_biases([getattr(layer, name) for name in _PROJECTIONS[type(layer)]])

    def rewrite(self, layer: nn.Layer) -> Mapping[str, Derivation]:
        """Put one linear layer in the place of three."""
        derivations = _merge(layer, _PROJECTIONS[type(layer)])
        layer.project = MethodType(_project_all, layer)
        return derivations

    def expect(self, network: nn.Layer) -> int | None:
        """Every self-attention of the config."""
        counts = count_attentions(network)
        return None if counts is None else counts.self_attentions


class MergeKV(LayerPass):
    """Keys and values of cross-attention."""

    name: ClassVar[str] = "merge-kv"

    def match(self, layer: nn.Layer) -> bool:
        """Cross-attention that is not merged yet."""
        return _is_attention(layer) and getattr(layer, "is_cross", False)

    def check(self, layer: nn.Layer) -> str:
        """Both must have a bias, or none."""
        return _check_biases([getattr(layer, name) for name in _PROJECTIONS[type(layer)][1:]])

    def rewrite(self, layer: nn.Layer) -> Mapping[str, Derivation]:
        """Put one linear layer in the place of two."""
        derivations = _merge(layer, _PROJECTIONS[type(layer)][1:])
        layer.project = MethodType(_project_context, layer)
        return derivations

    def expect(self, network: nn.Layer) -> int | None:
        """Every cross-attention of the config."""
        counts = count_attentions(network)
        return None if counts is None else counts.cross_attentions


def _is_attention(layer: nn.Layer) -> bool:
    return type(layer) in _PROJECTIONS and not hasattr(layer, _MERGED)


def _check_biases(projections: list[nn.Linear]) -> str:
    biased = [projection.bias is not None for projection in projections]
    return "" if all(biased) or not any(biased) else "some projections have a bias, others not"


def _merge(layer: Any, names: tuple[str, ...]) -> dict[str, Derivation]:
    projections = [getattr(layer, name) for name in names]
    inputs = projections[0].weight.shape[0]
    outputs = sum(projection.weight.shape[1] for projection in projections)
    has_bias = projections[0].bias is not None
    with LazyGuard():
        merged = nn.Linear(inputs, outputs, bias_attr=None if has_bias else False)
    merged.eval()
    for name in names:
        delattr(layer, name)
    setattr(layer, _MERGED, merged)
    return {
        f"{_MERGED}.{kind}": Derivation(tuple(f"{name}.{kind}" for name in names), _stack)
        for kind in (("weight", "bias") if has_bias else ("weight",))
    }


def _stack(*parts: FloatArray) -> FloatArray:
    # PyTorch's layout: [out, in].
    return np.concatenate(parts)


def _project_all(self: Any, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = self.merged(tokens).chunk(3, axis=-1)
    return query, key, value


def _project_context(self: Any, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    key, value = self.merged(context).chunk(2, axis=-1)
    return self.to_q(tokens), key, value
