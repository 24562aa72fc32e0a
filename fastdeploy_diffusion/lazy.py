"""Objects that are named now and imported when they are first used."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def load(path: str) -> Any:
    """Import what a path names: ``"package.module:Name"``."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def defer(path: str, *arguments: Any) -> Callable[..., Any]:
    """Make a function that calls what a path names, with some last arguments."""
    return lambda *first: load(path)(*first, *arguments)
