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
from fastdeploy_diffusion.precision import FLOATS
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Session

PLAN_FILE = "engine.plan"


class TensorRTEngine(Engine):
    """TensorRT. Its plans are really built, and have not been run on a GPU yet."""

    name: ClassVar[str] = "tensorrt"
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {"gpu": FLOATS}
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
        if spec.target is not None and spec.target != (here := list_gpus()[spec.device.index]):
            return Support(False, f"{spec.device} is {here}, not {spec.target}")
        return super().supports(spec)

    def require_build(self, spec: BuildSpec) -> None:
        """Refuse a spec that cannot be built here; a build for a target needs no GPU."""
        if spec.target is None:
            super().require_build(spec)
            return
        if spec.device.kind not in self.devices:
            raise EngineUnavailableError(self.probe_build(spec.device).reason, fix="device='gpu'")
        if not (support := super().supports(spec)).ok:
            raise EngineUnavailableError(support.reason)
        require_architecture(import_tensorrt(spec.target), spec.target)
        probe_onnx_export().require()

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
