"""An exported graph with its weights, as OpenVINO reads it.

Weights lie in files that are mapped into memory: the checkpoint's, or those that are kept beside
builds, as `runtime.weight_store` says. OpenVINO's own compiled form is not
kept: it takes as long to load as to compile again.
"""

import mmap
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.mapped_file import MappedPages, find_pages
from fastdeploy_diffusion.runtime.cache import MAKE_ROOM, CacheWarning
from fastdeploy_diffusion.runtime.manifest import GRAPH_FILE, check_manifest
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.weight_store import BoundWeights
from fastdeploy_diffusion.runtime.weights import bind_weights

_GIVE_BACK_EVERY = 0.1  # seconds
_WORTH_GIVING_BACK = 1 << 20  # bytes: of hundreds of files, a few hold nearly all


@dataclass(frozen=True)
class OpenVINOModel:
    """A model to compile.

    Args:
        mapped: The pages of large weights.
    """

    model: Any
    mapped: Sequence[MappedPages]

    @contextmanager
    def give_back_pages(self) -> Iterator[None]:
        """Free the pages of files that are read inside, again and again.

        OpenVINO packs copies of most weights, and would hold both until the end. Freed pages stay
        in the system's cache, and return when they are read again.
        """
        if not self.mapped or not hasattr(mmap, "MADV_DONTNEED"):
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
        is_last = False
        while not is_last:
            is_last = ended.wait(_GIVE_BACK_EVERY)
            for each in self.mapped:
                each.give_back()


def read_model(core: Any, program: Program, artifact: Path) -> OpenVINOModel:
    """Load the graph of a build with the program's weights, by a core that knows its operators.

    Without room to keep converted weights, a `CacheWarning` is issued, and they are made at each
    start.

    Raises:
        EngineError: The build is damaged, or another program's.
    """
    import openvino

    bound = bind_weights(program, check_manifest(program, artifact), is_mapped=True)
    if bound.shortage:
        _warn(program, bound)
    model = core.read_model(artifact / GRAPH_FILE)
    mapped = []
    for parameter in model.get_parameters():
        array = bound.arrays.get(parameter.get_friendly_name())
        if array is not None:
            if (pages := find_pages(array)) and array.nbytes >= _WORTH_GIVING_BACK:
                mapped.append(pages)
            # OpenVINO only reads it, but shares no memory that it could not write.
            shared = array.view()
            shared.flags.writeable = True
            constant = openvino.op.Constant(shared, shared_memory=True)
            parameter.output(0).replace(constant.output(0))
            model.remove_parameter(parameter)
    return OpenVINOModel(model, mapped)


def _warn(program: Program, bound: BoundWeights) -> None:
    size = bound.unkept
    text = f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
    message = (
        f"{program.name}: the weights of this build are not kept beside it, and are made of the "
        f"checkpoint at each start: they take {text}: {bound.shortage}; {MAKE_ROOM}"
    )
    warnings.warn(message, CacheWarning, stacklevel=2)
