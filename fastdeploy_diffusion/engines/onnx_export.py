"""Whether the export to ONNX works here, for all engines that read it."""

from fastdeploy_diffusion.engines.base import Availability
from fastdeploy_diffusion.engines.paddle_devices import INSTALL_CPU
from fastdeploy_diffusion.onnx_packages import INSTALL, is_installed, missing_packages

EXPORT_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddle2onnx", "onnx-ir", "onnxscript")
"""The distributions that an exported graph depends on."""


def probe_onnx_export() -> Availability:
    """Tell whether Paddle, which traces networks, and its converter are there; never raises."""
    if not is_installed("paddle"):
        reason = "Paddle cannot be imported, and the export to ONNX begins with it"
        return Availability(False, reason, INSTALL_CPU)
    if missing := missing_packages():
        reason = f"{' and '.join(missing)}, which the export to ONNX needs, cannot be imported"
        return Availability(False, reason, INSTALL)
    return Availability(True)
