"""Objects that are named by a path, and imported when they are first used."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


def load(path: str) -> Any:
    """Import what a path names: ``"package.module:Name"``."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Deferred:
    """A call of the object that a path names, with its last arguments fixed."""

    path: str
    arguments: tuple[Any, ...] = ()

    def __call__(self, *first: Any) -> Any:
        """Import it, and call it."""
        return load(self.path)(*first, *self.arguments)


def defer(path: str, *arguments: Any) -> Deferred:
    """Defer a call of the object that a path names, with its last arguments fixed."""
    return Deferred(path, arguments)
