"""What sizes a kept build is for, in few words."""

from collections.abc import Mapping
from typing import Any

_PICTURE, _TOKENS, _TEXT = 4, 3, 2  # dimensions, the batch among them


def describe_size(signature: Mapping[str, Any]) -> str:
    """Say what a build's signature takes: pixels, latents or tokens.

    Args:
        signature: Descriptions of ``inputs`` and ``outputs``, as they are in the key of a build.

    Returns:
        ``512x512 px`` (width and height) where pictures come out, else what goes in:
        ``64x64 latents``, ``77 tokens``; nothing where there is no signature.
    """
    for name, sizes, _ in signature["outputs"]:
        if name == "images":
            return f"{_describe_area(sizes)} px"
    for _, sizes, _ in signature["inputs"]:
        if len(sizes) == _PICTURE:
            return f"{_describe_area(sizes)} latents"
        if len(sizes) in (_TOKENS, _TEXT):
            return f"{_describe_one(sizes[1])} tokens"
    return ""


def _describe_area(sizes: list[Any]) -> str:
    height, width = map(_describe_one, sizes[2:])
    return f"{width}x{height}"


def _describe_one(size: Any) -> str:
    """A number; or a range, which is given by its name, smallest, usual and largest."""
    if isinstance(size, list):
        _, smallest, _, largest = size
        return f"{smallest}-{largest}"
    return "any" if size is None else str(size)
