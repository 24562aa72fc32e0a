"""OpenVINO's compiled models as files, which the next start maps instead of compiling again."""

import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.engines.session import Shapes

_PREFIX, _SUFFIX = "compiled-", ".blob"
# Linux: give the pages back, keep the mapping. Python has no name for it before 3.13.
_MADV_PAGEOUT = 21


def find_compiled(artifact: Path) -> Iterator[tuple[Shapes, Path]]:
    """List the compiled models of a build, by the shapes of their inputs."""
    for path in sorted(artifact.glob(f"{_PREFIX}*{_SUFFIX}")):
        inputs = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX).split("_")
        yield tuple(tuple(map(int, each.split("x"))) for each in inputs), path


def export_compiled(compiled: Any, shapes: Shapes, artifact: Path) -> None:
    """Write a compiled model into a build.

    Raises:
        OSError: The disk is full, or cannot be written.
    """
    name = "_".join("x".join(map(str, shape)) for shape in shapes)
    (artifact / f"{_PREFIX}{name}{_SUFFIX}").write_bytes(compiled.export_model().getbuffer())


def import_compiled(core: Any, path: Path, properties: dict[str, Any]) -> tuple[Any, Any]:
    """Load a compiled model.

    Returns:
        The model, and the file's content in memory, which must live as long: it holds the weights.
    """
    import openvino

    with path.open("rb") as file:
        # Copy-on-write: OpenVINO takes only memory that could be written, and writes none.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    content = openvino.Tensor(np.frombuffer(mapped, np.uint8), shared_memory=True)
    compiled = core.import_model(content, "CPU", properties)
    if hasattr(mapped, "madvise"):
        # Its own packed copy is what runs; the file's pages need not stay in memory. An older Linux
        # does not know that, and takes them back when it needs them.
        with suppress(OSError):
            mapped.madvise(_MADV_PAGEOUT)
    return compiled, content
