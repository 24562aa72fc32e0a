"""Projections of the same tokens as one: Q, K and V of self-attention, K and V of cross-attention.

One matrix product of three times the width instead of three.
"""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, ClassVar

from paddle import Tensor, nn

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.passes.base import LayerPass, MadeOf
from fastdeploy_diffusion.passes.layer.stack_linears import check_biases, stack_linears


class MergeQKV(LayerPass):
    """Queries, keys and values of self-attention, of each stream of tokens."""

    name: ClassVar[str] = "merge-qkv"
    sites = (Site.QKV,)

    def match(self, layer: nn.Layer) -> bool:
        """Match self-attention that is not merged yet, whose projections nothing else shares."""
        return _is_attention(layer) and not getattr(layer, "is_cross", False)

    def check(self, layer: nn.Layer) -> str:
        """Accepts three projections that all have a bias, or none."""
        reasons = (check_biases(layer, stream.names) for stream in layer.streams)
        return next(filter(None, reasons), "")

    def count_places(self, layer: nn.Layer) -> int:
        """Count one for each stream."""
        return len(layer.streams)

    def rewrite(self, layer: nn.Layer) -> Mapping[str, MadeOf]:
        """Replace three linear layers by one."""
        derivations: dict[str, MadeOf] = {}
        for stream in layer.streams:
            derivations |= stack_linears(layer, stream.names, stream.merged)
            setattr(layer, stream.method, MethodType(_make_projection(stream.merged), layer))
        return derivations


class MergeKV(LayerPass):
    """Keys and values of cross-attention."""

    name: ClassVar[str] = "merge-kv"
    sites = (Site.CROSS_ATTENTION,)

    def match(self, layer: nn.Layer) -> bool:
        """Match cross-attention that is not merged yet."""
        return _is_attention(layer) and getattr(layer, "is_cross", False)

    def check(self, layer: nn.Layer) -> str:
        """Accepts projections that both have a bias, or none."""
        (stream,) = layer.streams
        return check_biases(layer, stream.names[1:])

    def rewrite(self, layer: nn.Layer) -> Mapping[str, MadeOf]:
        """Replace two linear layers by one."""
        (stream,) = layer.streams
        derivations = stack_linears(layer, stream.names[1:], stream.merged)
        layer.project = MethodType(_project_context, layer)
        return derivations


def _is_attention(layer: nn.Layer) -> bool:
    streams: tuple[Any, ...] = getattr(layer, "streams", ())
    return bool(streams) and not hasattr(layer, streams[0].merged)


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
