"""An exported graph with its weights in place, as OpenVINO reads it and as it keeps it.

The weights that passes make take longer to compute than to read. So they lie beside a kept build in
OpenVINO's own format, which it maps into memory: nothing of the checkpoint is read at the next
start. What OpenVINO compiles of it is not kept: that takes as long to load as to compile again.
"""

import mmap
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.engines.cache import MAKE_ROOM, CacheWarning
from fastdeploy_diffusion.export.manifest import GRAPH_FILE, check_manifest
from fastdeploy_diffusion.program import Program

MODEL_FILE, WEIGHTS_FILE = "model.xml", "model.bin"
_GIVE_BACK_EVERY = 0.1  # seconds


@dataclass(frozen=True)
class OpenVINOModel:
    """A model to compile.

    Args:
        model: OpenVINO's, which refers to its weights.
        mapped: The file they lie in, if they are kept.
    """

    model: Any
    mapped: mmap.mmap | None = None

    @contextmanager
    def give_back_pages(self) -> Iterator[None]:
        """Free the pages of the file that are read inside, again and again.

        OpenVINO packs copies of most weights, and would hold both until the end. What is given back
        stays in the system's cache, and returns where it is read again.
        """
        if self.mapped is None or not hasattr(mmap, "MADV_DONTNEED"):
            yield
            return
        thread = threading.Thread(target=self._give_back, args=(ended := threading.Event(),))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _give_back(self, ended: threading.Event) -> None:
        assert self.mapped is not None
        is_last = False
        while not is_last:
            is_last = ended.wait(_GIVE_BACK_EVERY)
            self.mapped.madvise(mmap.MADV_DONTNEED)


def read_model(program: Program, artifact: Path) -> OpenVINOModel:
    """Give the model of a build: the kept one, or the graph with the program's weights.

    Raises:
        EngineError: The build is damaged, or another program's.
    """
    import openvino

    wanted = check_manifest(program, artifact)
    if (artifact / MODEL_FILE).exists():
        return _map_model(artifact)

    from fastdeploy_diffusion.export.weights import read_weights

    weights = read_weights(program, wanted)
    model = openvino.Core().read_model(artifact / GRAPH_FILE)
    for parameter in model.get_parameters():
        name = parameter.get_friendly_name()
        if name in weights:
            # OpenVINO only reads it, but shares no memory that it could not write.
            shared = weights[name].view()
            shared.flags.writeable = True
            constant = openvino.op.Constant(shared, shared_memory=True)
            parameter.output(0).replace(constant.output(0))
            model.remove_parameter(parameter)
    return OpenVINOModel(model)


def keep_model(program: Program, artifact: Path, cache: Path) -> None:
    """Write the model into its build, weights and all.

    Where there is no room, a `CacheWarning` says so, and they are read from the checkpoint at each
    start.

    Args:
        program: What was built.
        artifact: Folder of the build.
        cache: Where builds are kept, for the message.
    """
    import openvino

    model = read_model(program, artifact).model
    constants = [each for each in model.get_ops() if each.get_type_name() == "Constant"]
    needed = sum(each.data.nbytes for each in constants)
    if not needed:
        return  # a file without bytes cannot be mapped
    free = shutil.disk_usage(artifact).free
    try:
        if needed > free:
            raise OSError(f"{_format(free)} are free")
        openvino.save_model(model, artifact / MODEL_FILE, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:
        for name in (MODEL_FILE, WEIGHTS_FILE):
            (artifact / name).unlink(missing_ok=True)
        message = (
            f"{program.name}: the weights of this build are not kept beside it, and are read from "
            f"the checkpoint at each start: they take {_format(needed)} in {cache}: {error}; "
            f"{MAKE_ROOM}"
        )
        warnings.warn(message, CacheWarning, stacklevel=2)


def _format(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _map_model(artifact: Path) -> OpenVINOModel:
    import openvino

    with (artifact / WEIGHTS_FILE).open("rb") as file:
        # Nothing is written to it, but OpenVINO shares no memory that it could not write.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    weights = openvino.Tensor(np.frombuffer(mapped, np.uint8), shared_memory=True)
    graph = (artifact / MODEL_FILE).read_text(encoding="utf-8")
    return OpenVINOModel(openvino.Core().read_model(graph, weights), mapped)
