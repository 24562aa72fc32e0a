"""Passes from other distributions: found by entry point, checked, identified by their code."""

from __future__ import annotations

import hashlib
import inspect
import sys
import warnings
from importlib.machinery import all_suffixes
from importlib.metadata import EntryPoint
from pathlib import Path

from fastdeploy_diffusion.errors import PassError
from fastdeploy_diffusion.pass_entry_points import describe_distribution, find_pass_entry_points
from fastdeploy_diffusion.passes.base import LayerPass
from fastdeploy_diffusion.passes.contract import Pass, PassOrigin
from fastdeploy_diffusion.passes.graph_pass import GraphPass


class PassWarning(UserWarning):
    """A pass cannot be used, or does nothing here; the message says which, and why."""


def load_user_pass(name: str, entry_points: tuple[EntryPoint, ...]) -> Pass:
    """Import a pass and make it.

    Raises:
        PassError: It cannot be imported, is no pass, has another name, or is registered twice.
    """
    if len(entry_points) > 1:
        raise PassError(
            f"the pass {name!r} is registered by "
            + " and by ".join(map(describe_distribution, entry_points)),
            allowed="one distribution for each name",
            fix="uninstall all but one of them",
        )
    (entry_point,) = entry_points
    what = f"the pass {name!r} of {describe_distribution(entry_point)}"
    try:
        made = _make(entry_point)
    except PassError as error:
        raise PassError(f"{what} {error.problem}", allowed=error.allowed, fix=error.fix) from None
    except Exception as error:
        raise PassError(
            f"{what} does not load: {type(error).__name__}: {error}",
            allowed=f"{entry_point.value} to be a class that needs no arguments",
            fix="repair or uninstall it, or leave the pass out",
        ) from error
    return made


def load_all_user_passes(taken: tuple[str, ...]) -> list[Pass]:
    """Make every pass that other distributions register; a broken one is a warning."""
    warn_of_taken_names(taken)
    passes: list[Pass] = []
    for name, entry_points in find_pass_entry_points().items():
        if name in taken:
            continue
        try:
            passes.append(load_user_pass(name, entry_points))
        except PassError as error:
            warnings.warn(f"left out: {error}", PassWarning, stacklevel=2)
    return passes


def warn_of_taken_names(names: tuple[str, ...]) -> None:
    """Warn of distributions that register names of this library's own passes."""
    registered = find_pass_entry_points()
    for name in names:
        for entry_point in registered.get(name, ()):
            warnings.warn(
                f"the pass {name!r} of {describe_distribution(entry_point)} is refused: this is "
                "the name of a pass of fastdeploy-diffusion, which is used instead; it must be "
                "registered under another name",
                PassWarning,
                stacklevel=2,
            )


def _make(entry_point: EntryPoint) -> Pass:
    # Before the pass imports Paddle, so that the import is quiet.
    import fastdeploy_diffusion.paddle_runtime  # noqa: F401

    loaded = entry_point.load()
    fix = "correct the distribution's entry point, or the class"
    if not (inspect.isclass(loaded) and issubclass(loaded, LayerPass | GraphPass)):
        allowed = (
            "a class derived from fastdeploy_diffusion.passes.LayerPass or from "
            "fastdeploy_diffusion.passes.GraphPass"
        )
        raise PassError(f"is {entry_point.value}, which is no pass", allowed=allowed, fix=fix)
    name = getattr(loaded, "name", None)
    if name != entry_point.name:
        # Reports and keys go by the class's name, and choices by the registered one.
        raise PassError(f"calls itself {name!r}", allowed=f"name = {entry_point.name!r}", fix=fix)
    if not hasattr(loaded, "sites") and loaded.expect is Pass.expect:
        raise PassError(
            "does not declare how often it fires",
            allowed="sites, a tuple of kinds of places (fastdeploy_diffusion.passes.Site) or None",
            fix=fix,
        )
    if loaded.changes_picture and not issubclass(loaded, LayerPass):
        raise PassError(
            "changes the picture, and is no layer pass",
            allowed="changes_picture for layer passes: builds are compared with the changed layer",
            fix=fix,
        )
    made: Pass = loaded()
    distribution = entry_point.dist
    made.origin = PassOrigin(
        distribution.name if distribution else "",
        distribution.version if distribution else "",
        _digest_code(entry_point.module),
    )
    return made


def _digest_code(module: str) -> str:
    """Hash the package of a module, for code can change without its version."""
    parts = module.split(".")
    names = [".".join(parts[: length + 1]) for length in range(len(parts))]
    # The outermost package with a file: a namespace package may be shared by other distributions.
    root = next(Path(file) for name in names if (file := sys.modules[name].__file__))
    folder = root.parent
    is_package = root.stem == "__init__"
    files = [root] if not is_package else [path for path in folder.rglob("*") if _is_code(path)]
    content = hashlib.sha256()
    for path in sorted(files):
        content.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        content.update(path.read_bytes())
    return content.hexdigest()


def _is_code(path: Path) -> bool:
    return path.name.endswith(tuple(all_suffixes())) and "__pycache__" not in path.parts
