"""A plan at fixed shapes: its context, its memory on the device, and its CUDA graph, all kept."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastdeploy_diffusion.engines.tensorrt_cuda import DeviceBuffer, call
from fastdeploy_diffusion.errors import EngineError


class ShapedExecution:
    """Runs a plan at the shapes of one set of inputs. Made and used on the plan's device.

    A captured graph holds for one context, one set of shapes and the memory that it was captured
    with, so that each execution has its own.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        stream: The stream that all of its work is queued on.
        inputs: Every input, of the shapes and types that all later ones will have.
        outputs: Types of the outputs by name.

    Raises:
        EngineError: The plan is not built for such shapes, or the device has no memory left.
    """

    def __init__(
        self,
        trt: Any,
        engine: Any,
        stream: Any,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.dtype[Any]],
    ) -> None:
        self._stream = stream
        self._graph: Any = None
        self._buffers: list[DeviceBuffer] = []
        self._context = _create_context(trt, engine)
        if self._context is None:
            raise EngineError("TensorRT could not make a context for the plan")
        try:
            for name, array in inputs.items():
                if not self._context.set_input_shape(name, array.shape):
                    raise EngineError(f"the plan is not built for {name!r} of {array.shape}")
            # Only what these shapes need: on its own, a context takes what the largest would.
            scratch = self._allocate(self._context.update_device_memory_size_for_shapes())
            self._context.set_device_memory(scratch.address, scratch.size)
            self._inputs = {name: self._place(name, each.nbytes) for name, each in inputs.items()}
            self._outputs = {name: self._place_output(name, each) for name, each in outputs.items()}
        except BaseException:
            self.close()
            raise
        # The array last copied to an input, if it never changes.
        self._held: dict[str, np.ndarray] = {}

    def run(
        self, feeds: Mapping[str, np.ndarray], unchanged: frozenset[str]
    ) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            feeds: Every input; no array may change during the run.
            unchanged: Inputs whose arrays never change, so that they are uploaded once.

        Returns:
            The outputs by name, in memory of their own.

        Raises:
            EngineError: CUDA or TensorRT fails.
        """
        from cuda.bindings import runtime

        read = []  # until the stream is done
        for name, array in feeds.items():
            if name in unchanged and self._held.get(name) is array:
                continue
            read.append(np.asarray(array, order="C"))
            self._inputs[name].upload(read[-1], self._stream)
        self._held = {name: feeds[name] for name in unchanged}
        self._launch()
        results = {}
        for name, (buffer, shape, dtype) in self._outputs.items():
            results[name] = np.empty(shape, dtype)
            buffer.download(results[name], self._stream)
        call(runtime.cudaStreamSynchronize, self._stream)
        return results

    def close(self) -> None:
        """Free the graph, the context and the memory; called once."""
        from cuda.bindings import runtime

        if self._graph is not None:
            call(runtime.cudaGraphExecDestroy, self._graph)
        self._context = None
        for buffer in self._buffers:
            buffer.close()
        self._buffers.clear()

    def _allocate(self, size: int) -> DeviceBuffer:
        self._buffers.append(DeviceBuffer(max(size, 1)))  # CUDA gives no address for nothing
        return self._buffers[-1]

    def _place(self, name: str, size: int) -> DeviceBuffer:
        buffer = self._allocate(size)
        self._context.set_tensor_address(name, buffer.address)
        return buffer

    def _place_output(
        self, name: str, dtype: np.dtype[Any]
    ) -> tuple[DeviceBuffer, tuple[int, ...], np.dtype[Any]]:
        shape = tuple(self._context.get_tensor_shape(name))
        return self._place(name, math.prod(shape) * dtype.itemsize), shape, dtype

    def _launch(self) -> None:
        from cuda.bindings import runtime

        if self._graph is not None:
            call(runtime.cudaGraphLaunch, self._graph, self._stream)
            return
        # The first run settles what TensorRT has put off, which a capture could not; it gives
        # this call's results. Capturing runs nothing, and serves the calls to come.
        self._enqueue()
        call(runtime.cudaStreamSynchronize, self._stream)
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(runtime.cudaStreamBeginCapture, self._stream, mode)
        try:
            self._enqueue()
        finally:
            captured = call(runtime.cudaStreamEndCapture, self._stream)
        self._graph = call(runtime.cudaGraphInstantiate, captured, 0)
        call(runtime.cudaGraphDestroy, captured)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError("TensorRT could not queue the run")


def _create_context(trt: Any, engine: Any) -> Any:
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        return engine.create_execution_context(strategy)
    # TensorRT-RTX compiles kernels for the shapes that come. By default it does so in the
    # background, and a graph captured meanwhile would keep the slow kernels for ever.
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(strategy)
    config.dynamic_shapes_kernel_specialization_strategy = (
        trt.DynamicShapesKernelSpecializationStrategy.EAGER
    )
    return engine.create_execution_context(config)
