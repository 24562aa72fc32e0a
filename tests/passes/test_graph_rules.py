"""What graph passes leave alone, by name and with a reason; in ONNX's own notation."""

import ml_dtypes
import numpy as np
import openvino
import pytest
from graph_checks import (
    RUNS,
    draw_feeds,
    list_operators,
    parse,
    relative_error,
    rewrite,
    run_onnxruntime,
    run_openvino,
)

from fastdeploy_diffusion.engines.openvino_exact import keep_exact
from fastdeploy_diffusion.errors import PassError
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.channel_group_norm import ChannelGroupNorm
from fastdeploy_diffusion.passes.graph.fuse_adaptive_norm import FuseAdaptiveNorm
from fastdeploy_diffusion.passes.graph.fuse_attention import FuseAttention
from fastdeploy_diffusion.passes.graph.fuse_gelu import FuseGELU
from fastdeploy_diffusion.passes.graph.fuse_gelu_tanh import FuseTanhGELU
from fastdeploy_diffusion.passes.graph.fuse_group_norm import FuseGroupNorm, FuseGroupNormSiLU
from fastdeploy_diffusion.passes.graph.fuse_rms_norm import FuseRMSNorm
from fastdeploy_diffusion.passes.graph.fuse_rotary import FuseRotary
from fastdeploy_diffusion.passes.graph.fuse_silu import FuseSiLU
from fastdeploy_diffusion.passes.graph.resize_nearest import ResizeNearest
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
UPSAMPLING = """
near (float[2,6,3,5] x) => (float[2,6,6,10] y)
<int64[2] axes = {3, 5}, int64[6] times = {-1, -1, -1, 2, -1, 2}, int64[4] sizes = {0, 6, 6, 10}> {
  s = Unsqueeze (x, axes)
  n = Shape (s)
  m = Max (n, times)
  e = Expand (s, m)
  y = Reshape (e, sizes)
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
OPEN_GROUP_NORM = GROUP_NORM.replace("2,6,3,5]", "2,6,H,W]")
GROUP_NORM_SILU = GROUP_NORM.replace(
    "y = Add (s, bu)", "z = Add (s, bu) q = Sigmoid (z) y = Mul (z, q)"
)

HALVES = """
near (float[2,5,3,8] x, float[5,4] c, float[5,4] s) => (float[2,3,5,8] y)
<int64[2] sizes = {4, 4}, int64[2] axes = {0, 2}> {
  a, b = Split <axis = 3> (x, sizes)
  cu = Unsqueeze (c, axes)
  su = Unsqueeze (s, axes)
  ac = Mul (a, cu)
  bs = Mul (b, su)
  as = Mul (a, su)
  bc = Mul (b, cu)
  e = Sub (ac, bs)
  o = Add (as, bc)
  r = Concat <axis = 3> (e, o)
  y = Transpose <perm = [0, 2, 1, 3]> (r)
}"""
NEIGHBOURS = (
    HALVES.replace("{4, 4}", "{1, 1}, int64[1] l = {-1}, int64[1] f = {4}")
    .replace("axes = {0, 2}", "axes = {0, 2}, int64[5] p = {0,0,3,4,2}, int64[4] j = {0,0,3,8}")
    .replace("a, b = Split <axis = 3> (x, sizes)", "xp = Reshape (x, p) AB")
    .replace("AB", "a5, b5 = Split <axis = 4> (xp, sizes) a = Squeeze (a5, l) b = Squeeze (b5, l)")
    .replace("r = Concat <axis = 3> (e, o)", "eu = Unsqueeze (e, f) ou = Unsqueeze (o, f) R")
    .replace("R\n", "r5 = Concat <axis = 4> (eu, ou) r = Reshape (r5, j)\n")
)
RMS_NORM = """
near (float[2,5,8] x, float[8] w, float v) => (float[2,5,8] y)
<float epsilon = {0.001}, float[1] one = {1}> {
  m = Mul (x, x)
  r = ReduceMean <axes = [-1], keepdims = 1> (m)
  s = Mul (r, one)
  a = Add (s, epsilon)
  q = Sqrt (a)
  d = Div (x, q)
  y = Mul (d, w)
}"""
ADAPTIVE_NORM = """
near (float[2,5,4] x, float[2,1,4] g, float[2,1,4] b) => (float[2,5,4] y)
<float[4] ones = {1, 1, 1, 1}> {
  n = LayerNormalization <axis = 2, epsilon = 0.001> (x, ones)
  m = Mul (n, g)
  y = Add (m, b)
}"""
TANH_GELU = """
near (float[2,5] x) => (float[2,5] y)
<float[1] k = {0.044715}, float[1] root = {0.7978846}, float[1] half = {0.5}, float one = {1},
 float[1] factor = {1}> {
  xx = Mul (x, x)
  xxx = Mul (xx, x)
  c = Mul (xxx, k)
  i = Add (x, c)
  j = Mul (i, root)
  h = Mul (x, half)
  t = Tanh (j)
  s = Mul (t, factor)
  u = Add (s, one)
  y = Mul (h, u)
}"""

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
    "a shift over rows": (ChannelGroupNorm, GROUP_NORM, "{1, 2}", "{0, 1}"),
    "a gain of another number": (ChannelGroupNorm, GROUP_NORM, "Mul (j, gu)", "Div (j, gu)"),
    "repeated three times": (
        ResizeNearest,
        UPSAMPLING.replace("6,10] y", "6,15] y").replace("6, 10}", "6, 15}"),
        "2, -1, 2}",
        "2, -1, 3}",
    ),
    "repeated as a whole": (ResizeNearest, UPSAMPLING, "{3, 5}", "{2, 4}"),
    "gated by something else": (SplitGEGLU, GEGLU, "", ""),
    "half of another number": (FuseGELU, GELU, "half = {0.5}", "half = {0.51}"),
    "quick GELU is none": (FuseGELU, SILU, "", ""),
    "sigmoid of another": (FuseSiLU, SILU, "y = Mul (s, x)", "y = Mul (s, t)"),
    "a bias of queries": (FuseAttention, BIASED, "axis = -1", "axis = -2"),
    "a bias that is taken away": (FuseAttention, BIASED, "Add (u", "Sub (u"),
    "turned the other way": (FuseRotary, HALVES, "Add (as, bc)", "Sub (as, bc)"),
    "turned by no angle": (FuseRotary, HALVES, "Mul (a, su)", "Mul (a, cu)"),
    "neighbours that change places": (FuseRotary, NEIGHBOURS, "(eu, ou)", "(ou, eu)"),
    "a mean over tokens": (FuseRMSNorm, RMS_NORM, "[-1]", "[-2]"),
    "the mean of another": (FuseRMSNorm, RMS_NORM, "Mul (x, x)", "Mul (x, w)"),
    "a gain that is added": (FuseAdaptiveNorm, ADAPTIVE_NORM, "Mul (n, g)", "Add (n, g)"),
    "exact GELU": (FuseTanhGELU, GELU, "", ""),
    "tanh is not exact": (FuseGELU, TANH_GELU, "", ""),
    "half of another, with tanh": (FuseTanhGELU, TANH_GELU, "Mul (x, half)", "Mul (j, half)"),
    "another cubic": (FuseTanhGELU, TANH_GELU, "0.044715", "0.0448"),
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
    "groups with a shift": (
        ChannelGroupNorm,
        GROUP_NORM.replace("{0, 0, 0}", "{0, 2, 0}"),
        {
            Dialect.STANDARD: ("y", "its groups have a gain or a shift of their own"),
            Dialect.MICROSOFT: ("y", "ONNX Runtime keeps channels first"),
        },
    ),
    "tokens in groups": (
        ChannelGroupNorm,
        GROUP_NORM.replace("2,6,3,5]", "2,6,5]").replace("float[6]", "float[1]"),
        {Dialect.STANDARD: ("y", "it is not of pictures with a known number of channels")},
    ),
    "turned besides": (
        ResizeNearest,
        UPSAMPLING.replace("{0, 6, 6, 10}", "{0, 6, 10, 6}").replace("6,6,10] y", "6,10,6] y"),
        dict.fromkeys(Dialect, ("y", "it is not put together to twice the size")),
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
    "one angle for all pairs": (
        FuseRotary,
        HALVES.replace("float[5,4] c", "float[5,1] c"),
        {
            Dialect.STANDARD: ("y", "its angles are not one for each pair"),
            Dialect.MICROSOFT: ("r", "its angles are not one for each pair"),
        },
    ),
    "unequal pairs": (
        FuseRotary,
        HALVES.replace("{4, 4}", "{7, 1}").replace("float[5,4]", "float[5,1]"),
        dict.fromkeys(
            [Dialect.MICROSOFT], ("r", "the rotation does not cover every pair of the head")
        ),
    ),
    "a weight for each token": (
        FuseRMSNorm,
        RMS_NORM.replace("float[8] w", "float[5,8] w"),
        dict.fromkeys(Dialect, ("y", "its weight is not one for each feature")),
    ),
    "an epsilon that is computed": (
        FuseRMSNorm,
        RMS_NORM.replace("Add (s, epsilon)", "Add (s, v)"),
        dict.fromkeys(Dialect, ("y", "its epsilon is no known number")),
    ),
    "a norm with a gain": (
        FuseAdaptiveNorm,
        ADAPTIVE_NORM.replace("{1, 1, 1, 1}", "{1, 2, 1, 1}"),
        {
            Dialect.MICROSOFT: ("y", "it has a gain of its own"),
            Dialect.STANDARD: (
                "y",
                "OpenVINO takes no LayerNormalization with a gain for each row",
            ),
        },
    ),
    "a norm over tokens, too": (
        FuseAdaptiveNorm,
        ADAPTIVE_NORM.replace("axis = 2", "axis = 1"),
        {Dialect.MICROSOFT: ("y", "it is not over the features")},
    ),
    "a gain for each token": (
        FuseAdaptiveNorm,
        ADAPTIVE_NORM.replace("float[2,1,4] g", "float[2,5,4] g"),
        {Dialect.MICROSOFT: ("y", "its gain and shift are not one for each row")},
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
        (ChannelGroupNorm, GROUP_NORM, ("ReduceL2", "InstanceNormalization")),
        (ChannelGroupNorm, GROUP_NORM_SILU, ("ReduceL2", "InstanceNormalization")),
        (ChannelGroupNorm, OPEN_GROUP_NORM, ("Reciprocal", "InstanceNormalization")),
        (ResizeNearest, UPSAMPLING, ("Resize", "Resize")),
        (SplitGEGLU, GELU_SPLIT, ("Slice", "Slice")),
        (FuseGELU, GELU, ("Gelu", "com.microsoft:Gelu")),
        (FuseSiLU, SILU, ("Swish", "com.microsoft:QuickGelu")),
        (FuseAttention, BIASED, ("Attention", "com.microsoft:MultiHeadAttention")),
        (FuseRotary, HALVES, ("RotaryEmbedding", "com.microsoft:RotaryEmbedding")),
        (FuseRotary, NEIGHBOURS, ("RotaryEmbedding", "com.microsoft:RotaryEmbedding")),
        (FuseRMSNorm, RMS_NORM, ("RMSNormalization", "SimplifiedLayerNormalization")),
        (FuseAdaptiveNorm, ADAPTIVE_NORM, ("Mul", "LayerNormalization")),
        (FuseTanhGELU, TANH_GELU, ("Gelu", "com.microsoft:FastGelu")),
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
    for run in RUNS[dialect]:
        assert relative_error(run(rewritten, feeds), wanted) <= 1e-5


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


@pytest.mark.parametrize(
    "error", [MemoryError("std::bad_alloc"), RuntimeError("ResourceExhausted: alloc")]
)
def test_a_pass_is_not_blamed_for_too_little_memory(error):
    class Large(FuseGELU):
        name = "large"

        def make_rules(self, dialect):
            raise error

    with pytest.raises(type(error), match="alloc") as caught:
        rewrite(parse(GELU), [Large()], Dialect.STANDARD)
    assert caught.value is error


def test_a_fused_group_norm_is_rewritten_as_well():
    graph = parse(GROUP_NORM)
    fused, _ = rewrite(graph, [FuseGroupNorm()], Dialect.STANDARD)
    rewritten, (result,) = rewrite(fused, [ChannelGroupNorm()], Dialect.STANDARD)
    assert result.count == 1
    assert "GroupNormalization" not in list_operators(rewritten)
    feeds = draw_feeds(graph, seed=4)
    wanted = run_onnxruntime(graph, feeds)
    assert relative_error(run_openvino(rewritten, feeds), wanted) <= 1e-5


@pytest.mark.parametrize(("value", "error"), [(0.0, 1e-6), (7.0, 1e-6)])
def test_a_picture_of_one_number_is_normalized_to_its_shift(value, error):
    graph = parse(GROUP_NORM)
    rewritten, _ = rewrite(graph, [ChannelGroupNorm()], Dialect.STANDARD)
    feeds = draw_feeds(graph, seed=6) | {"x": np.full((2, 6, 3, 5), value, np.float32)}
    wanted = np.broadcast_to(feeds["b"][:, None, None], (2, 6, 3, 5))
    for run in (run_onnxruntime, run_openvino):
        np.testing.assert_allclose(run(rewritten, feeds)[0], wanted, atol=1e-3 + error)


def run_bf16(graph, feeds):
    """Run as the engine does, behind an operator that takes its input in bf16."""
    core = openvino.Core()
    model = core.read_model(graph.SerializeToString())
    kernel = np.eye(6, dtype=np.float32).reshape(6, 6, 1, 1)
    for node in model.get_parameters():
        if node.get_friendly_name() != "x":
            constant = openvino.op.Constant(feeds[node.get_friendly_name()])
            node.output(0).replace(constant.output(0))
            model.remove_parameter(node)
    keep_exact(model)
    (parameter,) = model.get_parameters()
    readers = parameter.output(0).get_target_inputs()
    same = openvino.opset8.convolution(
        parameter, openvino.op.Constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1]
    )
    for each in readers:
        each.replace_source_output(same.output(0))
    (result,) = model.get_results()
    last = openvino.opset8.convolution(
        result.input_value(0), openvino.op.Constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1]
    )
    model = openvino.Model([last], [parameter])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    return compiled({parameter.get_friendly_name(): feeds["x"]})[0]


def normalize(x, feeds):
    groups = x.astype(np.float64).reshape(2, 3, -1)
    centred = groups - groups.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return normed.reshape(x.shape) * feeds["g"][:, None, None] + feeds["b"][:, None, None]


@pytest.mark.parametrize("mean", [0.0, 3.0, 30.0, -100.0])
def test_group_norm_of_a_large_mean_loses_less_than_bf16_has_lost(mean):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no instructions for bf16")
    graph = parse(GROUP_NORM.replace("2,6,3,5]", "2,6,48,40]").replace("0.001", "0.00001"))
    rewritten, _ = rewrite(graph, [ChannelGroupNorm()], Dialect.STANDARD)
    random, feeds = np.random.default_rng(8), draw_feeds(graph, seed=8)
    exact = feeds["x"] + mean + random.standard_normal((1, 6, 1, 1))
    feeds["x"] = exact.astype(ml_dtypes.bfloat16).astype(np.float32)
    wanted = normalize(feeds["x"], feeds)
    difference = run_bf16(rewritten, feeds) - wanted
    rounding = wanted - normalize(exact, feeds)
    # What rounding the result costs, and a fraction of what rounding the picture has cost.
    allowed = 2**-8 * np.sqrt((wanted**2).mean()) + np.sqrt((rounding**2).mean()) / 2
    assert np.sqrt((difference**2).mean()) <= allowed
    assert np.abs(difference.mean((2, 3))).max() <= allowed  # no channel is off as a whole
