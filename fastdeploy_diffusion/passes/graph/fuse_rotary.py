"""Rotary embedding of queries or keys as one operator.

Cosines and sines are inputs: nothing is computed for them here.
"""

from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import read_list, read_size
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule

_SWAP_HEADS = [0, 2, 1, 3]  # (B, N, heads, dim) to (B, heads, N, dim)


class FuseRotary(GraphPass):
    """``RotaryEmbedding`` of opset 23; in ONNX Runtime its own, which takes heads as they lie."""

    name: ClassVar[str] = "fuse-rotary"
    sites = (Site.ROTATION,)

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rules for pairs of neighbours, and of halves."""
        return _Rotation(dialect, is_interleaved=True), _Rotation(dialect, is_interleaved=False)


class _Rotation(GraphRule):
    """Heads (B, N, heads, dim), cosines and sines (N, dim / 2)."""

    def __init__(self, dialect: Dialect, is_interleaved: bool) -> None:
        self.is_standard = dialect is Dialect.STANDARD
        self.is_interleaved = is_interleaved
        self.opset = 23 if self.is_standard else 17

    def pattern(
        self, op: Any, x: Any, cosines: Any, sines: Any, sizes: Any, pairs: Any, joined: Any
    ) -> Any:
        cosine, sine = (op.Unsqueeze(each, [0, 2]) for each in (cosines, sines))
        if self.is_interleaved:
            first, second = op.Split(op.Reshape(x, pairs), sizes, axis=4, _outputs=2)
            first, second = (op.Squeeze(each, [-1]) for each in (first, second))
        else:
            first, second = op.Split(x, sizes, axis=3, _outputs=2)
        turned = [
            op.Sub(op.Mul(first, cosine), op.Mul(second, sine)),
            op.Add(op.Mul(first, sine), op.Mul(second, cosine)),
        ]
        if self.is_interleaved:
            stacked = op.Concat(*(op.Unsqueeze(each, [4]) for each in turned), axis=4)
            rotated = op.Reshape(stacked, joined)
        else:
            rotated = op.Concat(*turned, axis=3)
        return op.Transpose(rotated, perm=_SWAP_HEADS) if self.is_standard else rotated

    def check(self, place: Any, *, x: Any, sizes: Any, cosines: Any, sines: Any, **_: Any) -> str:
        heads, dim = read_size(x, 2), read_size(x, 3)
        if len(x.shape or ()) != 4 or heads is None or dim is None:
            return "its heads are not known"
        parts = read_list(sizes)
        if parts != ([1, 1] if self.is_interleaved else [dim / 2, dim / 2]):
            return "the rotation does not cover every pair of the head"
        tables = [read_size(each, -1) for each in (cosines, sines)]
        return "" if tables == [dim // 2] * 2 else "its angles are not one for each pair"

    def rewrite(self, op: Any, x: Any, cosines: Any, sines: Any, **_: Any) -> Any:
        options = {"interleaved": int(self.is_interleaved)}
        heads, dim = read_size(x, 2), read_size(x, 3)
        if not self.is_standard:
            rotated = op.RotaryEmbedding(
                op.Reshape(x, op.Constant(value_ints=[0, 0, -1])),
                op.Constant(value_ints=[0]),
                cosines,
                sines,
                **options,
                num_heads=heads,
                _domain="com.microsoft",
            )
            return op.Reshape(rotated, op.Constant(value_ints=[0, 0, heads, dim]))
        # The standard wants tables for each row of the batch.
        rows = op.Concat(op.Shape(x, start=0, end=1), op.Constant(value_ints=[1, 1]), axis=0)
        tables = (
            op.Expand(op.Unsqueeze(each, op.Constant(value_ints=[0])), rows)
            for each in (cosines, sines)
        )
        return op.RotaryEmbedding(op.Transpose(x, perm=_SWAP_HEADS), *tables, **options)
