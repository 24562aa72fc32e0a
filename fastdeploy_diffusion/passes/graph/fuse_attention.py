"""Attention as one operator: scale, product with the keys, causal mask, softmax, and values.

Paddle's causal mask is -10000 above the diagonal, which no score comes near, and every row has its
diagonal: the operators' own mask gives the same numbers.
"""

from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import read_list, read_scalar, read_size
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule

_MICROSOFT = "com.microsoft"
SWAP_HEADS = [0, 2, 1, 3]  # (B, N, heads, dim) to (B, heads, N, dim), and back


class FuseAttention(GraphPass):
    """``Attention`` of opset 23; in ONNX Runtime ``MultiHeadAttention``, which is the faster one.

    That one never holds all scores of an unmasked attention at once.
    """

    name: ClassVar[str] = "fuse-attention"
    sites = (Site.SELF_ATTENTION, Site.CROSS_ATTENTION, Site.IMAGE_ATTENTION)

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rules with and without a causal mask, and T5's, with a bias for a scale."""
        if dialect is Dialect.STANDARD:
            return (
                ExportedAttention(is_causal=False),
                ExportedAttention(is_causal=True),
                ExportedBiasedAttention(),
            )
        return (
            _MultiHeadAttention(is_causal=False),
            _MultiHeadAttention(is_causal=True),
            _BiasedMultiHeadAttention(),
        )


class ExportedAttention(GraphRule):
    """Queries (B, heads, N, dim), keys and values (B, heads, M, dim)."""

    opset = 23

    def __init__(self, is_causal: bool) -> None:
        self.is_causal = is_causal

    def pattern(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        """Match what Paddle exports."""
        scores = op.MatMul(op.Mul(query, scale), op.Transpose(key, perm=[0, 1, 3, 2]))
        if self.is_causal:
            mask = op.Trilu(op.Expand([-1e4], op.Shape(scores)), [1], upper=1)
            scores = op.Add(scores, mask)
        return op.MatMul(op.Softmax(scores, axis=-1), value)

    def check(self, place: Any, **found: Any) -> str:
        """Refuse what an attention operator cannot express."""
        return "" if read_scalar(found["scale"]) is not None else "its scale is no known number"

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        """Write ``Attention``."""
        return op.Attention(
            query, key, value, scale=read_scalar(scale), is_causal=int(self.is_causal)
        )


class _MultiHeadAttention(ExportedAttention):
    """Queries (B, N, heads, dim), keys and values (B, M, heads, dim)."""

    opset = 17

    def pattern(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        query, key, value = (op.Transpose(each, perm=SWAP_HEADS) for each in (query, key, value))
        return op.Transpose(super().pattern(op, query, key, value, scale), perm=SWAP_HEADS)

    def check(self, place: Any, **found: Any) -> str:
        if reason := super().check(place, **found):
            return reason
        return "" if read_size(found["query"], 2) else "its number of heads is not known"

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, scale: Any) -> Any:
        options = {"scale": read_scalar(scale), "unidirectional": int(self.is_causal)}
        return _attend(op, query, key, value, (), options)


class ExportedBiasedAttention(GraphRule):
    """Queries (B, heads, N, dim), keys and values (B, heads, M, dim), bias (1, heads, N, M)."""

    opset = 23

    def pattern(self, op: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
        """Match what Paddle exports."""
        scores = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))
        return op.MatMul(op.Softmax(op.Add(scores, bias), axis=-1), value)

    def match(self, place: Any, *, bias: Any, **_: Any) -> bool:
        """Leave causal masks to the other rules."""
        return bias.producer() is None or bias.producer().op_type != "Trilu"

    def check(self, place: Any, *, bias: Any, **_: Any) -> str:
        """Refuse what an attention operator cannot express."""
        return "" if len(bias.shape or ()) == 4 else "its bias is not one for each head"

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
        """Write ``Attention``."""
        return op.Attention(query, key, value, bias, scale=1.0)


class _BiasedMultiHeadAttention(ExportedBiasedAttention):
    """Queries (B, N, heads, dim), keys and values (B, M, heads, dim), bias (1, heads, N, M)."""

    opset = 17

    def pattern(self, op: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
        query, key, value = (op.Transpose(each, perm=SWAP_HEADS) for each in (query, key, value))
        return op.Transpose(super().pattern(op, query, key, value, bias), perm=SWAP_HEADS)

    def check(self, place: Any, *, bias: Any, **found: Any) -> str:
        if reason := super().check(place, bias=bias, **found):
            return reason
        return "" if read_size(found["query"], 2) else "its number of heads is not known"

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
        # Between them may stand a bias of the projections, and a mask of keys.
        return _attend(op, query, key, value, (None, None, bias), {"scale": 1.0})


def _attend(
    op: Any, query: Any, key: Any, value: Any, others: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Build ``MultiHeadAttention``, whose output is (B, N, heads, dim)."""
    heads = read_size(query, 2)
    attended = op.MultiHeadAttention(
        *(_merge_heads(op, each) for each in (query, key, value)),
        *others,
        num_heads=heads,
        **options,
        _domain=_MICROSOFT,
    )
    return op.Reshape(attended, op.Constant(value_ints=[0, 0, heads, -1]))


def _merge_heads(op: Any, tokens: Any) -> Any:
    """Merge heads to (B, N, heads · dim), mostly by undoing the split before."""
    producer = tokens.producer()
    if producer is not None and producer.op_type == "Reshape":
        source, shape = producer.inputs
        if len(source.shape or ()) == 3 and (read_list(shape) or [])[:2] == [0, 0]:
            return source
    return op.Reshape(tokens, op.Constant(value_ints=[0, 0, -1]))
