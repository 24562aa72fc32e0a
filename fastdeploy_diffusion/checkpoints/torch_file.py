"""A checkpoint of ``torch.save``, read without PyTorch: ``.ckpt``, ``.pt``, ``.pth`` and ``.bin``.

It is a zip archive: a pickle describes the tensors, whose numbers lie beside it, not compressed, so
that they are mapped where they are. Nothing that the pickle names is imported or run.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.checkpoints.float8 import interpret_float8
from fastdeploy_diffusion.checkpoints.torch_pickle import PickledTensor, PickleError, read_pickle
from fastdeploy_diffusion.checkpoints.weight_file import StoredTensor, WeightFile
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.shown import show

_ALLOWED = "weights as torch.save writes them, or a .safetensors file"
_AGAIN = 'in Python: torch.save(torch.load("{name}", weights_only=True), "new.pt")'
# Of each dtype, bytes a number.
_SIZES: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64"), 8),
    **dict.fromkeys(("F32", "I32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
_PICKLE, _BYTE_ORDER = "data.pkl", "byteorder"
_LONGEST_PICKLE = 256 * 2**20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 1
# Trainers keep the weights under this key, beside the state of the training.
_WEIGHTS = "state_dict"
_MOST_LEVELS, _MOST_VALUES = 8, 1_000_000


class TorchFile(WeightFile):
    """A file of ``torch.save``, opened once for its pickle.

    Dictionaries in dictionaries are joined by dots. Of a training's checkpoint, only the weights
    are taken. Values that are not tensors are ignored.

    Args:
        path: A file as PyTorch has written it since 1.6.

    Raises:
        CheckpointError: The file cannot be read, is damaged or of the older format, holds no
            tensor, or asks for code that is not part of any checkpoint.
    """

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path)
            with zipfile.ZipFile(path) as archive:
                self.tensors = _read_tensors(archive, path)
            self.tensors = interpret_float8(self)
        except PickleError as error:
            raise CheckpointError(f"{path} is refused: {error}", allowed=_ALLOWED) from error
        except zipfile.BadZipFile as error:
            raise _explain_format(path, error) from error
        except (OSError, ValueError, NotImplementedError, struct.error) as error:
            raise CheckpointError(
                f"{path} is not a readable file of torch.save: {error}",
                allowed=_ALLOWED,
                fix="download or export it again, and compare its size and checksum",
            ) from error
        if not self.tensors:
            raise CheckpointError(
                f"{path} holds no tensors", fix="download or export the weights again"
            )


def _read_tensors(archive: zipfile.ZipFile, path: Path) -> dict[str, StoredTensor]:
    entries = {each.filename: each for each in archive.infolist()}
    root = _find_root(entries)
    order = entries.get(root + _BYTE_ORDER)
    if order and _read_entry(archive, order, 16).strip() != b"little":
        raise PickleError("its numbers are big-endian")
    content = read_pickle(_read_entry(archive, entries[root + _PICKLE], _LONGEST_PICKLE))
    size = path.stat().st_size
    found, places = {}, {}
    with path.open("rb") as file:
        for name, tensor in _walk(_find_weights(content)):
            key = f"{root}data/{tensor.storage.key}"
            if key not in places:
                places[key] = _locate(file, entries.get(key), key, size)
            found[name] = _place(name, tensor, *places[key])
    return found


def _find_root(entries: Mapping[str, Any]) -> str:
    """Find the folder of the archive, which has the name that the file once had."""
    roots = [name[: -len(_PICKLE)] for name in entries if name.endswith("/" + _PICKLE)]
    if len(roots) != 1:
        raise PickleError("it is a zip archive without a pickle of torch.save")
    return roots[0]


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, longest: int) -> bytes:
    _check_plain(entry)
    if entry.file_size > longest:
        raise PickleError(f"{entry.filename} takes {entry.file_size} bytes: at most {longest}")
    return archive.read(entry)


def _check_plain(entry: zipfile.ZipInfo) -> None:
    """Refuse what torch.save does not write: entries that are compressed or encrypted."""
    is_whole = entry.compress_size == entry.file_size
    if entry.compress_type != zipfile.ZIP_STORED or not is_whole or entry.flag_bits & _ENCRYPTED:
        raise PickleError(f"its entry {show(entry.filename)} is compressed or encrypted")


def _locate(file: Any, entry: zipfile.ZipInfo | None, key: str, size: int) -> tuple[int, int]:
    """Find where the numbers of an entry begin in the file, and how many bytes they take."""
    if entry is None:
        raise PickleError(f"its numbers {show(key)} are missing")
    _check_plain(entry)
    file.seek(entry.header_offset)
    magic, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    begin = entry.header_offset + _LOCAL_HEADER.size + name + extra
    if magic != b"PK\x03\x04" or begin + entry.file_size > size:
        raise PickleError(f"its numbers {show(key)} are not whole")
    return begin, entry.file_size


def _place(name: str, tensor: PickledTensor, begin: int, size: int) -> StoredTensor:
    width = _SIZES[tensor.dtype]
    numbers = prod(tensor.shape)
    ends = 1 + sum(
        (count - 1) * stride for count, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    # A number that is shown many times over would take more memory than the file has.
    if numbers and (tensor.offset + max(ends, numbers)) * width > size:
        raise PickleError(f"its tensor {show(name)} reaches beyond its numbers")
    plain = tuple(prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))
    moved = any(
        count > 1 and stride != usual
        for count, stride, usual in zip(tensor.shape, tensor.strides, plain, strict=True)
    )
    return StoredTensor(
        tensor.dtype,
        tensor.shape,
        begin + tensor.offset * width,
        tensor.strides if moved and numbers else None,
    )


def _find_weights(content: Any) -> Any:
    if not isinstance(content, dict):
        raise PickleError(f"it holds a {type(content).__name__}, not a dictionary of tensors")
    weights = content.get(_WEIGHTS)
    return weights if isinstance(weights, dict) else content


def _walk(content: Any) -> Iterator[tuple[str, PickledTensor]]:
    """List the tensors, under names that are joined by dots."""
    seen = 0
    waiting = [("", content, 0)]
    while waiting:
        prefix, values, level = waiting.pop()
        for key, value in values.items():
            seen += 1
            name = f"{prefix}{key}" if isinstance(key, str | int) else ""
            if isinstance(value, PickledTensor) and name:
                yield name, value
            elif isinstance(value, dict) and name:
                # The same dictionary could be in itself, or many times over.
                if level == _MOST_LEVELS or seen > _MOST_VALUES:
                    raise PickleError("its dictionaries lie too deep in each other")
                waiting.append((f"{name}.", value, level + 1))


def _explain_format(path: Path, error: Exception) -> CheckpointError:
    """Say what a file is that is no zip archive."""
    with path.open("rb") as file:
        beginning = file.read(2)
    fix = "download or export it again, and compare its size and checksum"
    problem = f"{path} is not a readable file of torch.save: {error}"
    if beginning[:1] == b"\x80":
        problem = f"{path} is of the format before PyTorch 1.6, or another kind of pickle"
        fix = _AGAIN.format(name=path.name)
    return CheckpointError(problem, allowed=_ALLOWED, fix=fix)
