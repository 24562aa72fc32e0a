"""Whether programs can become ONNX here: all engines that read it ask."""

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability
from fastdeploy_diffusion.engines.paddle_devices import probe_paddle

GRAPH_PACKAGES = ("onnx-ir", "onnxscript")
"""What graph passes are applied with."""


def probe_onnx_export() -> Availability:
    """Tell whether Paddle, which makes the graph, and its converter are there; never raises."""
    paddle = probe_paddle(Device("cpu"))
    if not paddle.ok:
        return paddle
    from fastdeploy_diffusion.export.onnx import INSTALL, missing_packages

    if missing := missing_packages():
        names = " and ".join(missing)
        return Availability(
            False, f"{names}, which the export to ONNX needs, cannot be imported", INSTALL
        )
    return Availability(True)
