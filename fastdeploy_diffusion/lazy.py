"""Objects that are named now and imported when they are first used."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


def load(path: str) -> Any:
    """Import what a path names: ``"package.module:Name"``."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Deferred:
    """A call of what a path names, with some last arguments."""

    path: str
    arguments: tuple[Any, ...] = ()

    def __call__(self, *first: Any) -> Any:
        """Import it, and call it."""
        return load(self.path)(*first, *self.arguments)


def defer(path: str, *arguments: Any) -> Deferred:
    """Name what is called later, with its last arguments."""
    return Deferred(path, arguments)
