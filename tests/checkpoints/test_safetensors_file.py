"""Every dtype reads exactly, and no damaged or hostile file gets past opening."""

import os
from pathlib import Path

import numpy as np
import pytest
from checkpoint_writers import write_raw, write_sparse, write_tensors

from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.errors import CheckpointError


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


STATM = Path("/proc/self/statm")
VALUES = np.array([[1.0, -2.5, 3.0e-5], [65504.0, 0.1, -0.0]], np.float32)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16"])
def test_floats_read_as_float32(dtype, tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "a", {"x": VALUES}, dtype))
    numpy_dtype = {"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype]
    value = file.read("x")
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, VALUES.astype(numpy_dtype).astype(np.float32))


def test_bfloat16_reads_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    special = torch.tensor([1.0, -2.5, 3e38, 1e-40, float("inf"), 0.1, -0.0])
    values = torch.cat([special, torch.randn(1000)]).to(torch.bfloat16)
    save_file({"x": values}, tmp_path / "a")
    read = SafetensorsFile(tmp_path / "a").read("x")
    np.testing.assert_array_equal(read.view(np.uint32), values.float().numpy().view(np.uint32))


def test_header_of_odd_length_gives_aligned_arrays(tmp_path):
    header = b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    for padding in range(8):
        path = write_raw(tmp_path / str(padding), header + b" " * padding, VALUES[0, :2].tobytes())
        value = SafetensorsFile(path).read("x")
        assert value.flags.aligned
        np.testing.assert_array_equal(value, VALUES[0, :2])


def test_what_is_mapped_cannot_be_written(tmp_path):
    """Engines share it: who wrote into it would change the weights of the others."""
    file = SafetensorsFile(write_tensors(tmp_path / "a", {"x": VALUES}))
    value = file.read_stored("x")
    with pytest.raises(ValueError, match="read-only"):
        value[0, 0] = 7
    np.testing.assert_array_equal(file.read("x"), VALUES)


def test_scalars_and_empty_tensors_read(tmp_path):
    values = {"scalar": np.array(3.0, np.float32), "empty": np.empty((0, 3), np.float32)}
    file = SafetensorsFile(write_tensors(tmp_path / "a", values))
    assert file.read("scalar").shape == ()
    assert file.read("scalar") == 3.0
    assert file.read("empty").shape == (0, 3)


def test_float64_beyond_float32_is_refused(tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "a", {"x": np.array([1e300])}, "F64"))
    with pytest.raises(CheckpointError, match="'x' has values that float32 cannot hold"):
        file.read("x")


