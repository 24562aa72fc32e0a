"""OpenVINO on the exported ONNX graph: Intel's compiler for CPUs."""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability, BuildSpec, Engine, Support
from fastdeploy_diffusion.engines.onnx_export import probe_onnx_export
from fastdeploy_diffusion.engines.openvino_compiled import (
    export_compiled,
    find_compiled,
    import_compiled,
)
from fastdeploy_diffusion.engines.session import OperatorTime, Session, Shapes, differ_in_batch_only
from fastdeploy_diffusion.export.manifest import GRAPH_FILE, check_manifest
from fastdeploy_diffusion.program import Program

INSTALL = 'pip install "fastdeploy-diffusion[openvino]"'
PROFILED_RUNS = 3
# OpenVINO's name of a precision, and of the instructions that a CPU needs for it.
PRECISIONS: Mapping[str, str] = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}


class OpenVINOEngine(Engine):
    """OpenVINO's CPU plugin, compiled for the shapes that really come."""

    name: ClassVar[str] = "openvino"
    binds_weights: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = (
        "openvino",
        "paddlepaddle",
        "paddlepaddle-gpu",
        "paddle2onnx",
    )

    def probe(self, device: Device) -> Availability:
        """Tell whether OpenVINO and the export are installed; it runs on CPUs."""
        if device.kind != "cpu":
            return Availability(False, f"openvino runs on cpu, not on {device}")
        try:
            import openvino

            openvino.Core()
        except Exception as error:  # a broken installation raises what it likes
            return Availability(False, f"OpenVINO cannot be imported: {error}", INSTALL)
        return probe_onnx_export()

    def supports(self, spec: BuildSpec) -> Support:
        """Float32 everywhere; half precisions where the CPU has the instructions."""
        import openvino

        if spec.precision not in PRECISIONS:
            return Support(False, f"openvino runs {', '.join(PRECISIONS)}, not {spec.precision}")
        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if PRECISIONS[spec.precision] not in capabilities:
            return Support(False, f"this CPU has no instructions for {spec.precision}")
        return Support(True)

    def _build(self, program: Program, spec: BuildSpec, out: Path) -> None:
        from fastdeploy_diffusion.export.onnx import export_onnx

        export_onnx(program, out)

    def _load(self, program: Program, spec: BuildSpec, artifact: Path) -> Session:
        return _OpenVINOSession(self.name, program, spec, artifact)


class _OpenVINOSession(Session):
    def __init__(self, engine: str, program: Program, spec: BuildSpec, artifact: Path) -> None:
        super().__init__(engine, program)
        import openvino

        self._core = openvino.Core()
        self._properties = {
            "INFERENCE_NUM_THREADS": spec.cpu_threads,
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "fp16": "f16"}.get(spec.precision, "bf16"),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        graph, types = (artifact / GRAPH_FILE).read_bytes(), check_manifest(program, artifact)
        # Weights are read when something has to be compiled: what was kept has its own.
        self._read_model = functools.cache(lambda: _read_model(self._core, program, graph, types))
        self._compiled: dict[Shapes, Any] = {}
        self._requests: dict[Shapes, Any] = {}
        self._contents: list[Any] = []
        for shapes, path in find_compiled(artifact):
            compiled, content = import_compiled(self._core, path, self._properties)
            self._compiled[shapes] = compiled
            self._requests[shapes] = compiled.create_infer_request()
            self._contents.append(content)

    def keep(self, artifact: Path) -> None:
        """Write compiled models into the build, each for the shapes of its inputs."""
        with self._lock:
            self._require_open()
            for shapes, compiled in self._compiled.items():
                export_compiled(compiled, shapes, artifact)

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        request = self._compile(tuple(array.shape for array in feeds.values()))
        results = request.infer(dict(feeds), share_inputs=True)
        return {name: results[index] for index, name in enumerate(self.outputs)}

    def _profile(self, feeds: Mapping[str, np.ndarray]) -> Sequence[OperatorTime]:
        # Every compilation holds the weights in a layout of its own: one at a time.
        self._forget()
        shapes = tuple(array.shape for array in feeds.values())
        request = self._compile_model(shapes, {"PERF_COUNT": True}).create_infer_request()
        seconds: dict[tuple[str, str], float] = defaultdict(float)
        request.infer(dict(feeds), share_inputs=True)  # the first run allocates
        for _ in range(PROFILED_RUNS):
            request.infer(dict(feeds), share_inputs=True)
            for each in request.profiling_info:
                if each.status.name == "EXECUTED":
                    seconds[each.node_name, each.node_type] += each.real_time.total_seconds()
        return [OperatorTime(*key, total / PROFILED_RUNS) for key, total in seconds.items()]

    def _close(self) -> None:
        self._forget()
        self._read_model.cache_clear()

    def _forget(self) -> None:
        self._requests.clear()
        self._compiled.clear()
        self._contents.clear()

    def _compile(self, shapes: Shapes) -> Any:
        """Compile for static shapes, which run several times as fast as free ones; once each."""
        if shapes not in self._requests:
            # Every compilation holds the weights in a layout of its own: one size at a time.
            if not all(differ_in_batch_only(shapes, others) for others in self._requests):
                self._forget()
            self._compiled[shapes] = self._compile_model(shapes, {})
            self._requests[shapes] = self._compiled[shapes].create_infer_request()
        return self._requests[shapes]

    def _compile_model(self, shapes: Shapes, properties: Mapping[str, Any]) -> Any:
        model = self._read_model().clone()  # the weights are shared
        model.reshape(dict(zip(self.inputs, shapes, strict=True)))
        return self._core.compile_model(model, "CPU", {**self._properties, **properties})


def _read_model(core: Any, program: Program, graph: bytes, types: Mapping[str, str]) -> Any:
    """Read the graph and put constants, on the layer's own memory, in the place of its weights."""
    import openvino

    from fastdeploy_diffusion.export.weights import read_weights

    weights = read_weights(program, types)
    model = core.read_model(graph)
    for parameter in model.get_parameters():
        name = parameter.get_friendly_name()
        if name in weights:
            # OpenVINO only reads it, but shares no memory that it could not write.
            shared = weights[name].view()
            shared.flags.writeable = True
            constant = openvino.op.Constant(shared, shared_memory=True)
            parameter.output(0).replace(constant.output(0))
            model.remove_parameter(parameter)
    return model
