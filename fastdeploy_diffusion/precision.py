"""The precisions that networks are built in; each engine declares which it supports, and where."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Precision:
    """The types that a network computes in.

    Args:
        name: In configurations and reports.
        weights: The type in which an engine holds weights.
        activations: The type of values between operators.
        tolerance: Largest relative error that the proof of a build allows.
        safer: Its fallbacks where a component fails in it, the next safer one first.
    """

    name: str
    weights: str
    activations: str
    tolerance: float
    safer: tuple[str, ...] = ()

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
            Precision("fp32", "float32", "float32", 1e-4),
            # bf16 has the range of float32.
            Precision("fp16", "float16", "float16", 2e-2, ("bf16", "fp32")),
            Precision("bf16", "bfloat16", "bfloat16", 2e-2, ("fp32",)),
        )
    }
)
# Other names for them.
PRECISION_SYNONYMS: Mapping[str, str] = MappingProxyType(
    {"float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
)
