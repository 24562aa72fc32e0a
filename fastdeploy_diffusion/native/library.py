"""A library of this package's own operators, compiled for an engine and kept beside its builds.

It is compiled of C++ where a graph is built, and only loaded where that runs. What it needs of the
machine that loads it is written beside it.
"""

import ctypes
import hashlib
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastdeploy_diffusion.disk_room import make_temporary_folder
from fastdeploy_diffusion.errors import EngineError, EngineUnavailableError
from fastdeploy_diffusion.machine import find_version
from fastdeploy_diffusion.native.compile import ATTENTION, compile_library, find_compiler
from fastdeploy_diffusion.runtime.cache import NATIVE
from fastdeploy_diffusion.runtime.manifest import find_library
from fastdeploy_diffusion.runtime.program import Program

# In ONNX graphs, and in those of engines.
DOMAIN = "fastdeploy_diffusion"
OPERATOR = "NativeAttention"

LIBRARY_FILE = "operators.so"


def explain_missing_compiler() -> str:
    """Return why nothing can be compiled here, and what to install; empty if it can."""
    try:
        find_compiler()
    except EngineUnavailableError as error:
        return error.in_one_line
    return ""


def describe_needs(runtimes: Sequence[str]) -> dict[str, str]:
    """Describe the machine and the runtimes, by name, that a library compiled here needs."""
    found = {name: version for name in runtimes if (version := find_version(name))}
    return {"system": platform.system(), "machine": platform.machine(), **found}


def identify_library(adapter: str, runtimes: Sequence[str]) -> dict[str, str]:
    """Collect what a library compiled here depends on, as JSON.

    Raises:
        EngineUnavailableError: There is no compiler.
    """
    content = hashlib.sha256()
    for file in sorted({*ATTENTION.parent.iterdir()}):
        if file.suffix in (".h", ".inc") or file.name in (ATTENTION.name, "compile.py", adapter):
            content.update(f"{file.name}\n".encode() + file.read_bytes())
    sources = content.hexdigest()
    return {"sources": sources, "compiler": find_compiler().version, **describe_needs(runtimes)}


def build_library(
    adapter: str,
    runtimes: Sequence[str],
    out: Path,
    notes: Path | None,
    places: Sequence[str] = (),
) -> None:
    """Compile the library, or copy it if it was compiled before.

    Args:
        adapter: The file beside the kernel that makes an engine's operator of it.
        runtimes: The packages that the adapter is compiled for.
        out: The file to write.
        notes: The folder beside kept builds; ``None`` where none are kept.
        places: Of the engine's headers and libraries: arguments of the compiler.

    Raises:
        EngineError: There is no compiler, or it fails.
        CacheError: The folder of notes cannot be written.
    """
    with make_temporary_folder(adapter) as temporary:
        library = compile_library(
            Path(adapter).stem.replace("_", "-"),
            [ATTENTION, ATTENTION.with_name(adapter)],
            notes / NATIVE if notes else temporary,
            places=places,
            depends_on=describe_needs(runtimes),
        )
        shutil.copyfile(library, out)


def load_library(program: Program, artifact: Path) -> Path | None:
    """Load the library of a build, if it has one, for as long as the process lives.

    An engine would unload it with the first of its objects, others of which may still use it.

    Returns:
        The library, for the engine to look for its operators in.

    Raises:
        EngineError: This machine, or an installed package, is not what it needs.
    """
    library = find_library(program, artifact)
    if library is None:
        return None
    file, needs = library
    here = {name: found for name in needs if (found := find_version(name))}
    here |= {"system": platform.system(), "machine": platform.machine()}
    wrong = [name for name, needed in needs.items() if here.get(name) != needed]
    if wrong:
        raise EngineError(
            f"{program.name}: its operators were compiled for "
            + ", ".join(f"{name} {needs[name]}" for name in wrong)
            + "; here is "
            + ", ".join(f"{name} {here.get(name) or '(none)'}" for name in wrong),
            fix=_explain_needs(needs, wrong),
        )
    try:
        ctypes.CDLL(str(file))
    except OSError as error:
        raise EngineError(
            f"{program.name}: {file} cannot be loaded: {error}",
            allowed="a machine with the C++ runtime library of the one that compiled it, or newer",
            fix="build it again here, or without the pass native-attention",
        ) from error
    return file


def _explain_needs(needs: Mapping[str, str], wrong: Sequence[str]) -> str:
    packages = [f"{name}=={needs[name]}" for name in wrong if name not in ("system", "machine")]
    again = "build it again on such a machine, or without the pass native-attention"
    return f"pip install {' '.join(packages)}; or {again}" if packages else again
