"""Criteria of proofs: how far an engine's outputs may be from those of the Paddle layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np


@dataclass(frozen=True)
class Accuracy:
    """How far outputs are from those of the Paddle float32 layer, as a criterion measures it.

    Args:
        relative_error: A share of the layer's output: of its largest value or root mean square.
        tolerance: The largest error allowed.
        rounding_error: The error of the layer itself, rounded to the precision; ``None`` if the
            criterion does not ask for it.
    """

    relative_error: float
    tolerance: float
    rounding_error: float | None = None

    @property
    def share(self) -> float:
        """The error as a share of the tolerance; infinite if the error is not a number."""
        share = self.relative_error / self.tolerance if self.tolerance else np.inf
        return float(np.nan_to_num(share, nan=np.inf))


class Verdict(NamedTuple):
    """An accuracy, and why it is refused; empty if it is not."""

    accuracy: Accuracy
    problem: str


class Criterion(ABC):
    """Judges an output of an engine.

    Attributes:
        inputs: How many inputs are drawn, one after the other.
        rounds_to: The type that the layer is rounded to for a second reference; empty for none.
    """

    inputs: int = 1
    rounds_to: ClassVar[str] = ""

    @abstractmethod
    def judge(
        self,
        given: Sequence[np.ndarray],
        exact: Sequence[np.ndarray],
        rounded: Sequence[np.ndarray],
    ) -> Verdict:
        """Judge one output, on every input.

        Args:
            given: Of the engine.
            exact: Of the float32 layer.
            rounded: Of the layer in ``rounds_to``; empty without.
        """

    @abstractmethod
    def __str__(self) -> str:
        """Describe what is allowed, for errors."""


@dataclass(frozen=True)
class LargestError(Criterion):
    """No value may be further off than a share of the largest value: for float32."""

    limit: float

    def judge(
        self,
        given: Sequence[np.ndarray],
        exact: Sequence[np.ndarray],
        rounded: Sequence[np.ndarray],
    ) -> Verdict:
        """Judge by max |given - exact| / max |exact|."""
        pairs = [(_widen(a), _widen(b)) for a, b in zip(given, exact, strict=True)]
        # Of numpy, whose maximum of anything and NaN is NaN.
        difference = np.max([np.abs(a - b).max() for a, b in pairs])
        largest = np.max([np.abs(b).max() for _, b in pairs])
        # Against all zeros, any difference counts in full.
        error = float(difference / largest if largest else difference)
        problem = "" if error <= self.limit else f"by {error:.2e} of its largest value"
        return Verdict(Accuracy(error, self.limit), problem)

    def __str__(self) -> str:
        """Describe what is allowed, for errors."""
        return f"{self.limit:.0e}"


@dataclass(frozen=True)
class MeanError(Criterion):
    """The root mean square error may be a share of the output's.

    For precisions whose quality is judged by pictures: this only refuses what is broken.
    """

    limit: float
    inputs: int = 1

    def judge(
        self,
        given: Sequence[np.ndarray],
        exact: Sequence[np.ndarray],
        rounded: Sequence[np.ndarray],
    ) -> Verdict:
        """Judge by rms(given - exact) / rms(exact)."""
        found, wanted = _widen(np.stack(given)), _widen(np.stack(exact))
        difference, size = _measure(found - wanted), _measure(wanted)
        error = difference / size if size else difference
        problem = "" if error <= self.limit else f"by {error:.2e} of its root mean square"
        return Verdict(Accuracy(error, self.limit), problem)

    def __str__(self) -> str:
        """Describe what is allowed, for errors."""
        return f"{self.limit:.0e}"


def _widen(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def _measure(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array))))
