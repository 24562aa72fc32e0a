"""CUDA calls are made as cuda-python wants them, and what fails is named."""

import numpy as np
import pytest

from fastdeploy_diffusion.engines.nvidia_driver import list_gpus
from fastdeploy_diffusion.engines.tensorrt_cuda import DeviceBuffer, call, use_device
from fastdeploy_diffusion.errors import EngineError

runtime = pytest.importorskip(
    "cuda.bindings.runtime", reason="cuda-python is not installed: pip install cuda-python"
)

GPUS = list_gpus()
CAPTURE = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
NO_STREAM, NO_GRAPH = runtime.cudaStream_t(), runtime.cudaGraph_t()
# Every other function that sessions call, with arguments of the kinds that they give.
CALLS = [
    ("cudaStreamCreate",),
    ("cudaStreamSynchronize", NO_STREAM),
    ("cudaStreamDestroy", NO_STREAM),
    ("cudaStreamBeginCapture", NO_STREAM, CAPTURE),
    ("cudaStreamEndCapture", NO_STREAM),
    ("cudaGraphInstantiate", NO_GRAPH, 0),
    ("cudaGraphLaunch", runtime.cudaGraphExec_t(), NO_STREAM),
    ("cudaGraphDestroy", NO_GRAPH),
    ("cudaGraphExecDestroy", runtime.cudaGraphExec_t()),
    ("cudaMemcpyAsync", 1024, 1024, 4, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, NO_STREAM),
    ("cudaFree", 1024),
]
without_gpu = pytest.mark.skipif(bool(GPUS), reason="this machine has an NVIDIA GPU")


def assert_no_driver(action):
    # Before 13, cuda-python raises an error of its own where there is no driver.
    with pytest.raises((EngineError, RuntimeError), match=r"failed: cudaError|cuInit|libcuda"):
        action()


@without_gpu
@pytest.mark.parametrize(("name", "arguments"), [(each[0], each[1:]) for each in CALLS])
def test_a_call_fails_for_the_missing_driver_and_nothing_else(name, arguments):
    assert_no_driver(lambda: call(getattr(runtime, name), *arguments))


@without_gpu
def test_devices_and_memory_fail_for_the_missing_driver_and_nothing_else():
    assert_no_driver(lambda: use_device(0))
    assert_no_driver(lambda: DeviceBuffer(16))


@pytest.mark.gpu
@pytest.mark.skipif(not GPUS, reason="this machine has no NVIDIA GPU")
def test_arrays_come_back_from_the_device():
    use_device(0)
    stream = call(runtime.cudaStreamCreate)
    buffer = DeviceBuffer(40)
    given, found = np.arange(10, dtype=np.float32), np.zeros(10, np.float32)
    buffer.upload(given, stream)
    buffer.download(found, stream)
    call(runtime.cudaStreamSynchronize, stream)
    np.testing.assert_array_equal(found, given)
    buffer.close()
    call(runtime.cudaStreamDestroy, stream)
