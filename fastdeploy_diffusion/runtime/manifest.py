"""The manifest of an exported program: its signature, recipe, and sizes of files.

Paddle 3.3 loads a program whose weight file is missing or cut short without an error, and computes
with uninitialised memory. So the manifest is written last, and checked before every load.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.runtime.pass_result import PassResult
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.recipe import Weight, describe, parse

MANIFEST_FILE = "manifest.json"
PROGRAM_FILE = "program.json"
WEIGHTS_FILE = "program.pdiparams"
GRAPH_FILE = "graph.onnx"


def write_manifest(
    program: Program,
    directory: Path,
    files: Sequence[str],
    weights: Mapping[str, Weight] = MappingProxyType({}),
    graph_passes: Sequence[PassResult] = (),
) -> None:
    """Record a finished export.

    Args:
        weights: The graph's, by name, that are not in the files and are bound on load.
    """
    manifest = {
        **_describe_signature(program),
        "files": {name: (directory / name).stat().st_size for name in files},
        "weights": _describe_weights(weights),
        "graph_passes": [asdict(result) for result in graph_passes],
    }
    _write(manifest, directory)


def check_manifest(program: Program, directory: Path) -> dict[str, Weight]:
    """Check that an export is whole, and that it is this program's.

    Returns:
        The weights that are bound on load, by name.

    Raises:
        EngineError: A file is missing or of another size, or the export has another signature.
    """
    manifest = _read_manifest(program.name, directory)
    for key, wanted in _describe_signature(program).items():
        if manifest.get(key) != wanted:
            raise EngineError(
                f"{program.name}: the export in {directory} has {key} {manifest.get(key)}",
                allowed=f"{key} {wanted}",
                fix="build it again for this program",
            )
    for name, size in manifest["files"].items():
        path = directory / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise EngineError(
                f"{program.name}: {path} "
                + ("is missing" if found is None else f"has {found} bytes"),
                allowed=f"{size} bytes, as when it was exported",
                fix="build it again",
            )
    try:
        return {
            name: Weight(parse(each["made_of"]), each["dtype"])
            for name, each in manifest["weights"].items()
        }
    except (TypeError, KeyError, ValueError) as error:
        raise _refuse(program.name, directory) from error


def copy_export(directory: Path, to: Path, weights: Mapping[str, Weight]) -> None:
    """Copy an export, and bind it to other weights.

    Args:
        directory: A whole one.
        to: A folder, made if missing.
    """
    manifest = _read_manifest(directory.name, directory)
    to.mkdir(parents=True, exist_ok=True)
    for name in manifest["files"]:
        shutil.copyfile(directory / name, to / name)
    manifest["weights"] = _describe_weights(weights)
    _write(manifest, to)


def add_library(directory: Path, file: str, needs: Mapping[str, str]) -> None:
    """Record a compiled library that lies beside a finished export.

    Args:
        needs: Of a machine that loads it, by name.
    """
    manifest = _read_manifest(directory.name, directory)
    manifest["files"][file] = (directory / file).stat().st_size
    manifest["library"] = {"file": file, "needs": dict(needs)}
    _write(manifest, directory)


def find_library(program: Program, directory: Path) -> tuple[Path, Mapping[str, str]] | None:
    """Find the compiled library of an export, and what it needs.

    Raises:
        EngineError: The manifest cannot be read, or says something else.
    """
    library = _read_manifest(program.name, directory).get("library")
    if library is None:
        return None
    try:
        return directory / library["file"], dict(library["needs"])
    except (TypeError, KeyError, ValueError) as error:
        raise _refuse(program.name, directory) from error


def read_graph_passes(program: Program, directory: Path) -> list[PassResult]:
    """Read the results of the graph passes of an export; raises as `check_manifest`."""
    manifest = _read_manifest(program.name, directory)
    return [PassResult(**each) for each in manifest["graph_passes"]]


def _describe_weights(weights: Mapping[str, Weight]) -> dict[str, Any]:
    return {
        name: {"made_of": describe(each.made_of), "dtype": each.dtype}
        for name, each in weights.items()
    }


def _write(manifest: Mapping[str, Any], directory: Path) -> None:
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8")


def _read_manifest(name: str, directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{name}: {path} cannot be read ({error}): the export is unfinished or damaged",
            fix="build it again",
        ) from error
    kinds = {"files": dict, "weights": dict, "inputs": list, "outputs": list, "graph_passes": list}
    if not isinstance(manifest, dict) or not all(
        isinstance(manifest.get(key), kind) for key, kind in kinds.items()
    ):
        raise _refuse(name, directory)
    return manifest


def _refuse(name: str, directory: Path) -> EngineError:
    return EngineError(
        f"{name}: {directory / MANIFEST_FILE} is no export manifest", fix="build it again"
    )


def _describe_signature(program: Program) -> dict[str, Any]:
    return {
        "name": program.name,
        "inputs": [spec.describe() for spec in program.inputs],
        "outputs": [spec.describe() for spec in program.outputs],
    }
