"""Criteria of proofs: how far an engine's outputs may be from those of the Paddle layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
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
        import numpy as np

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
    rounds_to: str = ""

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
        import numpy as np

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
class RoundingError(Criterion):
    """The error may be a small multiple of what rounding does to the layer itself.

    So it measures the engine, however sensitive the weights are. What is wrong by a system shows
    below the noise of rounding, too: in the scale of the output, and in single slices of it
    (channels, tokens, rows of pixels).

    Args:
        rounds_to: ``float16`` or ``bfloat16``.
        multiple: Of the root mean square error that rounding makes.
        slice_multiple: The same, for each slice along any axis.
        scale: Largest error of the output's scale, as a share.
    """

    rounds_to: str
    inputs: int = 2
    multiple: float = 2.0
    slice_multiple: float = 3.0
    scale: float = 5e-3

    def judge(
        self,
        given: Sequence[np.ndarray],
        exact: Sequence[np.ndarray],
        rounded: Sequence[np.ndarray],
    ) -> Verdict:
        """Judge by rms(given - exact) / rms(exact) beside rms(rounded - exact) / rms(exact)."""
        import numpy as np

        found, wanted, noisy = (_widen(np.stack(each)) for each in (given, exact, rounded))
        size = _measure(wanted) or 1.0
        error = (found - wanted) / size
        if not np.isfinite(noisy).all():
            problem = f"in values that overflow where it is rounded to {self.rounds_to}"
            return Verdict(Accuracy(float(_measure(error)), 0.0), problem)
        noise = (noisy - wanted) / size
        # The outputs themselves are rounded, which the layer does not show if they need not be.
        rounding = float(np.maximum(_measure(noise), _STEPS[self.rounds_to] / 4))
        accuracy = Accuracy(float(_measure(error)), self.multiple * rounding, rounding)
        return Verdict(accuracy, self._find_problem(wanted / size, error, noise, rounding))

    def _find_problem(
        self, wanted: np.ndarray, error: np.ndarray, noise: np.ndarray, rounding: float
    ) -> str:
        import numpy as np

        total = _measure(error)
        if not total <= self.multiple * rounding:
            return (
                f"by {total:.2e} of its root mean square, {total / rounding:.1f} times what "
                "rounding explains"
            )
        scale = _compare_scales(wanted + error, wanted, wanted + noise)
        # Four standard deviations of what noise does to the projection on so many numbers.
        by_chance = 4 * rounding * np.sqrt(2 / error.size)
        if not abs(scale) <= max(self.scale, by_chance):
            return f"by {scale:+.2%} in scale"
        for axis in range(1, error.ndim):
            others = tuple(each for each in range(error.ndim) if each != axis)
            # Where rounding happens to do little to a slice, it does what it does elsewhere.
            usual = np.maximum(_measure(noise, others), rounding)
            shares = _measure(error, others) / usual
            # Of few numbers, some are far from the mean by chance.
            by_chance = 1 + 2 / np.sqrt(error.size / error.shape[axis])
            if not shares.max() <= self.slice_multiple * by_chance:
                return (
                    f"at index {shares.argmax()} of axis {axis - 1}, by {shares.max():.1f} times "
                    "what rounding explains"
                )
        return ""

    def __str__(self) -> str:
        """Describe what is allowed, for errors."""
        return (
            f"{self.multiple:g} times the error of the layer rounded to {self.rounds_to} "
            f"({self.slice_multiple:g} in each slice), {self.scale:.1%} in scale"
        )


# Between 1 and the next larger number.
_STEPS: Mapping[str, float] = MappingProxyType({"float16": 2.0**-10, "bfloat16": 2.0**-7})


def _compare_scales(found: np.ndarray, wanted: np.ndarray, noisy: np.ndarray) -> float:
    """Compare the scales of two outputs whose noise is alike; 0 where they agree.

    Strong noise takes from the projection on the exact output, or adds to the size; an error of
    scale changes both, to the same side.
    """
    import numpy as np

    total = np.square(wanted).sum() or 1.0
    projection = float(((found - noisy) * wanted).sum() / total)
    size = (_measure(found) - _measure(noisy)) / (_measure(wanted) or 1.0)
    if projection * size <= 0:
        return 0.0
    return float(np.copysign(min(abs(projection), abs(size)), size))


def _widen(array: np.ndarray) -> np.ndarray:
    import numpy as np

    return array.astype(np.float64)


def _measure(array: np.ndarray, axes: tuple[int, ...] | None = None) -> Any:
    """Compute the root mean square, over all axes or some."""
    import numpy as np

    return np.sqrt(np.mean(np.square(array), axis=axes))
