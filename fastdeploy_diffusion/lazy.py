"""Objects that are named now and imported when they are first used."""

from importlib import import_module
from typing import Any


def load(path: str) -> Any:
    """Import what a path names: ``"package.module:Name"``."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
