"""Models as OpenVINO compiled them, kept so that later starts of small networks take less time.

A compiled model is the graph after all of OpenVINO's rewrites, with its weights. It loads in less
than half of the time that compiling takes where there are many operators and few numbers, as in the
models in the box. Large networks spend that time on packing their weights, which is
done again in any case, and their files would take as much disk as the weights: they are not kept.

A file is found only if all that OpenVINO's result depends on is the same: graph, weights, shapes,
properties, OpenVINO's version, the processor's instructions, and the code that prepares the graph.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.machine import read_cpu_flags
from fastdeploy_diffusion.runtime.cache import COMPILED, CacheWarning
from fastdeploy_diffusion.whole_file import write_whole

MOST_WEIGHTS = 64 * 2**20
"""Bytes of weights of the largest network that is kept."""
KEPT_BYTES = 512 * 2**20
"""Of all files together; those that were used the longest ago go first."""
_DIGEST_BYTES = 32


class CompiledModels:
    """The compiled models of one network.

    Args:
        notes: Folder of what makes starts faster; ``None`` to keep none.
        network: Digest of its graph and weights; ``None`` to keep none of it.
    """

    def __init__(self, notes: Path | None, network: str | None) -> None:
        self._folder = notes / COMPILED if notes is not None and network else None
        self._network = network

    def find(self, core: Any, shapes: Any, properties: Mapping[str, Any]) -> Any | None:
        """Load a kept model; ``None`` if there is none.

        One that is damaged, or that OpenVINO refuses, is a `CacheWarning`, and is removed.
        """
        if self._folder is None:
            return None
        file = self._folder / self._name(shapes, properties)
        try:
            content = file.read_bytes()
        except OSError:
            return None
        digest, model = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
        problem = ""
        if hashlib.sha256(model).digest() != digest:
            problem = "it has changed"
        else:
            try:
                compiled = core.import_model(io.BytesIO(model), "CPU", dict(properties))
            except Exception as error:  # OpenVINO raises what it likes
                problem = " ".join(str(error).split())[:300]
            else:
                with suppress(OSError):  # a read-only folder serves, too
                    file.touch()
                return compiled
        warnings.warn(
            f"the compiled model {file} is not used, and is made again: {problem}",
            CacheWarning,
            stacklevel=2,
        )
        with suppress(OSError):
            file.unlink()
        return None

    def keep(self, compiled: Any, shapes: Any, properties: Mapping[str, Any]) -> None:
        """Keep a compiled model if there is room: it saves time, and is not missed otherwise."""
        if self._folder is None:
            return
        stream = io.BytesIO()
        try:
            compiled.export_model(stream)
        except Exception as error:  # OpenVINO raises what it likes
            message = f"a compiled model is not kept: {' '.join(str(error).split())[:300]}"
            warnings.warn(message, CacheWarning, stacklevel=2)
            return
        model = stream.getbuffer()
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            file = self._folder / self._name(shapes, properties)
            write_whole(file, hashlib.sha256(model).digest() + model)
            self._remove_surplus()

    def _name(self, shapes: Any, properties: Mapping[str, Any]) -> str:
        import openvino

        code = sorted(Path(__file__).parent.glob("openvino*.py"))
        ingredients = [
            *(self._network, shapes, dict(properties), openvino.get_version()),
            *(platform.machine(), read_cpu_flags()),
            *(hashlib.sha256(each.read_bytes()).hexdigest() for each in code),
        ]
        return hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()

    def _remove_surplus(self) -> None:
        assert self._folder is not None
        files = [(each, each.stat()) for each in self._folder.iterdir()]
        files.sort(key=lambda each: each[1].st_mtime, reverse=True)
        total = 0
        for file, stat in files:
            total += stat.st_size
            if total > KEPT_BYTES:
                file.unlink()
