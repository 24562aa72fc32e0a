"""Which devices the installed Paddle can use: all Paddle engines ask here."""

from typing import Any

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability

PACKAGE_INDEX = "https://www.paddlepaddle.org.cn/packages/stable"
INSTALL_CPU = 'pip install "paddlepaddle>=3.3.1,<4"'
INSTALL_GPU = (
    f"pip install paddlepaddle-gpu -i {PACKAGE_INDEX}/cu126/ "
    "(cu118, cu129, cu130 for other CUDA versions; uninstall paddlepaddle first)"
)
INSTALL_XPU = (
    f"pip install paddlepaddle-xpu -i {PACKAGE_INDEX}/xpu-p800/ (uninstall paddlepaddle first)"
)


def probe_paddle(device: Device, *, needs_cinn: bool = False) -> Availability:
    """Tell whether Paddle is installed, built for the device, and sees it; never raises.

    Paddle itself must be asked before: ``enable_use_gpu`` on a CPU build runs on the CPU without
    a word.

    Args:
        needs_cinn: Whether Paddle must be built with its compiler CINN. Only GPU wheels of Paddle's
            own index are; without it, ``to_static(backend="CINN")`` runs as if nothing was asked.

    Returns:
        If not, with the reason and the pip command that helps.
    """
    try:
        from fastdeploy_diffusion.paddle_runtime import paddle
    except Exception as error:  # a broken installation raises OSError and worse
        return Availability(False, f"Paddle cannot be imported: {error}", INSTALL_CPU)
    try:
        if needs_cinn and not paddle.is_compiled_with_cinn():
            reason = f"the installed Paddle {paddle.__version__} is built without CINN"
            return Availability(False, reason, INSTALL_GPU)
        return _probe_device(paddle, device)
    except Exception as error:  # as drivers do, too
        reason = f"{type(error).__name__}: {error}"
        return Availability(False, f"Paddle failed when asked for {device}: {reason}")


def _probe_device(paddle: Any, device: Device) -> Availability:
    if device.kind == "cpu":
        return Availability(True)
    if device.kind == "gpu":
        built, install, name = paddle.is_compiled_with_cuda(), INSTALL_GPU, "CUDA"
    else:
        built, install, name = paddle.is_compiled_with_xpu(), INSTALL_XPU, "XPU support"
    if not built:
        reason = f"the installed Paddle {paddle.__version__} is built without {name}"
        return Availability(False, reason, install)
    found = (
        paddle.device.cuda.device_count()
        if device.kind == "gpu"
        else paddle.device.xpu.device_count()
    )
    if device.index >= found:
        return Availability(False, f"there is no {device}: Paddle sees {found} {device.kind}(s)")
    return Availability(True)
