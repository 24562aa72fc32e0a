"""A TensorRT plan on a GPU: one stream, and one kept execution for each set of shapes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.engines.tensorrt_cuda import call, use_device
from fastdeploy_diffusion.engines.tensorrt_execution import ShapedExecution
from fastdeploy_diffusion.engines.tensorrt_package import make_logger
from fastdeploy_diffusion.errors import EngineError, RequestError
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Session, Shapes, differ_in_batch_only
from fastdeploy_diffusion.size_range import SizeRange

BATCH = SizeRange("batch", 1, 2, 8)
"""Bounds of a free batch that has none: tuned for 2, one guided picture."""


class TensorRTSession(Session):
    """Runs a plan; written after the documentation of TensorRT and CUDA, not yet run on a GPU.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``, whichever built the plan.
        device: Index of the GPU.

    Raises:
        EngineError: The plan is of another version or for another GPU, or CUDA fails.
    """

    def __init__(self, engine: str, program: Program, trt: Any, plan: Path, device: int) -> None:
        super().__init__(engine, program)
        from cuda.bindings import runtime

        self._trt = trt
        self._device = device
        self._executions: dict[Shapes, ShapedExecution] = {}
        use_device(device)
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        # Mapped, not read: the plan holds the weights, and TensorRT copies them to the device.
        self._plan = self._runtime.deserialize_cuda_engine(np.memmap(plan, np.uint8, "r"))
        if self._plan is None:
            raise EngineError(
                f"{program.name}: TensorRT does not load {plan}: {'; '.join(self._logger.errors)}",
                fix="build it again on this machine",
            )
        self._stream = call(runtime.cudaStreamCreate)

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        use_device(self._device)
        key = tuple(array.shape for array in feeds.values())
        if key not in self._executions:
            self._check_batch(feeds)
            # Each holds memory of its own on the device: one size at a time.
            if not all(differ_in_batch_only(key, others) for others in self._executions):
                self._drop_executions()
            types = {spec.name: np.dtype(spec.dtype) for spec in self.outputs.values()}
            self._executions[key] = ShapedExecution(
                self._trt, self._plan, self._stream, feeds, types
            )
        # Bound arrays are the session's own, and never change.
        return self._executions[key].run(feeds, frozenset(self._bound))

    def _close(self) -> None:
        from cuda.bindings import runtime

        use_device(self._device)
        self._drop_executions()
        self._plan = self._runtime = None
        call(runtime.cudaStreamDestroy, self._stream)

    def _drop_executions(self) -> None:
        for execution in self._executions.values():
            execution.close()
        self._executions.clear()

    def _check_batch(self, feeds: Mapping[str, np.ndarray]) -> None:
        # Not the engine's failure, for which there would be a fallback.
        for name, array in feeds.items():
            if None in self.inputs[name].shape and len(array) > BATCH.max:
                raise RequestError(
                    f"{self._component}: input {name!r} has a batch of {len(array)}",
                    allowed=f"{BATCH}: what its TensorRT plan is built for "
                    "(guidance counts every picture twice)",
                    fix="ask for fewer pictures at once, or give shapes.batch",
                )
