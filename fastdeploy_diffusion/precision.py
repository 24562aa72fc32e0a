"""The precisions that networks are built in; each engine declares which it supports, and where."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fastdeploy_diffusion.criteria import Criterion, LargestError, RoundingError

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


INT8 = "int8"
"""Weights and what layers read in eight bits."""
INT8_WEIGHTS = "int8-weights"
"""Weights alone in eight bits."""


@dataclass(frozen=True)
class Precision:
    """The types that a network computes in.

    Args:
        name: In configurations and reports.
        weights: The type in which an engine holds weights, of quantized layers if some are.
        activations: The smallest type of values between operators that are not quantized: in int8,
            they have the best half precision of the machine, or float32 where there is none.
        criterion: What the proof of a build asks of its outputs.
        safer: Its fallbacks where a component fails in it, the next safer one first.
    """

    name: str
    weights: str
    activations: str
    criterion: Criterion
    safer: tuple[str, ...] = ()

    @property
    def is_quantized(self) -> bool:
        """Whether layers are quantized, which changes pictures: it is only taken if asked for."""
        return self.weights == "int8"

    @property
    def weight_bytes(self) -> int:
        """Of one weight."""
        return _BYTES[self.weights]

    @property
    def activation_bytes(self) -> int:
        """Of one number between operators."""
        return _BYTES[self.activations]


PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        each.name: each
        for each in (
            Precision("fp32", "float32", "float32", LargestError(1e-4)),
            # bf16 has the range of float32.
            Precision("fp16", "float16", "float16", RoundingError("float16"), ("bf16", "fp32")),
            Precision("bf16", "bfloat16", "bfloat16", RoundingError("bfloat16"), ("fp32",)),
            # Of the engine's numbers. What pictures lose is measured on pictures.
            Precision(INT8, "int8", "bfloat16", LargestError(0.25), ("bf16", "fp32")),
            Precision(INT8_WEIGHTS, "int8", "bfloat16", LargestError(0.25), ("bf16", "fp32")),
        )
    }
)
FLOATS: tuple[str, ...] = tuple(name for name, each in PRECISIONS.items() if not each.is_quantized)
"""Names of those in which nothing is quantized."""
# Other names for them.
PRECISION_SYNONYMS: Mapping[str, str] = MappingProxyType(
    {"float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
)


def is_quantized(precision: str) -> bool:
    """Tell whether something is in int8 in a precision; not in ``"auto"``."""
    return precision in PRECISIONS and PRECISIONS[precision].is_quantized
