"""TensorRT, or TensorRT-RTX, on the exported ONNX graph: NVIDIA's compiler for its GPUs."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability, BuildSpec, Engine, Support
from fastdeploy_diffusion.engines.nvidia_driver import list_gpus
from fastdeploy_diffusion.engines.onnx_export import EXPORT_PACKAGES, probe_onnx_export
from fastdeploy_diffusion.engines.tensorrt_package import (
    INSTALL,
    import_tensorrt,
    require_architecture,
)
from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Session

PLAN_FILE = "engine.plan"
UNQUANTIZED = "bf16"
"""The precision of layers that stay in floating point in a build in int8."""
# The first architecture that has bf16, and computes convolutions in int8.
_FIRST_INT8 = 80


class TensorRTEngine(Engine):
    """TensorRT. Its plans are really built, and have not been run on a GPU yet."""

    name: ClassVar[str] = "tensorrt"
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {"gpu": tuple(PRECISIONS)}
    builder: ClassVar[str] = "fastdeploy_diffusion.engines.tensorrt_builder"
    binds_weights: ClassVar[bool] = True
    dialect: ClassVar[Dialect] = Dialect.STANDARD
    # The wheels' own names too: some are installed without the package that names them all.
    packages: ClassVar[tuple[str, ...]] = (
        *("tensorrt", "tensorrt_cu12_bindings", "tensorrt_cu13_bindings"),
        *("tensorrt_rtx", "tensorrt_rtx_cu12_bindings", "tensorrt_rtx_cu13_bindings"),
        *EXPORT_PACKAGES,
    )

    def _probe_run(self, device: Device) -> Availability:
        gpus = list_gpus()
        if not gpus:
            return Availability(False, "this machine has no NVIDIA GPU")
        if device.index >= len(gpus):
            return Availability(False, f"there is no {device}: the driver sees {len(gpus)} GPU(s)")
        if not (package := _probe_package()).ok:
            return package
        try:
            from cuda.bindings import runtime  # noqa: F401
        except Exception as error:  # a broken installation raises what it likes
            return Availability(False, f"cuda-python cannot be imported: {error}", INSTALL)
        return Availability(True)

    def _probe_build(self, device: Device) -> Availability:
        package = _probe_package()
        return probe_onnx_export() if package.ok else package

    def supports(self, spec: BuildSpec) -> Support:
        """Tell what it supports: every precision; a plan for an architecture needs such a GPU."""
        here = next(iter(list_gpus()[spec.device.index :]), "missing")
        if spec.target is not None and spec.target != here:
            return Support(False, f"{spec.device} is {here}, not {spec.target}")
        return self._supports_precision(spec)

    def require_build(self, spec: BuildSpec) -> None:
        """Refuse a spec that cannot be built here; a build for a target needs no GPU."""
        if spec.target is None:
            super().require_build(spec)
            return
        if spec.device.kind not in self.devices:
            raise EngineUnavailableError(self.probe_build(spec.device).reason, fix="device='gpu'")
        require_architecture(import_tensorrt(spec.target), spec.target)
        if not (support := self._supports_precision(spec)).ok:
            raise EngineUnavailableError(support.reason)
        probe_onnx_export().require()

    def _supports_precision(self, spec: BuildSpec) -> Support:
        support = super().supports(spec)
        if support.ok and PRECISIONS[spec.precision].is_quantized:
            gpu = spec.target or list_gpus()[spec.device.index]
            if int(gpu.removeprefix("sm")) < _FIRST_INT8:
                reason = (
                    f"{self.name} runs {spec.precision} on GPUs from sm{_FIRST_INT8}, which have "
                    f"{UNQUANTIZED} for the rest, not on {gpu}: take fp16"
                )
                return Support(False, reason)
        return support

    def _load(self, program: Program, spec: BuildSpec, artifact: Path) -> Session:
        from fastdeploy_diffusion.engines.tensorrt_session import TensorRTSession

        check_manifest(program, artifact)
        trt = import_tensorrt(spec.target)
        return TensorRTSession(self.name, program, trt, artifact / PLAN_FILE, spec.device.index)


def _probe_package() -> Availability:
    try:
        import_tensorrt(None)
    except EngineUnavailableError as error:
        return Availability(False, error.problem, error.fix)
    return Availability(True)
