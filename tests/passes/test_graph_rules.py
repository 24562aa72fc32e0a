"""What graph passes leave alone, by name and with a reason; in ONNX's own notation."""

import numpy as np
import pytest
from graph_checks import (
    draw_feeds,
    list_operators,
    parse,
    relative_error,
    rewrite,
    run_onnxruntime,
    run_openvino,
)

from fastdeploy_diffusion.errors import PassError
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.fuse_attention import FuseAttention
from fastdeploy_diffusion.passes.graph.fuse_gelu import FuseGELU
from fastdeploy_diffusion.passes.graph.fuse_group_norm import FuseGroupNorm, FuseGroupNormSiLU
from fastdeploy_diffusion.passes.graph.fuse_silu import FuseSiLU
from fastdeploy_diffusion.passes.graph.split_geglu import SplitGEGLU
from fastdeploy_diffusion.passes.graph_pass import GraphPass

ATTENTION = """
near (float[2,5,H,4] q, float[2,7,H,4] k, float[2,7,H,4] v, float s) => (float[2,5,H,4] y)
<float[1] scale = {0.3}, float[1] low = {-10000.0}, int64[1] one = {1}> {
  qt = Transpose <perm = [0, 2, 1, 3]> (q)
  kt = Transpose <perm = [0, 2, 1, 3]> (k)
  vt = Transpose <perm = [0, 2, 1, 3]> (v)
  qs = Mul (qt, scale)
  kT = Transpose <perm = [0, 1, 3, 2]> (kt)
  a = MatMul (qs, kT)
  p = Softmax <axis = -1> (a)
  o = MatMul (p, vt)
  y = Transpose <perm = [0, 2, 1, 3]> (o)
}""".replace("H", "3")
CAUSAL = ATTENTION.replace("7", "5").replace(
    "p = Softmax <axis = -1> (a)",
    """n = Shape (a)
  e = Expand (low, n)
  m = Trilu <upper = 1> (e, one)
  am = Add (a, m)
  p = Softmax <axis = -1> (am)""",
)
BIASED = (
    ATTENTION.replace("float s)", "float[1,3,5,7] bias)")
    .replace("  qs = Mul (qt, scale)\n", "")
    .replace("a = MatMul (qs, kT)", "u = MatMul (qt, kT) a = Add (u, bias)")
)
GROUP_NORM = """
near (float[2,6,3,5] x, float[6] g, float[6] b) => (float[2,6,3,5] y)
<int64[3] sizes = {0, 3, -1}, float[3] ones = {1, 1, 1}, float[3] zeros = {0, 0, 0},
 int64[2] axes = {1, 2}> {
  r = Reshape (x, sizes)
  i = InstanceNormalization <epsilon = 0.001> (r, ones, zeros)
  n = Shape (x)
  j = Reshape (i, n)
  gu = Unsqueeze (g, axes)
  bu = Unsqueeze (b, axes)
  s = Mul (j, gu)
  y = Add (s, bu)
}"""
GEGLU = """
near (float[2,5,4] x, float[12,4] w, float[12] b) => (float[2,5,6] y)
<int64[2] sizes = {6, 6}> {
  wt = Transpose <perm = [1, 0]> (w)
  m = MatMul (x, wt)
  p = Add (m, b)
  v, g = Split <axis = 2> (p, sizes)
  a = Erf (g)
  y = Mul (v, a)
}"""
GELU = """
near (float[2,5] x) => (float[2,5] y)
<float root = {1.4142135}, float one = {1}, float half = {0.5}> {
  d = Div (x, root)
  e = Erf (d)
  s = Add (e, one)
  m = Mul (x, s)
  y = Mul (m, half)
}"""
SILU = """
near (float[2,5] x, float[1] t) => (float[2,5] y) <float[1] slope = {1.702}> {
  u = Mul (x, slope)
  s = Sigmoid (u)
  y = Mul (s, x)
}"""
GROUP_NORM_SILU = GROUP_NORM.replace(
    "y = Add (s, bu)", "z = Add (s, bu) q = Sigmoid (z) y = Mul (z, q)"
)

# By name: the pass, its graph, and what turns that into the nearest miss.
NEAREST = {
    "softmax over queries": (FuseAttention, ATTENTION, "axis = -1", "axis = -2"),
    "scores are an output": (FuseAttention, ATTENTION, "4] y)", "4] y, float[2,3,5,7] a)"),
    "a mask that hides the diagonal": (FuseAttention, CAUSAL, "one = {1}", "one = {0}"),
    "a mask that hides little": (FuseAttention, CAUSAL, "-10000.0", "-1.0"),
    "a mask of the past": (FuseAttention, CAUSAL, "upper = 1", "upper = 0"),
    "SiLU does not follow": (FuseGroupNormSiLU, GROUP_NORM, "", ""),
    "SiLU follows": (FuseGroupNorm, GROUP_NORM_SILU, "", ""),
    "a shift over height": (FuseGroupNorm, GROUP_NORM, "{1, 2}", "{0, 1}"),
    "gated by something else": (SplitGEGLU, GEGLU, "", ""),
    "half of another number": (FuseGELU, GELU, "half = {0.5}", "half = {0.51}"),
    "quick GELU is none": (FuseGELU, SILU, "", ""),
    "sigmoid of another": (FuseSiLU, SILU, "y = Mul (s, x)", "y = Mul (s, t)"),
    "a bias of queries": (FuseAttention, BIASED, "axis = -1", "axis = -2"),
    "a bias that is taken away": (FuseAttention, BIASED, "Add (u", "Sub (u"),
}


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(("make", "text", "old", "new"), NEAREST.values(), ids=NEAREST)
def test_the_nearest_miss_is_left_alone(make, text, old, new, dialect):
    assert old in text
    graph = parse(text.replace(old, new) if old else text)
    rewritten, (result,) = rewrite(graph, [make()], dialect)
    assert (result.count, result.skipped) == (0, {})
    assert list_operators(rewritten) == list_operators(graph)
    assert rewritten.opset_import == graph.opset_import


