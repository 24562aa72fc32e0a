"""Which operators an engine that reads ONNX has beyond those that every one of them has."""

from enum import Enum


class Dialect(Enum):
    """A set of operators."""

    STANDARD = "ONNX"
    """Those of the standard, up to opset 24."""

    MICROSOFT = "ONNX Runtime"
    """Those of the standard, and those of the domain ``com.microsoft`` with kernels for CPUs."""
