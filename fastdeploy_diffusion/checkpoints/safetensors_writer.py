"""Writes a ``.safetensors`` file tensor by tensor, so that it may be larger than the memory."""

import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def write_safetensors(
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    read: Callable[[str], FloatArray],
) -> None:
    """Write tensors in the order of their names.

    Args:
        file: Replaced if it exists; its folder is made.
        shapes: By name.
        dtype: How they are stored: ``F32``, ``F16`` or ``BF16``.
        read: Returns a tensor of finite float32 by its name; called once for each, in order.

    Raises:
        ValueError: A tensor has another shape than given in ``shapes``.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + prod(shape) * count_bytes(dtype)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the data after it
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for name, shape in shapes.items():
            values = read(name)
            if values.shape != shape:
                raise ValueError(f"{name} has the shape {values.shape}, not {shape}")
            stream.write(np.ascontiguousarray(_ENCODERS[dtype](values)).data)


def count_bytes(dtype: str) -> int:
    """Bytes of one number."""
    return 4 if dtype == "F32" else 2


def _encode_bfloat16(values: FloatArray) -> npt.NDArray[Any]:
    """Round to the nearest, ties to even; the bits as uint16."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    return rounded.astype("<u2")


_ENCODERS: Mapping[str, Callable[[FloatArray], npt.NDArray[Any]]] = {
    "F32": lambda values: values.astype("<f4", copy=False),
    "F16": lambda values: values.astype("<f2"),
    "BF16": _encode_bfloat16,
}