GELU_SPLIT = GEGLU.replace("<int64", "<float root = {1.4142135}, int64").replace(
    "a = Erf (g)", "d = Div (g, root) e = Erf (d) a = Mul (g, e)"
)
SKIPPED = {
    "a scale that is computed": (
        FuseAttention,
        ATTENTION.replace("Mul (qt, scale)", "Mul (qt, s)"),
        {Dialect.STANDARD: ("o", "its scale is no known number")},
    ),
    "groups with a gain": (
        FuseGroupNorm,
        GROUP_NORM.replace("{1, 1, 1}", "{1, 2, 1}"),
        {Dialect.STANDARD: ("y", "its groups have a gain or a shift of their own")},
    ),
    "no kernel": (
        FuseGroupNorm,
        GROUP_NORM,
        {Dialect.MICROSOFT: ("y", "ONNX Runtime has no kernel for GroupNormalization")},
    ),
    "unequal parts": (
        SplitGEGLU,
        GELU_SPLIT.replace("{6, 6}", "{4, 8}"),
        dict.fromkeys(Dialect, ("v", "value and gate are not halves")),
    ),
    "another axis": (
        SplitGEGLU,
        GELU_SPLIT.replace("axis = 2", "axis = 1").replace("[2,5,4] x", "[2,12,4] x"),
        dict.fromkeys(Dialect, ("v", "it is not cut along its features")),
    ),
    "a slope that is computed": (
        FuseSiLU,
        SILU.replace("Mul (x, slope)", "Mul (x, t)"),
        dict.fromkeys(Dialect, ("y", "its slope is no known number")),
    ),
}


SKIPPED |= {
    "a bias for all heads": (
        FuseAttention,
        BIASED.replace("[1,3,5,7] bias", "[5,7] bias"),
        {
            Dialect.STANDARD: ("o", "its bias is not one for each head"),
            Dialect.MICROSOFT: ("y", "its bias is not one for each head"),
        },
    ),
}


@pytest.mark.parametrize(("make", "text", "reasons"), SKIPPED.values(), ids=SKIPPED)
def test_what_cannot_be_rewritten_is_skipped_with_a_reason(make, text, reasons):
    for dialect, (place, reason) in reasons.items():
        _, (result,) = rewrite(parse(text), [make()], dialect)
        assert (result.count, result.skipped) == (0, {place: reason})


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    ("make", "text", "operators"),
    [
        (FuseAttention, ATTENTION, ("Attention", "com.microsoft:MultiHeadAttention")),
        (FuseAttention, CAUSAL, ("Attention", "com.microsoft:MultiHeadAttention")),
        (FuseGroupNorm, GROUP_NORM, ("GroupNormalization", "InstanceNormalization")),
        (FuseGroupNormSiLU, GROUP_NORM_SILU, ("GroupNormalization", "InstanceNormalization")),
        (SplitGEGLU, GELU_SPLIT, ("Slice", "Slice")),
        (FuseGELU, GELU, ("Gelu", "com.microsoft:Gelu")),
        (FuseSiLU, SILU, ("Swish", "com.microsoft:QuickGelu")),
        (FuseAttention, BIASED, ("Attention", "com.microsoft:MultiHeadAttention")),
    ],
)
def test_other_widths_keep_their_numbers(make, text, operators, dialect):
    graph = parse(text)
    rewritten, (result,) = rewrite(graph, [make()], dialect)
    assert result.count == (0 if make().refuse(dialect) else 1)
    assert operators[list(Dialect).index(dialect)] in list_operators(rewritten)
    feeds = draw_feeds(graph, seed=5)
    wanted = run_onnxruntime(graph, feeds)
    assert np.isfinite(wanted[0]).all()
    assert relative_error(run_onnxruntime(rewritten, feeds), wanted) <= 1e-5


def test_reductions_are_what_they_were_in_a_newer_opset():
    text = GELU.replace("float[2,5] y", "float[2,1] mean").replace(
        "y = Mul (m, half)", "y = Mul (m, half) mean = ReduceMean <axes = [1]> (y)"
    )
    graph = parse(text)
    rewritten, (result,) = rewrite(graph, [FuseGELU()], Dialect.STANDARD)
    assert result.count == 1
    assert rewritten.opset_import[0].version >= 18
    feeds = draw_feeds(graph, seed=3)
    wanted = run_onnxruntime(graph, feeds)
    assert relative_error(run_onnxruntime(rewritten, feeds), wanted) <= 1e-5
    assert relative_error(run_openvino(rewritten, feeds), wanted) <= 1e-5


def test_a_pass_that_fails_is_named():
    class Broken(FuseGELU):
        name = "broken"

        def make_rules(self, dialect):
            raise ValueError("no licence")

    assert issubclass(Broken, GraphPass)
    with pytest.raises(PassError, match="the pass broken failed on an ONNX graph: ValueError"):
        rewrite(parse(GELU), [Broken()], Dialect.STANDARD)
