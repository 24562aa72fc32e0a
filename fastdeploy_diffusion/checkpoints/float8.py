"""Weights in floating point of eight bits, with the scales that some files keep beside them.

Names of scales and of the marker are those of ComfyUI's files (``comfy/ops.py``).
"""

from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints.weight_file import Encoding, StoredTensor, WeightFile
from fastdeploy_diffusion.errors import CheckpointError

_E4M3, _E5M2 = "F8_E4M3", "F8_E5M2"
_WEIGHT, _SCALE = "weight", "scale_weight"
# They say how products are computed with such weights, not what the weights are.
_UNUSED = ("scaled_fp8", "scale_input")
_NUMBERS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Float8(Encoding):
    """Numbers of a byte each.

    Args:
        dtype: ``F8_E4M3`` (without infinities, as in files of PyTorch) or ``F8_E5M2``.
        size: In bytes.
        scale: What the numbers are multiplied by, one for all or for each row.
    """

    dtype: str
    size: int
    scale: npt.NDArray[np.float32] | None = None

    def decode(self, stored: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Compute the numbers: in float16, which holds them exactly, or scaled in float32."""
        numbers = _list_numbers(self.dtype)[stored].reshape(shape)
        if self.scale is None:
            return numbers
        scales = self.scale.reshape(-1, *(1 for _ in shape[1:]))
        return np.multiply(numbers, scales, dtype=np.float32)


def interpret_float8(file: WeightFile) -> dict[str, StoredTensor]:
    """List the tensors of a file, with those of eight bits as numbers.

    Args:
        file: Its ``tensors`` are as stored.

    Returns:
        Without the scales, which belong to weights.

    Raises:
        CheckpointError: A scale does not fit its weight, or cannot be read.
    """
    tensors = dict(file.tensors)
    small = {name: each for name, each in tensors.items() if each.dtype in (_E4M3, _E5M2)}
    if not small:
        return tensors
    for name, tensor in small.items():
        scale = _read_scale(file, name, tensor)
        encoding = Float8(tensor.dtype, prod(tensor.shape), scale)
        if tensor.strides is not None:
            raise CheckpointError(
                f"{file.path}: tensor {name!r} has dtype {tensor.dtype}, and is transposed",
                allowed="numbers in the order of their tensor",
                fix="save the weights as .safetensors",
            )
        dtype = "F16" if scale is None else "F32"
        tensors[name] = replace(tensor, dtype=dtype, encoding=encoding)
    scales = {_name_scale(name) for name in small}
    return {
        name: each
        for name, each in tensors.items()
        if name not in scales and name.rpartition(".")[2] not in _UNUSED
    }


def _name_scale(name: str) -> str:
    return name.removesuffix(_WEIGHT) + _SCALE


def _read_scale(
    file: WeightFile, name: str, tensor: StoredTensor
) -> npt.NDArray[np.float32] | None:
    scale = file.tensors.get(_name_scale(name)) if name.endswith(f".{_WEIGHT}") else None
    if scale is None:
        return None
    if prod(scale.shape) not in (1, *tensor.shape[:1]) or scale.dtype not in _NUMBERS:
        raise CheckpointError(
            f"{file.path}: the scale of {name!r} has shape {scale.shape} and dtype {scale.dtype}",
            allowed=f"one number, or one for each of the rows of {tensor.shape}",
            fix="download or export the file again",
        )
    return file.read(_name_scale(name)).reshape(-1)


@cache
def _list_numbers(dtype: str) -> npt.NDArray[np.float16]:
    """List the number of each byte."""
    codes = np.arange(256, dtype=np.uint16)
    if dtype == _E5M2:
        upper: npt.NDArray[np.float16] = (codes << 8).view(np.float16)  # half of the bits
        return upper
    # An exponent of four bits, whose bias is smaller by eight than that of float16.
    bits = (codes & 0x80) << 8 | (codes & 0x7F) << 7
    numbers: npt.NDArray[np.float16] = bits.view(np.float16) * np.float16(256)
    numbers[codes & 0x7F == 0x7F] = np.nan
    return numbers
