"""GGUF files: every type of tensor equals the reference, and damaged files give typed errors."""

import random
import struct
import sys
import time

import numpy as np
import pytest
from damaged_bytes import mutate

from fastdeploy_diffusion.checkpoints.gguf_file import GGUFFile, find_block
from fastdeploy_diffusion.checkpoints.tensor_source import TensorView
from fastdeploy_diffusion.errors import CheckpointError

gguf = pytest.importorskip("gguf")
Type = gguf.GGMLQuantizationType

NUMBERS = {
    Type.F32: np.float32,
    Type.F16: np.float16,
    Type.F64: np.float64,
}
# Of the types of tensors in GGUF, those that only their own program multiplies out.
WITHOUT_REFERENCE = {Type.Q8_1, Type.Q8_K, Type.Q1_0}
INTEGERS = {Type.I8, Type.I16, Type.I32, Type.I64}
QUANTIZED = sorted(set(Type) - set(NUMBERS) - WITHOUT_REFERENCE - INTEGERS - {Type.BF16})


def write(path, tensors, **values):
    """Write tensors, given with their types, as bytes where they are quantized."""
    writer = gguf.GGUFWriter(path, values.pop("architecture", "flux"))
    for name, value in values.items():
        writer.add_string(name.replace("__", "."), value)
    for name, (value, kind) in tensors.items():
        writer.add_tensor(name, value, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def draw_blocks(kind, rows=3, blocks=2, seed=5):
    """Bytes of a tensor: any are allowed, but scales are finite."""
    _, width = gguf.GGML_QUANT_SIZES[kind]
    return np.random.default_rng(seed).integers(0, 60, (rows, blocks * width), np.uint8)


@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda kind: kind.name)
def test_quantized_tensors_equal_the_reference(kind, tmp_path):
    codes = draw_blocks(kind)
    path = write(tmp_path / "a.gguf", {"x.weight": (codes, kind)})
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    file = GGUFFile(path)
    assert file.architecture == "flux"
    assert (file.tensors["x.weight"].dtype, file.tensors["x.weight"].shape) == (
        "F32",
        (3, 2 * block),
    )
    (tensor,) = gguf.GGUFReader(path).tensors
    wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    assert np.isfinite(wanted).all()
    assert wanted.any()
    np.testing.assert_array_equal(file.read("x.weight"), wanted)
    out = np.empty((1, 2 * block), np.float32)
    TensorView(file, "x.weight", (1,), 3).read_into(out)
    np.testing.assert_array_equal(out, wanted[1:2])


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.name)
def test_plain_numbers_are_mapped(kind, tmp_path):
    value = np.random.default_rng(5).standard_normal((3, 5)).astype(NUMBERS[kind])
    path = write(tmp_path / "a.gguf", {"x": (value, None), "y": (value[0], None)})
    file = GGUFFile(path)
    np.testing.assert_array_equal(file.read_stored("x"), value)
    np.testing.assert_array_equal(file.read_stored("y"), value[0])


def test_bfloat16_has_its_bits(tmp_path):
    value = np.random.default_rng(5).standard_normal((3, 32)).astype(np.float32)
    bits = gguf.quants.quantize(value, Type.BF16)
    file = GGUFFile(write(tmp_path / "a.gguf", {"x": (bits, Type.BF16)}))
    assert file.tensors["x"].dtype == "BF16"
    np.testing.assert_array_equal(file.read("x"), gguf.quants.dequantize(bits, Type.BF16))


def test_a_kernel_that_fills_whole_blocks_has_its_own_shape(tmp_path):
    value = np.random.default_rng(5).standard_normal((4, 2, 4, 4)).astype(np.float32)
    blocks = gguf.quants.quantize(value.reshape(1, 128), Type.Q8_0)
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "sd1")
    writer.add_array("comfy.gguf.orig_shape.x", list(value.shape))
    writer.add_tensor("x", blocks, raw_dtype=Type.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(path)
    assert file.tensors["x"].shape == value.shape
    np.testing.assert_allclose(file.read("x"), value, atol=0.02)


@pytest.mark.parametrize("kind", [Type.Q8_1, Type.Q8_K], ids=lambda kind: kind.name)
def test_unknown_types_are_named(kind, tmp_path):
    path = write(tmp_path / "a.gguf", {"x": (draw_blocks(kind), kind)})
    with pytest.raises(CheckpointError, match=f"type {int(kind)}, which is not supported"):
        GGUFFile(path)


def test_without_the_package_plain_files_are_read(tmp_path, monkeypatch):
    plain = write(tmp_path / "a.gguf", {"x": (np.ones((2, 3), np.float32), None)})
    quantized = write(tmp_path / "b.gguf", {"x": (draw_blocks(Type.Q3_K), Type.Q3_K)})
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert GGUFFile(plain).read("x").sum() == 6
    find_block.cache_clear()
    with pytest.raises(CheckpointError, match="gguf is not installed") as refused:
        GGUFFile(quantized)
    assert "fastdeploy-diffusion[gguf]" in refused.value.fix


def header(version=3, tensors=1, entries=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


def describe(name=b"x", shape=(4,), kind=0, offset=0):
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return struct.pack("<Q", len(name)) + name + sizes + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a readable GGUF"),
        (b"PK\x03\x04" + bytes(60), "does not begin"),
        (header(version=1), "version 1"),
        (header(version=3 << 24), "big-endian"),
        (header(tensors=2**40), "claims"),
        (header(entries=2**60), "claims"),
        (header(rest=describe(shape=(2**40, 2**40))), "beyond its end"),
        (header(rest=describe(offset=2**63)), "beyond its end"),
        (header(rest=describe(shape=(1,) * 9)), "9 axes"),
        (header(rest=describe(kind=2, shape=(33,))), "whole blocks"),
        (header(rest=describe(kind=99)), "type 99"),
        (header(rest=struct.pack("<Q", 2**50) + b"x"), "bytes"),
        (header(tensors=2, rest=2 * describe(shape=(0,))), "twice"),
        (header(tensors=0), "no tensors"),
        (
            header(entries=1, rest=struct.pack("<QcIIQ", 1, b"k", 9, 9, 3)),
            "list in it is of type",
        ),
        (header(entries=1, rest=struct.pack("<QcIIQ", 1, b"k", 9, 0, 2**40)), "elements"),
    ],
)
def test_damaged_files_are_refused(content, words, tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        GGUFFile(path)


def test_mutants_give_typed_errors_in_time(tmp_path):
    chance = random.Random(17)
    value = np.ones((3, 4), np.float32)
    tensors = {"x": (draw_blocks(Type.Q4_K), Type.Q4_K), "y": (value, None)}
    whole = write(tmp_path / "a.gguf", tensors, general__name="model").read_bytes()
    path, refused = tmp_path / "b.gguf", 0
    for _ in range(400):
        path.write_bytes(mutate(whole[:300], chance) + whole[300:])
        started = time.perf_counter()
        try:
            file = GGUFFile(path)
            for name in file.tensors:
                file.read(name)
        except CheckpointError:
            refused += 1
        assert time.perf_counter() - started < 5
    assert refused > 100
