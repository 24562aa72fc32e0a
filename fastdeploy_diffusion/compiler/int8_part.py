"""A component while its layers for int8 are chosen: its blocks, and what each of them costs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.compiler.quantizing import Trials, choose_sensitive
from fastdeploy_diffusion.export.int8_switches import SWITCHES
from fastdeploy_diffusion.int8_report import BlockCost
from fastdeploy_diffusion.quantization import Quantization, Range

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.built_component import BuiltComponent
    from fastdeploy_diffusion.compiler.calibration import Calibration, Show
    from fastdeploy_diffusion.runtime.session import Arrays, Session

# What goes back as a whole: up to the first of these in a layer's name.
_BLOCK = re.compile(
    r"^(?:.*?\.)?(?:resnets|attentions|downsamplers|upsamplers|transformer_blocks"
    r"|single_transformer_blocks|layers|block)\.\d+"
)

FloatArray = npt.NDArray[np.float32]


def name_block(layer: str) -> str:
    """Name the block of a layer; a layer outside of blocks is one by itself."""
    found = _BLOCK.match(layer)
    return found[0] if found else layer


def list_errors(blocks: Sequence[BlockCost]) -> list[float]:
    """List what blocks cost, which was measured."""
    return [each.error for each in blocks if each.error is not None]


def rank(blocks: Sequence[BlockCost]) -> list[BlockCost]:
    """Order measured blocks, the costliest first."""
    return sorted(blocks, key=lambda each: -(each.error or 0.0))


@dataclass(eq=False)
class Part:
    """A component while its layers are chosen.

    Attributes:
        held_out: The calls of which costs are measured on some.
        cost_calls: On how many.
        ranges: Of what its layers read.
        blocks: In the order of the network; once costs are measured, the costliest first.
        kept: How many of these are in floating point.
        own_psnr: Of the decoder alone.
    """

    component: BuiltComponent
    trials: Trials
    held_out: Calibration
    cost_calls: int
    ranges: Mapping[str, Range] = field(default_factory=dict)
    blocks: list[BlockCost] = field(default_factory=list)
    kept: int = 0
    own_psnr: float | None = None
    _session: Session | None = None
    _started: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """The component's."""
        return self.component.name

    @property
    def sensitive(self) -> frozenset[str]:
        """The layers that stay in floating point without being measured."""
        return choose_sensitive(self.name, self.ranges)

    @property
    def is_refused(self) -> bool:
        """Whether nothing of it is left in int8."""
        return self.kept >= len(self.blocks)

    @property
    def quantization(self) -> Quantization:
        """The choice so far."""
        return Quantization(self.ranges, self._skip(self.kept))

    def set_ranges(self, ranges: Mapping[str, Range]) -> None:
        """Set the ranges of all layers, which decide the blocks; what these cost is unknown yet."""
        self.ranges = ranges
        layers = [each for each in ranges if each not in self.sensitive]
        sizes = Counter(map(name_block, layers))
        self.blocks = [BlockCost(block, size) for block, size in sizes.items()]

    def measure_costs(self, show: Show) -> None:
        """Measure what each block changes by itself."""
        feeds = _spread(list(self.held_out.feeds(self.name)), self.cost_calls)
        task = f"{self.name}: cost of each block"
        show(task, 0, len(self.blocks))
        layers = [self._list_layers(each.block) for each in self.blocks]
        switches = np.eye(len(layers), dtype=np.float32)
        with self.trials.start_switched(layers) as session:
            exact = _run_all(session, np.zeros_like(switches[0]), feeds)
            costs = []
            for number, each in enumerate(self.blocks):
                show(task, number, len(self.blocks))
                given = _run_all(session, switches[number], feeds)
                costs.append(replace(each, error=_measure_error(given, exact)))
        self.blocks = rank(costs)

    def start(self) -> Session:
        """Start it as chosen so far; the session stays until another is started."""
        skip = self._skip(self.kept)
        if self._session is None or self._started != skip:
            self.close()
            self._session = self.trials.start(Quantization(self.ranges, skip))
            self._started = skip
        return self._session

    def close(self) -> None:
        """Close its session."""
        if self._session is not None:
            self._session.close()
            self._session = self._started = None

    def list_blocks(self) -> tuple[BlockCost, ...]:
        """List the blocks, with those that are given back."""
        return tuple(
            replace(each, is_kept=place < self.kept) for place, each in enumerate(self.blocks)
        )

    def _skip(self, kept: int) -> frozenset[str]:
        given_back = {each.block for each in self.blocks[:kept]}
        return self.sensitive | {each for each in self.ranges if name_block(each) in given_back}

    def _list_layers(self, block: str) -> dict[str, Range]:
        """List the layers of a block that can be quantized, with their ranges."""
        return {
            layer: numbers
            for layer, numbers in self.ranges.items()
            if name_block(layer) == block and layer not in self.sensitive
        }


def _spread(feeds: Sequence[Arrays], count: int) -> list[Arrays]:
    """Choose a few calls, of other prompts and timesteps."""
    places = np.linspace(0, len(feeds) - 1, min(count, len(feeds))).round().astype(int)
    return [feeds[place] for place in places]


def _run_all(session: Session, switches: FloatArray, feeds: Sequence[Arrays]) -> list[FloatArray]:
    """Run it with some blocks in int8; returns the first output of each call."""
    runs = (session.run(**each, **{SWITCHES: switches}) for each in feeds)
    return [next(iter(outputs.values())) for outputs in runs]


def _measure_error(given: Sequence[FloatArray], exact: Sequence[FloatArray]) -> float:
    change = sum(float(np.square(a - b).sum()) for a, b in zip(given, exact, strict=True))
    return float(np.sqrt(change / sum(float(np.square(each).sum()) for each in exact)))
