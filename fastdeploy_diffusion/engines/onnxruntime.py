"""ONNX Runtime on the exported ONNX graph: CPUs, and NVIDIA GPUs with its GPU wheel.

Few of its CPU kernels compute in half precision. Given a half-precision graph, it runs the others
in float32 and leaves out the rounding in between, so that nothing overflows that would on a GPU,
and folds the weights to float32. So on CPUs the rounding is part of the graph, and the weights stay
as they are bound.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability, BuildSpec, Engine, PayingPasses, Support
from fastdeploy_diffusion.engines.onnx_export import EXPORT_PACKAGES, probe_onnx_export
from fastdeploy_diffusion.native.library import load_library
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.precision import FLOATS, INT8
from fastdeploy_diffusion.runtime.manifest import GRAPH_FILE, check_manifest
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import OperatorTime, Session

INSTALL = 'pip install "fastdeploy-diffusion[onnx]"'
INSTALL_GPU = "pip uninstall onnxruntime && pip install onnxruntime-gpu"
PROFILED_RUNS = 3
KERNEL_TIME = "_kernel_time"  # ends the names of kernels in its traces
# On CPUs, rounded between operators in float32.
HALVES = ("fp16", "bf16")
PROVIDERS: Mapping[str, str] = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}
# ONNX Runtime's names of devices.
DEVICES: Mapping[str, str] = {"cpu": "cpu", "gpu": "cuda"}
# By default products of float32 have 10 bits on newer GPUs, and memory is taken in powers of two.
# How it looks for convolutions stays: it tries them all, once for each shape.
CUDA_OPTIONS: Mapping[str, str] = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}

# ONNX's number of the type.
BFLOAT16 = 16
# On CPUs these would turn weights in half precision into constants in float32.
WEIGHT_WIDENERS = ("ConstantFolding", "FuseFp16InitializerToFp32NodeTransformer")


class ONNXRuntimeEngine(Engine):
    """ONNX Runtime. Its CUDA side follows its documentation: not run on a GPU yet."""

    name: ClassVar[str] = "onnxruntime"
    # The convolutions of the opset that Paddle2ONNX writes take no bf16.
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cpu": (*FLOATS, INT8),
        "gpu": ("fp32", "fp16"),
    }
    builder: ClassVar[str] = "fastdeploy_diffusion.engines.onnxruntime_builder"
    binds_weights: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    can_be_observed: ClassVar[bool] = True
    keeps_rows_apart: ClassVar[bool] = True
    dialect: ClassVar[Dialect] = Dialect.MICROSOFT
    native_adapter: ClassVar[str] = "onnxruntime_attention.cpp"
    artifact_depends_on: ClassVar[frozenset[str]] = frozenset({"kind", "precision"})
    packages: ClassVar[tuple[str, ...]] = EXPORT_PACKAGES
    runtimes: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu")
    held_features: ClassVar[float] = 1.3
    paying_passes: ClassVar[tuple[PayingPasses, ...]] = (
        PayingPasses("fp32", ("fuse-attention",), close=("native-attention",)),
    )

    def _probe_run(self, device: Device) -> Availability:
        try:
            import onnxruntime

            providers = onnxruntime.get_available_providers()
        except Exception as error:  # a broken installation raises what it likes
            return Availability(False, f"ONNX Runtime cannot be imported: {error}", INSTALL)
        if PROVIDERS[device.kind] not in providers:
            reason = f"the installed ONNX Runtime {onnxruntime.__version__} is built without CUDA"
            return Availability(False, reason, INSTALL_GPU)
        return Availability(True)

    def _probe_build(self, device: Device) -> Availability:
        return probe_onnx_export()

    def supports(self, spec: BuildSpec) -> Support:
        """Tell what it supports: on CPUs, half precision is float32 arithmetic with rounding."""
        rounds = spec.device.kind == "cpu" and spec.precision in HALVES
        slower = f"{self.name} computes in fp32 and rounds to {spec.precision}" if rounds else ""
        return replace(super().supports(spec), slower=slower)

    def _load(self, program: Program, spec: BuildSpec, artifact: Path) -> Session:
        return _ONNXRuntimeSession(self.name, program, spec, artifact)


class _ONNXRuntimeSession(Session):
    def __init__(self, engine: str, program: Program, spec: BuildSpec, artifact: Path) -> None:
        super().__init__(engine, program)
        self._reopen = partial(_open, program, spec, artifact)
        self._runtime = self._reopen()
        self._binding = self._runtime.io_binding()
        self._place = (DEVICES[spec.device.kind], spec.device.index)
        self._held: dict[str, np.ndarray] = {}

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        # ONNX Runtime borrows their memory, and up to 1.23 lets it be freed before the run.
        arrays = {name: np.asarray(array, order="C") for name, array in feeds.items()}
        for name, array in arrays.items():
            # Bound arrays are the session's own and never change: they stay on the device.
            if name in self._bound and self._held.get(name) is array:
                continue
            self._binding.bind_ortvalue_input(name, _wrap(array, *self._place))
        self._held = {name: arrays[name] for name in self._bound}
        # Bound anew for each run: otherwise they keep the shapes of the last one.
        for name in self.outputs:
            self._binding.bind_output(name, "cpu")
        self._binding.synchronize_inputs()
        self._runtime.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return dict(zip(self.outputs, self._binding.copy_outputs_to_cpu(), strict=True))

    def _profile(self, feeds: Mapping[str, np.ndarray]) -> Sequence[OperatorTime]:
        with tempfile.TemporaryDirectory(prefix="fastdeploy-diffusion-") as folder:
            runtime = self._reopen(trace=Path(folder) / "trace")
            for _ in range(PROFILED_RUNS + 1):
                runtime.run(list(self.outputs), dict(feeds))
            return _read_profile(Path(runtime.end_profiling()))

    def _close(self) -> None:
        self._held.clear()
        self._binding = self._runtime = None


def _open(program: Program, spec: BuildSpec, artifact: Path, trace: Path | None = None) -> Any:
    import onnxruntime

    from fastdeploy_diffusion.runtime.weights import read_weights

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.cpu_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    if library := load_library(program, artifact):
        options.register_custom_ops_library(str(library))
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    weights = {
        name: _wrap(value)
        for name, value in read_weights(program, check_manifest(program, artifact)).items()
    }
    options.add_external_initializers(list(weights), list(weights.values()))
    graph = str(artifact / GRAPH_FILE)
    rounds = spec.device.kind == "cpu" and spec.precision in HALVES
    session = onnxruntime.InferenceSession(
        graph,
        options,
        providers=[_choose_provider(spec.device)],
        disabled_optimizers=WEIGHT_WIDENERS if rounds else (),
    )
    # A GPU that fails to start leaves the session on the CPU, with nothing but a log line.
    if session.get_providers()[0] != PROVIDERS[spec.device.kind]:
        raise RuntimeError(f"it fell back to {session.get_providers()[0]}")
    return session


def _choose_provider(device: Device) -> tuple[str, dict[str, str]]:
    options = {"device_id": str(device.index), **CUDA_OPTIONS} if device.kind == "gpu" else {}
    return PROVIDERS[device.kind], options


def _wrap(array: np.ndarray, device: str = "cpu", index: int = 0) -> Any:
    import onnxruntime

    if array.dtype.name != "bfloat16":
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, device, index)
    wrap = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
    return wrap(array.view(np.uint16), BFLOAT16)


def _read_profile(path: Path) -> list[OperatorTime]:
    """Average each operator's time over a trace's runs, without the first, which allocates."""
    events = json.loads(path.read_text(encoding="utf-8"))
    starts = sorted(each["ts"] for each in events if each["name"] == "model_run")
    totals: dict[tuple[str, str], float] = defaultdict(float)
    for each in events:
        if each["cat"] == "Node" and each["name"].endswith(KERNEL_TIME) and each["ts"] >= starts[1]:
            name = each["name"].removesuffix(KERNEL_TIME)
            totals[name, each["args"]["op_name"]] += each["dur"] / 1e6
    return [OperatorTime(*key, total / (len(starts) - 1)) for key, total in totals.items()]
