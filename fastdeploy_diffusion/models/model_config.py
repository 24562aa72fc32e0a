"""Strict reading of a ``config.json``: every key is implemented, inert, or an error."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from fastdeploy_diffusion.errors import UnsupportedModelError

Config = TypeVar("Config")


def read_config(
    cls: type[Config],
    raw: Mapping[str, Any],
    *,
    only: Mapping[str, tuple[Any, ...]],
    inert: frozenset[str] = frozenset(),
) -> Config:
    """Turn a ``config.json`` mapping into the frozen dataclass ``cls``.

    Args:
        cls: Dataclass whose fields are the keys with an implemented behaviour.
        raw: The parsed file. Keys that start with ``_`` are metadata.
        only: Known keys of which only the listed values are implemented.
        inert: Known keys that do not change what the network computes at inference.

    Raises:
        UnsupportedModelError: A key is unknown, or its value is not implemented.
    """
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key.startswith("_") or key in inert:
            continue
        if key in only:
            if _freeze(value) not in only[key]:
                allowed = ", ".join(repr(choice) for choice in only[key])
                raise UnsupportedModelError(
                    f"{cls.__name__}: {key} = {value!r} is not implemented", allowed=allowed
                )
        elif key in fields:
            values[key] = _freeze(value)
        else:
            raise UnsupportedModelError(
                f"{cls.__name__}: unknown key {key!r} (= {value!r})",
                allowed=", ".join(sorted(fields | set(only))),
                fix="its behaviour is not known here, so the picture could be wrong; remove the "
                "key only if you know that the network does not depend on it",
            )
    try:
        return cls(**values)
    except TypeError as error:
        raise UnsupportedModelError(f"{cls.__name__}: {error}") from error


def per_block(key: str, value: Any, blocks: int) -> tuple[Any, ...]:
    """Spread a value that a config gives once, or once per block, over ``blocks`` blocks."""
    if not isinstance(value, tuple):
        return (value,) * blocks
    if len(value) != blocks:
        raise UnsupportedModelError(
            f"{key} has {len(value)} entries, but the model has {blocks} blocks",
            allowed=f"one value, or {blocks} values",
        )
    return value


def _freeze(value: Any) -> Any:
    return tuple(_freeze(item) for item in value) if isinstance(value, list) else value
