"""Recipes: data that JSON holds, carried out on the types that tensors are stored in."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from checkpoint_writers import write_tensors

from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView
from fastdeploy_diffusion.errors import CheckpointError, EngineError
from fastdeploy_diffusion.runtime.recipe import (
    Derivation,
    Weight,
    derive,
    describe,
    find_fault,
    list_names,
    parse,
    register_op,
    replace_names,
)

SHAPES = {"q": (6, 4), "k": (6, 4), "kernel": (5, 3, 3, 3), "bias": (8,)}
ROWS = Derivation(("q", "k"), "concatenate")
PAIRS = Derivation((ROWS, "q"), "concatenate")
AXIS = [[1, 0, 0], [0.5, 0.5, 0.5]]
# Which of three pixels the two of an even and of an odd phase stand for.
EVEN, ODD = [[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]
PHASES = [(EVEN, EVEN), (EVEN, ODD), (ODD, EVEN), (ODD, ODD)]
SEEN: list[list[np.dtype]] = []


@register_op("see", moves=True)
def see(*parts):
    SEEN.append([part.dtype for part in parts])
    return np.concatenate(parts)


@register_op("halve")
def halve(array, by=2):
    SEEN.append([array.dtype])
    return array / np.float32(by)


@pytest.fixture(autouse=True)
def see_anew():
    SEEN.clear()


def store(folder, dtype, shapes=None):
    random = np.random.default_rng(0)
    tensors = {name: random.standard_normal(each) for name, each in (shapes or SHAPES).items()}
    file = SafetensorsFile(write_tensors(folder / f"{dtype}.safetensors", tensors, dtype))
    return TensorSource("checkpoint", {name: TensorView(file, name) for name in tensors})


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (7, 63)])
def test_a_weight_is_rounded_to_a_number_of_bits(bits, most, tmp_path):
    source = store(tmp_path, "F32")
    rounded = derive(Weight(Derivation(("kernel",), "quantize", {"bits": bits}), "int8"), source)
    made = Derivation(("kernel",), "quantization-scales", {"bits": bits})
    scales = derive(Weight(made), source)[:, None, None, None]
    assert rounded.dtype == np.int8
    assert (np.abs(rounded).max(axis=(1, 2, 3)) == most).all(), "of each output"
    assert (np.abs(rounded * scales - source.read("kernel")) <= 0.501 * scales).all()


@pytest.mark.parametrize(
    ("dtype", "wanted", "seen"),
    [
        ("BF16", "bfloat16", "uint16"),
        ("BF16", "float32", "uint16"),
        ("F16", "float16", "float16"),
        ("F16", "bfloat16", "float16"),
        ("F32", "float32", "float32"),
        ("F32", "bfloat16", "float32"),
        ("F64", "float32", "float32"),
    ],
)
def test_what_is_moved_keeps_its_type_until_the_end(dtype, wanted, seen, tmp_path):
    source = store(tmp_path, dtype)
    made = derive(Weight(Derivation(("q", "k"), "see"), wanted), source)
    assert [[seen, seen]] == SEEN
    assert made.dtype.name == wanted
    assert made.flags.c_contiguous
    exact = np.concatenate([source.read("q"), source.read("k")])
    np.testing.assert_array_equal(made, exact.astype(made.dtype))


def test_half_weights_are_never_float32_in_memory(tmp_path):
    """Moving bf16 tensors takes as many bytes as they have; float32 would be twice as many."""
    source = store(tmp_path, "BF16", {"q": (1024, 1024), "k": (1024, 1024)})
    size = 2 * 2 * 1024 * 1024
    for op, params in (("concatenate", {}), ("part-pairs", {"heads": 8})):
        sources = ("q", "k") if op == "concatenate" else (ROWS,)
        weight = Weight(Derivation(sources, op, params), "bfloat16")
        derive(weight, source)  # what is imported on the way
        tracemalloc.start()
        made = derive(weight, source)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert made.nbytes == size
        copies = 1 if op == "concatenate" else 2
        assert peak < (copies + 0.25) * size


def test_what_is_computed_is_computed_in_float32(tmp_path):
    source = store(tmp_path, "BF16")
    made = derive(Weight(Derivation(("bias",), "halve", {"by": 3}), "float16"), source)
    assert SEEN == [["float32"]]
    exact = source.read("bias") / np.float32(3)
    np.testing.assert_array_equal(made, exact.astype("float16"))


def test_types_that_differ_meet_in_float32(tmp_path):
    half, full = store(tmp_path, "BF16"), store(tmp_path, "F32")

    class Both:
        def read_stored(self, name):
            return (half if name == "q" else full).read_stored(name)

        def read(self, name):
            return (half if name == "q" else full).read(name)

    made = derive(Weight(Derivation(("q", "k"), "see")), Both())
    assert SEEN == [["float32", "float32"]]
    np.testing.assert_array_equal(made, np.concatenate([half.read("q"), full.read("k")]))


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [("float32", "float32"), ("float16", "float16"), ("uint16", "bfloat16")],
)
def test_what_is_wanted_as_it_is_stored_is_not_copied(stored, wanted):
    class Tensors:
        array = np.ones((3, 2), stored)

        def read_stored(self, name):
            return self.array

    made = derive(Weight("q", wanted), Tensors())
    assert made.dtype.name == wanted
    assert np.shares_memory(made, Tensors.array)


def test_what_lies_askew_in_a_file_is_aligned(tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "long name", {"q": np.ones((3, 2))}))
    stored = file.read_stored("q")
    assert not stored.flags.aligned
    made = derive(Weight("q"), TensorSource("askew", {"q": TensorView(file, "q")}))
    assert made.flags.aligned
    np.testing.assert_array_equal(made, stored)


def test_what_float32_cannot_hold_is_refused(tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "large", {"q": np.array([1e300])}, "F64"))
    with pytest.raises(CheckpointError, match="values that float32 cannot hold"):
        derive(Weight("q"), TensorSource("large", {"q": TensorView(file, "q")}))


def test_what_is_beyond_float16_is_infinite(tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "large", {"q": np.array([1e6])}, "BF16"))
    made = derive(Weight("q", "float16"), TensorSource("large", {"q": TensorView(file, "q")}))
    assert made.tolist() == [np.inf]


OPERATIONS = {
    "concatenate": (ROWS, lambda q, k, **_: np.concatenate([q, k])),
    "nested": (PAIRS, lambda q, k, **_: np.concatenate([q, k, q])),
    "tile": (Derivation(("bias",), "tile", {"times": 3}), lambda bias, **_: np.tile(bias, 3)),
    "part-pairs": (
        Derivation(("bias",), "part-pairs", {"heads": 2}),
        lambda bias, **_: bias[[0, 2, 1, 3, 4, 6, 5, 7]],
    ),
    "add-one": (
        Derivation(("bias",), "add-one", {"parts": 4, "chosen": [1, 3]}),
        lambda bias, **_: bias + np.float32([0, 0, 1, 1, 0, 0, 1, 1]),
    ),
    "phases": (
        Derivation(("kernel",), "phases"),
        lambda kernel, **_: np.concatenate(
            [np.einsum("ra,oiab,cb->oirc", row, kernel, column) for row, column in PHASES]
        ),
    ),
    "winograd": (
        Derivation(("kernel",), "winograd", {"matrix": AXIS}),
        lambda kernel, **_: np.einsum("pa,oiab,qb->pqoi", AXIS, kernel, AXIS).reshape(4, 5, 3),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_carried_out_after_a_round_trip_through_json(name, tmp_path):
    derivation, expect = OPERATIONS[name]
    source = store(tmp_path, "F32")
    again = parse(json.loads(json.dumps(describe(derivation))))
    assert again == derivation
    assert find_fault(again) == ""
    made = derive(Weight(again), source)
    wanted = expect(**{each: source.read(each) for each in source})
    np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-6)


def test_names_are_found_and_replaced_at_any_depth():
    assert list_names(PAIRS) == ("q", "k", "q")
    tripled = replace_names(PAIRS, lambda name: ROWS if name == "k" else f"x.{name}")
    assert tripled == Derivation((Derivation(("x.q", ROWS), "concatenate"), "x.q"), "concatenate")
    assert (list_names("q"), replace_names("q", str.upper)) == (("q",), "Q")


def test_an_operation_that_is_not_registered_is_named(tmp_path):
    lost = Derivation((Derivation(("q",), "concatenat"),), "tile", {"times": 2})
    assert find_fault(lost) == "there is no operation 'concatenat'"
    with pytest.raises(EngineError, match="made by an operation 'concatenat'") as caught:
        derive(Weight(lost), store(tmp_path, "F32"))
    assert caught.value.fix == "did you mean 'concatenate'?"
    assert "winograd" in caught.value.allowed


def test_a_name_belongs_to_one_function():
    with pytest.raises(ValueError, match=r"the operation 'tile' is fastdeploy.*_tile already"):
        register_op("tile")(halve)
    register_op("halve")(halve)  # as a module that is imported again does


@pytest.mark.parametrize("wrong", [3, None, [], {"op": "tile"}, {"op": "tile", "sources": [7]}])
def test_what_describes_no_weight_is_refused(wrong):
    with pytest.raises(ValueError, match="no weight is made like this"):
        parse(wrong)


def test_it_needs_no_paddle_and_no_tool_of_onnx():
    blocked = ("paddle", "onnx", "onnx_ir", "onnxscript", "paddle2onnx", "torch")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "import numpy as np\n"
        "from fastdeploy_diffusion.runtime.recipe import Derivation, Weight, derive\n"
        "class Tensors:\n"
        "    read = read_stored = lambda self, name: np.ones(2, np.float32)\n"
        "weight = Weight(Derivation(('a', 'b'), 'concatenate'))\n"
        "print(derive(weight, Tensors()).tolist())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[1.0, 1.0, 1.0, 1.0]\n", result.stderr
