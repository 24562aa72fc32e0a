"""OpenVINO on the exported ONNX graph: Intel's compiler for CPUs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability, BuildSpec, Engine, PayingPasses, Support
from fastdeploy_diffusion.engines.onnx_export import EXPORT_PACKAGES, probe_onnx_export
from fastdeploy_diffusion.engines.openvino_attention import add_operators, narrow_attention
from fastdeploy_diffusion.engines.openvino_exact import keep_exact
from fastdeploy_diffusion.engines.openvino_linears import prefer_onednn
from fastdeploy_diffusion.engines.openvino_model import OpenVINOModel, read_model
from fastdeploy_diffusion.machine import multiplies_bf16_slowly
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.precision import INT8_WEIGHTS, PRECISIONS
from fastdeploy_diffusion.runtime.program import Program, fill_shapes
from fastdeploy_diffusion.runtime.session import OperatorTime, Session, Shapes, differ_in_batch_only

INSTALL = 'pip install "fastdeploy-diffusion[openvino]"'
PROFILED_RUNS = 3
_SMALLEST_FOR_WINOGRAD = 32 * 32  # latents of a denoiser
_WINOGRAD = ("merge-qkv", "winograd-4x4", "winograd-2x2", "channels-last")
_INT8_DECODER_PASSES = ("phase-upsample", "channel-group-norm", "resize-nearest")
_BF16_PASSES = ("phase-upsample", "hoist-invariants", "channel-group-norm", "resize-nearest")
# With VNNI, OpenVINO rounds what matrix products with weights in int8 read as it runs, with a scale
# for each row and so many of its numbers; it divides the widths of all networks here. Fewer are
# slower, more are less exact. Other CPUs multiply numbers in floating point.
DYNAMIC_GROUP = 64
KEPT_BATCHES = 4  # with and without guidance, full and last batches of a sequence of pictures


class OpenVINOEngine(Engine):
    """OpenVINO's CPU plugin, compiled for the shapes that it is fed."""

    name: ClassVar[str] = "openvino"
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {"cpu": tuple(PRECISIONS)}
    builder: ClassVar[str] = "fastdeploy_diffusion.engines.openvino_builder"
    binds_weights: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    can_be_observed: ClassVar[bool] = True
    keeps_rows_apart: ClassVar[bool] = True
    dialect: ClassVar[Dialect] = Dialect.STANDARD
    native_adapter: ClassVar[str] = "openvino_attention.cpp"
    native_runtimes: ClassVar[tuple[str, ...]] = ("openvino",)
    artifact_depends_on: ClassVar[frozenset[str]] = frozenset()
    packages: ClassVar[tuple[str, ...]] = EXPORT_PACKAGES
    runtimes: ClassVar[tuple[str, ...]] = ("openvino",)
    held_features: ClassVar[float] = 1.2
    paying_passes: ClassVar[tuple[PayingPasses, ...]] = (
        PayingPasses(
            "fp32",
            _WINOGRAD,
            role="vae",
            pixels=_SMALLEST_FOR_WINOGRAD,
            close=("native-attention",),
        ),
        PayingPasses(
            "fp32",
            ("phase-upsample",),
            role="vae",
            pixels=1,  # of open sizes, they are not known
            # Its sums over many pixels can be beyond the proof's tolerance in float32.
            close=("channel-group-norm", "native-attention"),
        ),
        PayingPasses(
            "fp32",
            (*_WINOGRAD, "hoist-invariants"),
            pixels=_SMALLEST_FOR_WINOGRAD,
            close=("native-attention",),
        ),
        PayingPasses("fp32", ("merge-qkv", "hoist-invariants"), close=("native-attention",)),
        PayingPasses(
            "bf16",
            (*_BF16_PASSES, "native-attention"),
            instructions="amx_bf16",
            close=("split-geglu",),
        ),
        PayingPasses(
            "bf16", (*_BF16_PASSES, "native-attention"), where_slow=True, close=("split-geglu",)
        ),
        PayingPasses("bf16", _BF16_PASSES, close=("split-geglu",)),
        PayingPasses("int8", _INT8_DECODER_PASSES, role="vae", close=("native-attention",)),
        PayingPasses("int8", (*_BF16_PASSES, "native-attention"), role="denoiser"),
    )

    def _probe_run(self, device: Device) -> Availability:
        try:
            import openvino

            openvino.Core()
        except Exception as error:  # a broken installation raises what it likes
            return Availability(False, f"OpenVINO cannot be imported: {error}", INSTALL)
        return Availability(True)

    def _probe_build(self, device: Device) -> Availability:
        return probe_onnx_export()

    def supports(self, spec: BuildSpec) -> Support:
        """Tell what it supports: what the CPU has instructions for, and weights in int8."""
        support = super().supports(spec)
        if spec.precision == INT8_WEIGHTS:
            return support
        if support.ok and spec.precision.upper() not in read_capabilities():
            return Support(False, f"this CPU has no instructions for {spec.precision}")
        if support.ok and spec.precision == "bf16" and multiplies_bf16_slowly():
            return replace(support, slower="this CPU multiplies bf16 more slowly than fp32")
        return support

    def _load(self, program: Program, spec: BuildSpec, artifact: Path) -> Session:
        return _OpenVINOSession(self.name, program, spec, artifact)


