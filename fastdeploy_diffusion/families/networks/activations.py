"""Activations: the numbers that networks hold besides their weights, which their configs count.

Each count is that of the moment at which most numbers are alive, as the layer is written: an engine
that fuses operators holds fewer, one that copies holds more. `memory_need` knows by how much.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Activations:
    """Numbers that are alive at once in one run.

    Args:
        features: In feature maps and tokens, where they are most.
        scores: In the largest attention matrix, which engines with a fused attention never hold.
    """

    features: int = 0
    scores: int = 0


CountActivations = Callable[[Shapes], Activations]


def count_nothing(shapes: Shapes) -> Activations:
    """Count nothing, for text encoders: their activations are far smaller than their weights."""
    return Activations()
