"""Checks that Paddle wrote its files whole: on a full disk it may silently leave half of one."""

import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import NoReturn

from fastdeploy_diffusion.errors import EngineError

_PARAMETER = re.compile(r'"#":\s*"p"')
# A tensor in a file of weights: version, level of detail, version of the tensor, bytes of the
# description that follows, a protobuf of type and sizes; then the values.
_HEADER = struct.Struct("<IQIi")
_TYPE, _SIZE = 1 << 3, 2 << 3  # the fields of the protobuf, which are all numbers
# Bytes of a value, by Paddle's number of its type.
_BYTES: Mapping[int, int] = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2}


def read_graph(component: str, path: Path) -> str:
    """Read a PIR file that Paddle has just written.

    Raises:
        EngineError: It was cut short.
    """
    text = path.read_text(encoding="utf-8")
    try:
        json.loads(text)
    except ValueError:
        _refuse(component, path)
    return text


def require_weights(component: str, graph: str, path: Path) -> None:
    """Refuse a file of weights that Paddle has just written incompletely.

    Args:
        path: The ``.pdiparams`` file; may be missing if the graph has no weights.

    Raises:
        EngineError: It was cut short.
    """
    wanted = len(_PARAMETER.findall(graph))
    if wanted and (not path.exists() or _count_tensors(path, wanted) < wanted):
        _refuse(component, path)


def _count_tensors(path: Path, wanted: int) -> int:
    """Count the complete tensors in a file of weights; an unknown format counts as complete."""
    count, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            version, _, tensor_version, length = _HEADER.unpack(header)
            if version or tensor_version:
                return wanted
            described = file.read(length)
            if len(described) < length:
                break
            numbers = list(_read_numbers(described))
            values = prod(number for field, number in numbers if field == _SIZE)
            file.seek(values * _BYTES[dict(numbers)[_TYPE]], os.SEEK_CUR)
            count += file.tell() <= size
    return count


def _read_numbers(message: bytes) -> Iterator[tuple[int, int]]:
    """Read field numbers and values of a protobuf that holds integers only."""
    numbers: list[int] = []
    shift = number = 0
    for byte in message:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            shift = number = 0
    return zip(numbers[::2], numbers[1::2], strict=False)


def _refuse(component: str, path: Path) -> NoReturn:
    raise EngineError(
        f"{component}: Paddle has not written all of {path}",
        fix="look whether there is room on its disk",
    )
