"""The packages that the export to ONNX needs: looked for, not imported, which takes seconds."""

from importlib.util import find_spec

INSTALL = 'pip install "fastdeploy-diffusion[onnx]"'
NEEDED = ("paddle2onnx", "onnx", "onnx_ir", "onnxscript")


def missing_packages() -> list[str]:
    """Name the packages that the export needs and that are not installed."""
    return [name for name in NEEDED if not is_installed(name)]


def is_installed(name: str) -> bool:
    """Tell whether a module can be found; never raises."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # an import hook hides it
        return False
