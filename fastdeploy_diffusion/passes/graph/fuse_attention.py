"""Attention as one operator: scale, product with the keys, causal mask, softmax, and values.

Paddle's causal mask is -10000 above the diagonal, which no score comes near, and every row has its
diagonal: the operators' own mask gives the same numbers.
"""

from typing import Any, ClassVar

from paddle import nn

from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.expectations import count_attentions
from fastdeploy_diffusion.passes.graph.constants import read_list, read_scalar, read_size
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule

_MICROSOFT = "com.microsoft"
_SWAP_HEADS = [0, 2, 1, 3]  # (B, N, heads, dim) to (B, heads, N, dim), and back


class FuseAttention(GraphPass):
    """``Attention`` of opset 23; in ONNX Runtime ``MultiHeadAttention``, which is the faster one.

    That one never holds all scores of an unmasked attention at once.
    """

    name: ClassVar[str] = "fuse-attention"

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """With and without a causal mask."""
        make = _Attention if dialect is Dialect.STANDARD else _MultiHeadAttention
        return make(is_causal=False), make(is_causal=True)

    def expect(self, network: nn.Layer) -> int | None:
        """Every attention of the config."""
        counts = count_attentions(network)
        return None if counts is None else counts.self_attentions + counts.cross_attentions


class _Attention(GraphRule):
    """Queries (B, heads, N, dim), keys and values (B, heads, M, dim)."""

    opset = 23

    def __init__(self, is_causal: bool) -> None:
        self.is_causal = is_causal

    def pattern(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        scores = op.MatMul(op.Mul(query, scale), op.Transpose(key, perm=[0, 1, 3, 2]))
        if self.is_causal:
            mask = op.Trilu(op.Expand([-1e4], op.Shape(scores)), [1], upper=1)
            scores = op.Add(scores, mask)
        return op.MatMul(op.Softmax(scores, axis=-1), value)

    def check(self, place: Any, **found: Any) -> str:
        return "" if read_scalar(found["scale"]) is not None else "its scale is no known number"

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        return op.Attention(
            query, key, value, scale=read_scalar(scale), is_causal=int(self.is_causal)
        )


class _MultiHeadAttention(_Attention):
    """Queries (B, N, heads, dim), keys and values (B, M, heads, dim)."""

    opset = 17

    def pattern(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        query, key, value = (op.Transpose(each, perm=_SWAP_HEADS) for each in (query, key, value))
        return op.Transpose(super().pattern(op, query, key, value, scale), perm=_SWAP_HEADS)

    def check(self, place: Any, **found: Any) -> str:
        if reason := super().check(place, **found):
            return reason
        return "" if read_size(found["query"], 2) else "its number of heads is not known"

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        attended = op.MultiHeadAttention(
            *(_merge_heads(op, each) for each in (query, key, value)),
            num_heads=read_size(query, 2),
            scale=read_scalar(scale),
            unidirectional=int(self.is_causal),
            _domain=_MICROSOFT,
        )
        return op.Reshape(attended, op.Constant(value_ints=[0, 0, read_size(query, 2), -1]))


def _merge_heads(op: Any, tokens: Any) -> Any:
    """Give (B, N, heads · dim), which most often is what was just split into heads."""
    producer = tokens.producer()
    if producer is not None and producer.op_type == "Reshape":
        source, shape = producer.inputs
        if len(source.shape or ()) == 3 and (read_list(shape) or [])[:2] == [0, 0]:
            return source
    return op.Reshape(tokens, op.Constant(value_ints=[0, 0, -1]))
