"""Attention by this library's own kernel: scale, products, mask or bias, softmax, and heads.

The operator takes queries (B, N, heads, dim), keys and values (B, M, heads, dim), and a bias of
scores in T5, and gives (B, N, heads, dim): the transposes around attention vanish. It replaces
what is exported, and what `FuseAttention` makes of that.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.native.library import DOMAIN, OPERATOR
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import read_scalar
from fastdeploy_diffusion.passes.graph.fuse_attention import (
    SWAP_HEADS,
    ExportedAttention,
    ExportedBiasedAttention,
)
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule

_MICROSOFT = "com.microsoft"


class NativeAttention(GraphPass):
    """Attention as an operator that is compiled when the graph is built."""

    name: ClassVar[str] = "native-attention"
    sites = (Site.SELF_ATTENTION, Site.CROSS_ATTENTION, Site.IMAGE_ATTENTION)
    is_native: ClassVar[bool] = True

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rules for separate operators, and for those of `FuseAttention`."""
        return (
            _Attention(is_causal=False),
            _Attention(is_causal=True),
            _BiasedAttention(),
            _FusedAttention(),
            _FusedBiasedAttention(),
            _MultiHeadAttention(),
            _BiasedMultiHeadAttention(),
        )


class _Attention(ExportedAttention):
    """What is exported, and the heads put after the tokens."""

    opset = 17

    def pattern(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        return op.Transpose(super().pattern(op, query, key, value, scale), perm=SWAP_HEADS)

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        return _attend(op, _swap_heads(op, query, key, value), read_scalar(scale), self.is_causal)


class _BiasedAttention(ExportedBiasedAttention):
    """The same with a bias in place of a scale."""

    opset = 17

    def pattern(self, op: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
        return op.Transpose(super().pattern(op, query, key, value, bias), perm=SWAP_HEADS)

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
        return _attend(op, (*_swap_heads(op, query, key, value), bias), 1.0)


class _FusedAttention(GraphRule):
    """``Attention`` of opset 23, with heads before tokens."""

    def pattern(self, op: Any, query: Any, key: Any, value: Any) -> Any:
        fused = op.Attention(query, key, value, _outputs=["fused"])
        return op.Transpose(fused, perm=SWAP_HEADS)

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, fused: Any) -> Any:
        tokens = _swap_heads(op, query, key, value)
        return _attend(op, tokens, *_read_options(fused, "is_causal"))


class _FusedBiasedAttention(GraphRule):
    """The same with a bias."""

    def pattern(self, op: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
        fused = op.Attention(query, key, value, bias, _outputs=["fused"])
        return op.Transpose(fused, perm=SWAP_HEADS)

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, bias: Any, fused: Any) -> Any:
        tokens = _swap_heads(op, query, key, value)
        return _attend(op, (*tokens, bias), *_read_options(fused, "is_causal"))


class _MultiHeadAttention(GraphRule):
    """ONNX Runtime's operator, with heads · dim features."""

    def pattern(self, op: Any, query: Any, key: Any, value: Any) -> Any:
        return op.MultiHeadAttention(query, key, value, _domain=_MICROSOFT, _outputs=["fused"])

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, fused: Any) -> Any:
        return _attend_features(op, (query, key, value), (), fused)


class _BiasedMultiHeadAttention(GraphRule):
    """The same with a bias."""

    def pattern(self, op: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
        inputs = (query, key, value, None, None, bias)
        return op.MultiHeadAttention(*inputs, _domain=_MICROSOFT, _outputs=["fused"])

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, bias: Any, fused: Any) -> Any:
        return _attend_features(op, (query, key, value), (bias,), fused)


def _swap_heads(op: Any, *values: Any) -> list[Any]:
    """Put tokens before heads, mostly by undoing the transposition before."""
    swapped = []
    for each in values:
        made = each.producer()
        is_swapped = made is not None and made.op_type == "Transpose"
        is_swapped = is_swapped and list(made.attributes["perm"].as_ints()) == SWAP_HEADS
        swapped.append(made.inputs[0] if is_swapped else op.Transpose(each, perm=SWAP_HEADS))
    return swapped


def _read_options(fused: Any, causal: str) -> tuple[float, bool]:
    """Read scale and mask of an operator that `FuseAttention` has made, which gives both."""
    attributes = fused.producer().attributes
    is_causal = causal in attributes and attributes[causal].as_int() != 0
    return attributes["scale"].as_float(), is_causal


def _attend_features(op: Any, tokens: Sequence[Any], bias: tuple[Any, ...], fused: Any) -> Any:
    heads = fused.producer().attributes["num_heads"].as_int()
    split = [op.Reshape(each, op.Constant(value_ints=[0, 0, heads, -1])) for each in tokens]
    attended = _attend(op, (*split, *bias), *_read_options(fused, "unidirectional"))
    return op.Reshape(attended, op.Constant(value_ints=[0, 0, -1]))


def _attend(op: Any, inputs: Sequence[Any], scale: float | None, is_causal: bool = False) -> Any:
    make = getattr(op, OPERATOR)
    return make(*inputs, scale=scale, is_causal=int(is_causal), _domain=DOMAIN)
