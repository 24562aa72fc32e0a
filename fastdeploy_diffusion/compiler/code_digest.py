"""Digests of code: modules, and all that they import of this package."""

import functools
import hashlib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
# Imports for type checkers only do not count.
_FOR_TYPES = re.compile(r"^( *)if TYPE_CHECKING:\n(?:\1 .*\n|\n)+", re.MULTILINE)


def digest_code(modules: Iterable[str], package: Path = _PACKAGE) -> str:
    """Hash the files of modules and of all that they import, lazily too.

    Any changed byte, a comment's too, changes the digest; modules that none of them imports do not
    count. A module named by a string counts as imported, for registries do that.

    Args:
        modules: Dotted names. Of one outside the package, only its imports count.

    Returns:
        The sha256, as hexadecimal digits.
    """
    content = hashlib.sha256()
    for file in list_code(modules, package):
        name = file.relative_to(package).as_posix()
        content.update(f"{name}\n{_read(file, package)[0]}\n".encode())
    return content.hexdigest()


def list_code(modules: Iterable[str], package: Path = _PACKAGE) -> list[Path]:
    """List the files that `digest_code` hashes, in order."""
    reached: set[Path] = set()
    waiting = [file for each in modules if (file := _locate(each, package))]
    while waiting:
        file = waiting.pop()
        if file not in reached:
            reached.add(file)
            waiting += _read(file, package)[1]
    return sorted(file for file in reached if package in file.parents)


@functools.cache
def _read(file: Path, package: Path) -> tuple[str, list[Path]]:
    """Read the digest of a file, and the files of the package that it imports or names.

    By a regular expression: parsing all these files would take a tenth of a second at each start.
    """
    content = file.read_bytes()
    text = _FOR_TYPES.sub("", content.decode())
    found = set()
    for module, in_brackets, on_the_line in _compile_names(package.name).findall(text):
        names = [
            each.split()[0] for each in (in_brackets or on_the_line).split(",") if each.split()
        ]
        found |= {_find_file(f"{module}.{name}", package) for name in names or [""]}
    return hashlib.sha256(content).hexdigest(), [each for each in found if each]


@functools.cache
def _compile_names(package: str) -> re.Pattern[str]:
    return re.compile(rf"{package}((?:\.\w+)*)(?: import (?:\(([^)]*)\)|([\w, ]+)))?")


@functools.cache
def _find_file(module: str, package: Path) -> Path | None:
    """Find the file of the module that a dotted name, or its longest prefix, names."""
    parts = [each for each in module.split(".") if each]
    for length in (len(parts), len(parts) - 1):
        place = "/".join((str(package), *parts[:length]))
        for file in (f"{place}.py", f"{place}/__init__.py") if length > 0 else ():
            if os.path.isfile(file):
                return Path(file)
    return None


def _locate(module: str, package: Path) -> Path | None:
    first, _, rest = module.partition(".")
    if first == package.name:
        return _find_file(rest, package)
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file else None
