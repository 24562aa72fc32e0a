"""The sets of operators of engines that read ONNX."""

from enum import Enum


class Dialect(Enum):
    """A set of operators."""

    STANDARD = "ONNX"
    """The standard's, up to opset 24."""

    MICROSOFT = "ONNX Runtime"
    """The standard's, and those of the domain ``com.microsoft`` with kernels for CPUs."""
