"""The attention kernel in every instruction set of this CPU, against NumPy in float64."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from attention_calls import (
    BAD_ISA,
    BAD_SHAPE,
    BF16,
    F32,
    ISAS,
    OK,
    Call,
    multiplies_bf16,
    open_library,
    round_to_bf16,
)

from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.machine import multiplies_bf16_slowly, read_cpu_flags
from fastdeploy_diffusion.native.compile import ATTENTION, compile_library

FUZZ = Path(__file__).with_name("fuzz_attention.py")
SHAPES = 80  # for each instruction set
# By compiler: its own flags, and the libraries that they make a program need.
SANITIZERS = {
    "g++": ((), ("libasan.so", "libubsan.so")),
    "clang++": (("-shared-libasan",), (f"libclang_rt.asan-{platform.machine()}.so",)),
}


@pytest.fixture(scope="module")
def attention_path(tmp_path_factory):
    """The kernel, compiled."""
    try:
        return compile_library("attention", [ATTENTION], tmp_path_factory.mktemp("native"))
    except EngineUnavailableError as error:
        pytest.skip(f"the kernel cannot be compiled: {error.in_one_line}")


@pytest.fixture(scope="module")
def attention(attention_path):
    return open_library(attention_path)


@pytest.fixture(params=ISAS, ids=ISAS.values())
def isa(request, attention):
    if not attention.fdd_attention_isas() & request.param:
        pytest.skip(f"this CPU has no {ISAS[request.param]}")
    return request.param


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def make_call(isa, queries=33, keys=50, size=40, batch=1, heads=2, **others):
    arrays = [draw(batch, heads, n, size, seed=i) for i, n in enumerate((queries, keys, keys))]
    out = np.full((batch, heads, queries, size), np.nan, np.float32)
    products = BF16 if multiplies_bf16(isa) else F32
    return Call(*arrays, out, scale=size**-0.5, products=products, **others)


def run_fuzz(path, isa, seed, count, **environment):
    return subprocess.run(
        [sys.executable, str(FUZZ), str(path), str(isa), str(seed), str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_random_shapes_are_right_and_touch_nothing_else(attention_path, isa):
    ran = run_fuzz(attention_path, isa, 10_000 * isa, SHAPES)
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("compiler", SANITIZERS)
def test_sanitizers_find_nothing(isa, compiler, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    library = _compile_with_sanitizers(compiler, tmp_path_factory)
    ran = run_fuzz(
        *(library, isa, 7_000 * isa, 30),
        LD_PRELOAD=_find_preloaded(compiler),
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=0",
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


def _compile_with_sanitizers(compiler, tmp_path_factory):
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    folder = tmp_path_factory.getbasetemp() / "sanitized"
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
    own, _ = SANITIZERS[compiler]
    return compile_library("attention", [ATTENTION], folder, flags=(*flags, *own))


def _find_preloaded(compiler):
    """The sanitizers' libraries, which must be loaded before Python."""
    found = []
    for name in SANITIZERS[compiler][1]:
        ran = subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
        found.append(ran.stdout.strip())
    if not all(os.path.isabs(each) for each in found):
        pytest.skip(f"{compiler} brings no library of its sanitizers")
    return " ".join(found)


@pytest.mark.slow
def test_what_clang_compiles_is_right(isa, tmp_path, monkeypatch):
    if shutil.which("clang++") is None:
        pytest.skip("there is no clang++")
    monkeypatch.setenv("CXX", "clang++")
    ran = run_fuzz(compile_library("attention", [ATTENTION], tmp_path), isa, 30_000 * isa, SHAPES)
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.mark.parametrize(
    ("queries", "keys", "size"),
    [(1, 1, 1), (4096, 1, 40), (1, 4096, 40), (77, 77, 64), (50, 70, 512)],
)
def test_shapes_of_networks(attention, isa, queries, keys, size):
    call = make_call(isa, queries, keys, size)
    assert call.run(attention, isa) == OK
    assert call.check(isa) <= 1


def test_the_engines_own_layout_needs_no_copy(attention, isa):
    merged = round_to_bf16(draw(2, 65, 3, 4, 40))  # (batch, token, which, head, size)
    q, k, v = (merged[:, :, which].transpose(0, 2, 1, 3) for which in range(3))
    out = np.zeros((2, 65, 4, 40), np.uint16).transpose(0, 2, 1, 3)
    products = BF16 if multiplies_bf16(isa) else F32
    call = Call(q, k, v, out, scale=40**-0.5, products=products)
    assert call.run(attention, isa) == OK
    assert call.check(isa) <= 1