class _OpenVINOSession(Session):
    def __init__(self, engine: str, program: Program, spec: BuildSpec, artifact: Path) -> None:
        super().__init__(engine, program)
        import openvino

        self._core = openvino.Core()
        add_operators(self._core, program, artifact)
        self._properties = {
            "INFERENCE_NUM_THREADS": spec.cpu_threads,
            "INFERENCE_PRECISION_HINT": _choose_float(spec.precision),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if spec.precision == INT8_WEIGHTS:
            self._properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = DYNAMIC_GROUP
        self._model: OpenVINOModel | None = read_model(self._core, program, artifact)
        self._requests: dict[Shapes, Any] = {}  # the one used last at the end

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        request = self._find_request(tuple(array.shape for array in feeds.values()))
        results = request.infer(_share(feeds), share_inputs=True)
        return {name: results[index] for index, name in enumerate(self.outputs)}

    def _profile(self, feeds: Mapping[str, np.ndarray]) -> Sequence[OperatorTime]:
        # Every compilation holds the weights in a layout of its own: one at a time.
        self._requests.clear()
        shapes = tuple(array.shape for array in feeds.values())
        request = self._compile_model(shapes, {"PERF_COUNT": True}).create_infer_request()
        seconds: dict[tuple[str, str], float] = defaultdict(float)
        request.infer(_share(feeds), share_inputs=True)  # the first run allocates
        for _ in range(PROFILED_RUNS):
            request.infer(_share(feeds), share_inputs=True)
            for each in request.profiling_info:
                if each.status.name == "EXECUTED":
                    seconds[each.node_name, each.node_type] += each.real_time.total_seconds()
        return [OperatorTime(*key, total / PROFILED_RUNS) for key, total in seconds.items()]

    def _close(self) -> None:
        self._requests.clear()
        self._model = None

    def _compile(self, sizes: Mapping[str, int]) -> None:
        self._find_request(tuple(fill_shapes(tuple(self.inputs.values()), sizes).values()))

    def _find_request(self, shapes: Shapes) -> Any:
        """Compile for static shapes, which run several times as fast as free ones; once each."""
        request = self._requests.pop(shapes, None)
        if request is None:
            # Every compilation holds the weights in a layout of its own: one size at a time.
            if not all(differ_in_batch_only(shapes, others) for others in self._requests):
                self._requests.clear()
            while len(self._requests) >= KEPT_BATCHES:
                del self._requests[next(iter(self._requests))]
            request = self._compile_model(shapes, {}).create_infer_request()
        self._requests[shapes] = request
        return request

    def _compile_model(self, shapes: Shapes, properties: Mapping[str, Any]) -> Any:
        assert self._model is not None  # a closed session runs no more
        model = self._model.model.clone()  # the weights are shared
        model.reshape(dict(zip(self.inputs, shapes, strict=True)))
        if self._properties["INFERENCE_PRECISION_HINT"] == "f32":
            prefer_onednn(model)
        else:
            keep_exact(model)
        if self._properties["INFERENCE_PRECISION_HINT"] == "bf16":
            narrow_attention(model)
        with self._model.give_back_pages():
            return self._core.compile_model(model, "CPU", {**self._properties, **properties})


def _choose_float(precision: str) -> str:
    """Choose the floating-point type, as OpenVINO writes it, of what is not quantized."""
    if PRECISIONS[precision].is_quantized:
        has_fast = "BF16" in read_capabilities() and not multiplies_bf16_slowly()
        return "bf16" if has_fast else "f32"
    return {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[precision]


def read_capabilities() -> list[str]:
    """Name the precisions that the CPU has instructions for, as OpenVINO writes them."""
    import openvino

    return list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _share(feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Share arrays with OpenVINO without a copy, bfloat16 too, which numpy does not have."""
    import openvino

    return {
        name: openvino.Tensor(array.view(np.uint16), array.shape, openvino.Type.bf16)
        if array.dtype.name == "bfloat16"
        else array
        for name, array in feeds.items()
    }
