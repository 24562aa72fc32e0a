"""Compiles the C++ kernels into a shared library, once for each content, compiler and engine."""

import hashlib
import os
import platform
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastdeploy_diffusion.disk_room import describe_shortage
from fastdeploy_diffusion.errors import CacheError, EngineError, EngineUnavailableError
from fastdeploy_diffusion.runtime.cache import MAKE_ROOM
from fastdeploy_diffusion.runtime.file_lock import hold_file
from fastdeploy_diffusion.whole_file import UNFINISHED

FOLDER = Path(__file__).parent
ATTENTION = FOLDER / "attention.cpp"
"""The attention kernel; its interface is in attention.h, beside it."""
# Each function names the instructions that it uses: code for one processor would not run on others.
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=fast", "-fvisibility=hidden", "-w")
_COMPILERS = ("g++", "clang++", "c++")
_INSTALL = "sudo apt install g++, or set CXX to a GCC 11 or Clang 14, or a later one"
_HEADERS = (".h", ".inc")
_LONGEST_COMPILATION = 600.0
_SHOWN_LINES = 12


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler of this machine.

    Args:
        command: Its path, and arguments that always go with it.
        version: The first line of what it says of itself.
    """

    command: tuple[str, ...]
    version: str


def find_compiler() -> Compiler:
    """Find the compiler that ``CXX`` names, or else g++ or clang++.

    Raises:
        EngineUnavailableError: There is none, or it does not run; the fix says what to install.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [[name] for name in _COMPILERS]:
        if path := shutil.which(command[0]):
            return Compiler((path, *command[1:]), _read_version(path))
    if named:
        problem = f"there is no C++ compiler {named[0]}, which CXX names"
    else:
        problem = f"there is no C++ compiler on the PATH ({', '.join(_COMPILERS)})"
    raise EngineUnavailableError(problem, fix=_INSTALL)


def compile_library(
    name: str,
    sources: Sequence[Path],
    folder: Path,
    *,
    flags: Sequence[str] = (),
    places: Sequence[str] = (),
    depends_on: Mapping[str, str] | None = None,
) -> Path:
    """Compile a shared library, or find the one that was compiled from the same before.

    Processes share the folder: one compiles and the others wait; the file appears whole.

    Args:
        name: What its file is called, before a digest.
        sources: C++ files. All headers in their folders count for the digest.
        folder: Where it is kept; made if missing.
        flags: What decides what is compiled, beside `FLAGS`: macros, instruction sets.
        places: Where headers and libraries lie on this machine (``-I``, libraries to link with).
        depends_on: Versions of what those belong to, by name.

    Returns:
        The library.

    Raises:
        EngineUnavailableError: There is no compiler.
        EngineError: It fails; the message has what it says.
        CacheError: The folder cannot be written.
    """
    compiler = find_compiler()
    digest = _digest(sources, [compiler.version, *FLAGS, *flags], depends_on or {})
    library = folder / f"{name}-{digest}.so"
    try:
        if not library.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with hold_file(folder / f"{name}.lock"):
                if not library.exists():
                    inputs = [str(source) for source in sources]
                    _compile([*compiler.command, *FLAGS, *flags, *inputs, *places], library)
    except OSError as error:
        shortage = describe_shortage(error) or error.strerror or str(error)
        raise CacheError(
            f"{library.name} cannot be kept in {folder}: {shortage}", fix=MAKE_ROOM
        ) from error
    return library


def _read_version(path: str) -> str:
    try:
        ran = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineUnavailableError(
            f"the C++ compiler {path} does not run: {error}", fix=_INSTALL
        ) from error
    return ran.stdout.partition("\n")[0]


def _digest(
    sources: Sequence[Path], compilation: Sequence[str], depends_on: Mapping[str, str]
) -> str:
    folders = {source.parent for source in sources}
    headers = (file for folder in folders for file in folder.iterdir() if file.suffix in _HEADERS)
    parts = [platform.system(), platform.machine(), *compilation]
    parts += [f"{name} {version}" for name, version in sorted(depends_on.items())]
    for file in sorted({*sources, *headers}, key=lambda file: file.name):
        parts.append(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _compile(command: Sequence[str], library: Path) -> None:
    unfinished = library.with_name(f"{library.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        ran = subprocess.run(
            [*command, "-o", str(unfinished)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONGEST_COMPILATION,
        )
        if ran.returncode:
            said = "\n".join(ran.stderr.strip().splitlines()[:_SHOWN_LINES])
            raise EngineError(
                f"{command[0]} ends with code {ran.returncode} for {library.name}:\n{said}",
                fix="set CXX to another compiler, a GCC 11 or Clang 14, or a later one",
            )
        unfinished.replace(library)
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"{command[0]} has not compiled {library.name} in {_LONGEST_COMPILATION:g} seconds"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
