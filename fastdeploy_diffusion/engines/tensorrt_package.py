"""The choice between ``tensorrt`` and ``tensorrt_rtx``, which has the same API."""

from typing import Any

from fastdeploy_diffusion.errors import EngineUnavailableError

INSTALL = 'pip install "fastdeploy-diffusion[tensorrt]"'
INSTALL_RTX = 'pip install "fastdeploy-diffusion[tensorrt-rtx]"'


def import_tensorrt(target: str | None) -> Any:
    """Import the package that builds and runs plans.

    Args:
        target: The GPU architecture that a plan is built for, or ``None`` for this machine's own
            GPU. Only ``tensorrt_rtx`` builds for a named one, and only it runs such a plan.

    Raises:
        EngineUnavailableError: It is not installed, or does not load.
    """
    try:
        if target is None:
            try:
                import tensorrt

                return tensorrt
            except ModuleNotFoundError:
                pass
        import tensorrt_rtx

        return tensorrt_rtx
    except Exception as error:  # a broken installation raises what it likes
        what, fix = ("TensorRT", INSTALL) if target is None else ("TensorRT-RTX", INSTALL_RTX)
        raise EngineUnavailableError(f"{what} cannot be imported: {error}", fix=fix) from error


def require_architecture(trt: Any, target: str) -> None:
    """Refuse a GPU architecture that the package does not build for.

    Raises:
        EngineUnavailableError: The message lists those that it builds for.
    """
    known = [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    if target not in known:
        raise EngineUnavailableError(
            f"TensorRT-RTX {trt.__version__} does not build for {target!r}",
            allowed=", ".join(known),
        )


def make_logger(trt: Any) -> Any:
    """Make a logger that keeps the messages of errors in ``errors``, and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Logger()
