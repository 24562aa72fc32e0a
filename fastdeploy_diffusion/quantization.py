"""Quantization to int8 as data: the ranges of what layers read, and the layers left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The numbers that eight bits have to tell apart; what lies outside is clipped."""

    low: float
    high: float


@dataclass(frozen=True)
class Quantization:
    """What a build in int8 depends on beside its network.

    Args:
        ranges: Of what a convolution or a linear layer reads, by the layer's name after the layer
            passes (``"mid_block.resnets.0.conv1"``). Those without one stay as they are, unless
            weights alone are quantized.
        skip: Layers that stay as they are.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """The sha256 of all of it, as hexadecimal digits."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Describe it as JSON values."""
        ranges = {name: list(each) for name, each in self.ranges.items()}
        return {"ranges": ranges, "skip": sorted(self.skip)}

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> Quantization:
        """Parse the JSON values of `describe`.

        Raises:
            ValueError: They are not of that form.
        """
        try:
            ranges = {
                str(name): Range(float(low), float(high))
                for name, (low, high) in described["ranges"].items()
            }
            return cls(ranges, frozenset(map(str, described["skip"])))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no quantization is described like this: {described}") from error