def test_large_scores_do_not_overflow(attention, isa):
    call = make_call(isa, keys=600)
    call.q *= 100  # the weights are nearly one-hot
    assert call.run(attention, isa) == OK
    exact, _ = call.expect(isa)
    error = np.abs(call.out - exact).max() / np.abs(exact).max()
    assert error <= (1e-2 if multiplies_bf16(isa) else 1e-4)


def test_a_row_that_is_masked_throughout_is_the_mean_or_nan(attention, isa):
    bias = np.zeros((1, 1, 33, 50), np.float32)
    bias[..., 3, :] = np.finfo(np.float32).min
    bias[..., 4, :] = -np.inf
    call = make_call(isa, bias=np.broadcast_to(bias, (1, 2, 33, 50)))
    assert call.run(attention, isa) == OK
    np.testing.assert_allclose(call.out[:, :, 3], call.v.mean(axis=2), atol=1e-2)
    assert np.isnan(call.out[:, :, 4]).all()
    assert np.isfinite(np.delete(call.out, 4, axis=2)).all()


@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(attention, isa, name, bad):
    call = make_call(isa)
    getattr(call, name)[0, 1, 7, 5] = bad
    assert call.run(attention, isa) == OK
    rows = {
        "q": np.arange(33) == 7,
        # An infinite key has no weight where its score is -infinity.
        "k": (call.q[0, 1, :, 5] > 0) | np.isnan(bad),
        "v": np.ones(33, bool),
    }
    assert np.array_equal(~np.isfinite(call.out[0, 1]).all(axis=1), rows[name])
    assert np.isfinite(call.out[0, 0]).all()


def test_bits_depend_on_no_order_of_tasks(attention, isa):
    once, again = make_call(isa, 100, 300), make_call(isa, 100, 300)
    task_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    counts = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, task_type, ctypes.c_void_p)
    def run_backwards(_, tasks, task, argument):
        counts.append(tasks)
        for index in reversed(range(tasks)):
            task(argument, index)

    assert once.run(attention, isa) == again.run(attention, isa, run_backwards) == OK
    assert np.array_equal(once.out, again.out)
    assert min(counts) > 1


def test_a_row_is_the_same_beside_any_others(attention, isa):
    whole = make_call(isa, 100, 300, batch=2)
    assert whole.run(attention, isa) == OK
    single = Call(
        *(
            np.ascontiguousarray(each[1:, :, rows])
            for each, rows in (
                (whole.q, slice(57, 60)),
                (whole.k, slice(None)),
                (whole.v, slice(None)),
            )
        ),
        np.zeros((1, 2, 3, 40), np.float32),
        scale=whole.scale,
        products=whole.products,
    )
    assert single.run(attention, isa) == OK
    assert np.array_equal(single.out, whole.out[1:, :, 57:60])


def test_f32_products_stay_exact_whatever_the_cpu_has(attention):
    call = make_call(1, 64, 512)
    assert call.run(attention) == OK
    assert call.check(1) <= 1


def test_the_fastest_for_bf16_is_not_the_slow_instruction_of_intel(attention):
    found = attention.fdd_attention_isas()
    best = 4 if multiplies_bf16_slowly() else 1 << (found.bit_length() - 1)
    call, expected = make_call(8, 64, 512), make_call(8, 64, 512)
    assert call.run(attention) == expected.run(attention, best) == OK
    assert np.array_equal(call.out, expected.out)


def test_instruction_sets_are_those_that_the_system_names(attention):
    flags = set(read_cpu_flags())
    if "fpu" not in flags:
        pytest.skip("the system does not name the instructions of an x86 CPU")
    found = attention.fdd_attention_isas()
    assert found & 1
    assert bool(found & 2) == ({"avx2", "fma"} <= flags)
    assert bool(found & 4) == ({"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags)
    assert bool(found & 8) == (bool(found & 4) and "avx512_bf16" in flags)
    assert bool(found & 16) == (bool(found & 8) and {"amx_tile", "amx_bf16"} <= flags)


def test_what_cannot_be_computed_is_refused(attention):
    for change in ("keys", "head_size", "value_size"):
        call = make_call(1)
        setattr(call.shape, change, 0)
        assert call.run(attention) == BAD_SHAPE
    for change in ("batch", "heads", "queries"):
        call = make_call(1)
        setattr(call.shape, change, -1)
        assert call.run(attention) == BAD_SHAPE
        setattr(call.shape, change, 0)
        assert call.run(attention) == OK
        assert np.isnan(call.out).all()
    call = make_call(1)
    call.shape.in_type = 7
    assert call.run(attention) == BAD_SHAPE
    assert make_call(1).run(attention, isa=3) == BAD_ISA
    assert make_call(1).run(attention, isa=32) == BAD_ISA
    assert make_call(1).run(attention, isa=8) == BAD_ISA  # its products are of bf16 alone