def test_dtype_that_holds_no_weights_is_refused_on_reading(tmp_path):
    file = SafetensorsFile(write_raw(tmp_path / "a", {"x": entry("U8", [2], 0, 2)}, bytes(2)))
    with pytest.raises(CheckpointError, match="'x' has dtype U8"):
        file.read("x")


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        pytest.param({"x": entry("F32", [2], 0, 8)}, bytes(4), None, id="truncated"),
        pytest.param({"x": entry("F32", [2], 0, 8)}, bytes(12), None, id="trailing bytes"),
        pytest.param(b"}{ garbage", bytes(8), None, id="header not JSON"),
        pytest.param(b"[1, 2]", bytes(8), None, id="header a list"),
        pytest.param(b"\xff\xfe\x00", bytes(8), None, id="header not UTF-8"),
        pytest.param({"x": entry("F32", [2], 0, 8)}, bytes(8), 1 << 62, id="header huge"),
        pytest.param({"x": entry("F32", [2], 0, 8)}, bytes(8), 1 << 20, id="header past the end"),
        pytest.param({"x": entry("F32", [2], 0, 8)}, bytes(8), 5, id="header cut"),
        pytest.param({"x": entry("F32", [3], 0, 8)}, bytes(8), None, id="size against shape"),
        pytest.param({"x": entry("F64", [2], 0, 8)}, bytes(8), None, id="size against dtype"),
        pytest.param({"x": entry("F32", [-2], 0, 8)}, bytes(8), None, id="negative shape"),
        pytest.param(
            {"x": entry("F32", [1 << 40, 1 << 40], 0, 8)}, bytes(8), None, id="overflowing shape"
        ),
        pytest.param({"x": entry("Q7", [2], 0, 8)}, bytes(8), None, id="unknown dtype"),
        pytest.param({"x": entry("F32", [2], 100, 108)}, bytes(8), None, id="offset past the end"),
        pytest.param({"x": entry("F32", [2], 8, 0)}, bytes(8), None, id="offsets reversed"),
        pytest.param({"x": entry("F32", [2], -8, 0)}, bytes(8), None, id="offset negative"),
        pytest.param(
            {"x": entry("F32", [2], 0, 8), "y": entry("F32", [2], 4, 12)},
            bytes(12),
            None,
            id="overlap",
        ),
        pytest.param(
            {"x": entry("F32", [2], 0, 8), "y": entry("F32", [2], 16, 24)},
            bytes(24),
            None,
            id="gap",
        ),
        pytest.param({"x": {"dtype": "F32"}}, bytes(8), None, id="entry incomplete"),
        pytest.param(
            b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            b'"x":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}',
            bytes(16),
            None,
            id="name twice",
        ),
        pytest.param({}, b"", None, id="no tensors"),
        pytest.param({"__metadata__": {"a": "b"}}, b"", None, id="only metadata"),
        pytest.param(
            b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", None, id="deep nesting"
        ),
    ],
)
def test_damaged_file_is_refused_by_name(header, data, length, tmp_path):
    path = write_raw(tmp_path / "damaged.safetensors", header, data, length=length)
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors"):
        SafetensorsFile(path)


@pytest.mark.parametrize("content", [b"", b"1234", bytes(8), bytes(100)])
def test_stub_of_a_file_is_refused(content, tmp_path):
    path = tmp_path / "stub.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"stub\.safetensors"):
        SafetensorsFile(path)


def test_flipped_header_bytes_are_refused_or_harmless(tmp_path):
    rng = np.random.default_rng(3)
    good = write_tensors(tmp_path / "good", {"x": VALUES, "y": VALUES}).read_bytes()
    header_end = 8 + int.from_bytes(good[:8], "little")
    refused = 0
    for _ in range(300):
        broken = bytearray(good)
        for position in rng.integers(0, header_end, 3):
            broken[position] = rng.integers(0, 256)
        path = tmp_path / "broken"
        path.write_bytes(bytes(broken))
        try:
            file = SafetensorsFile(path)
        except CheckpointError:
            refused += 1
            continue
        # A flip that leaves a valid header (in a name, say) must still read within the file.
        for name in file.tensors:
            if file.tensors[name].dtype.startswith("F"):
                assert file.read_stored(name).shape == file.tensors[name].shape
    assert refused > 200


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(60), "can execute code"),
        (b"\x80\x02}q\x00" + bytes(60), "a pickle"),
        (b"GGUF" + bytes(60), "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!doctype html><html>", "HTML"),
    ],
)
def test_other_format_under_this_suffix_is_named(content, words, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        SafetensorsFile(path)


def test_file_replaced_after_opening_is_refused(tmp_path):
    path = write_tensors(tmp_path / "a", {"x": VALUES})
    file = SafetensorsFile(path)
    write_tensors(path, {"x": VALUES[:1]})
    with pytest.raises(CheckpointError, match="changed on disk"):
        file.read("x")
    path.unlink()
    with pytest.raises(CheckpointError, match="can no longer be read"):
        file.read("x")


def resident_bytes() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
def test_reading_keeps_no_pages_of_the_file_resident(tmp_path):
    shapes = {f"x{i}": (4 << 20,) for i in range(16)}  # 16 tensors of 8 MiB
    file = SafetensorsFile(write_sparse(tmp_path / "a", shapes))
    file.read("x0")
    before = resident_bytes()
    for name in file.tensors:
        assert file.read(name).sum() == 0
    assert resident_bytes() - before < 32 << 20
