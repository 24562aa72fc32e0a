"""Distance of a component from the peak of its engine, as ``result.json`` keeps it.

Williams, Waterman, Patterson (2009), "Roofline: an insightful visual performance model for
multicore architectures".
"""

from pydantic import Field

from fastdeploy_diffusion.benchmark.case import Case, Frozen
from fastdeploy_diffusion.benchmark.summary import summarise


class Peaks(Frozen):
    """The best that an engine reached in the same run.

    Args:
        matrix_product: FLOP/s of matrix products.
        convolution: FLOP/s of 3 × 3 convolutions: two for each multiplication of the plain
            algorithm, whichever one the engine takes.
        bandwidth: Bytes/s of copies on the CPU, read and written; ``None`` for another device.
    """

    matrix_product: float
    convolution: float
    bandwidth: float | None

    @property
    def flops(self) -> float:
        """The higher one of the two peaks, in FLOP/s."""
        return max(self.matrix_product, self.convolution)


class Operator(Frozen):
    """One operator of the engine's own graph, and its seconds in one run."""

    name: str
    kind: str
    seconds: float


class Roofline(Frozen):
    """Distance of one component of a case (of a denoiser with a prologue, its step) from the limit.

    Args:
        seconds: Of each run.
        plain_flops: Of the network as its authors wrote it.
        flops: Of what passes made of it.
        moved_bytes: Of inputs, weights and outputs, each once.
        operators: The slowest ones, by the engine's own profile.
        kinds: Seconds of all operators, by kind.
        unprofiled: Why the engine does not tell; empty if it does.
    """

    case: Case
    component: str
    engine: str
    precision: str
    peaks: Peaks
    seconds: tuple[float, ...]
    plain_flops: int
    flops: int
    moved_bytes: int
    operators: tuple[Operator, ...] = ()
    kinds: dict[str, float] = Field(default_factory=dict)
    unprofiled: str = ""

    @property
    def p50(self) -> float:
        """Seconds of one run, median."""
        return summarise(self.seconds).p50

    @property
    def intensity(self) -> float:
        """FLOPs for each byte."""
        return self.flops / self.moved_bytes

    @property
    def limit(self) -> float:
        """Seconds that it would take at the peaks: it computes, or it waits for memory."""
        waits = self.moved_bytes / self.peaks.bandwidth if self.peaks.bandwidth else 0.0
        return max(self.flops / self.peaks.flops, waits)

    @property
    def share(self) -> float:
        """Share of the limit that is reached."""
        return self.limit / self.p50
