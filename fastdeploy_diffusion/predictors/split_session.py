"""The session of a denoiser that was built as two programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from weakref import ref

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.engines.session import (
    Arrays,
    Handle,
    OperatorTime,
    Row,
    Session,
    stack_arrays,
)
from fastdeploy_diffusion.program import Program
from fastdeploy_diffusion.size_range import is_batch

FloatArray = npt.NDArray[np.float32]

# What the steps of a request may alternate between: the conditioning of the prompt, and that of the
# negative prompt.
_KEPT = 2
_TIMESTEP = "timestep"


@dataclass(frozen=True)
class _Conditioning:
    """What the prologue gave for a request's inputs besides the timestep.

    Args:
        given: Those inputs.
        sources: For each row of a batch, the first row that had the same inputs.
        features: By timestep and such a first row, what the step takes of them.
        shared: What the step takes for all timesteps.
    """

    given: Mapping[str, np.ndarray]
    sources: Sequence[int]
    features: Mapping[tuple[float, int], FloatArray]
    shared: Mapping[str, np.ndarray]

    def covers(self, timesteps: npt.NDArray[np.float32]) -> bool:
        """Tell whether the timestep of each row was among those that the prologue ran with."""
        return all(key in self.features for key in self._pair(timesteps))

    def stack(self, timesteps: npt.NDArray[np.float32]) -> FloatArray:
        """Give the features of a batch, row by row."""
        return np.stack([self.features[key] for key in self._pair(timesteps)])

    def _pair(self, timesteps: npt.NDArray[np.float32]) -> list[tuple[float, int]]:
        return list(zip(timesteps.tolist(), self.sources, strict=True))


@dataclass(frozen=True, eq=False)
class _HoistedHandle(Handle):
    """What the prologue gave for one row.

    Args:
        features: By timestep, what the step takes of it.
        shared: What it takes at all timesteps.
    """

    features: Mapping[float, FloatArray]
    shared: Arrays


class SplitSession(Session):
    """Both programs behind the signature of the whole.

    What the prologue gave is kept until other prompts come; a new timestep runs it again.

    Args:
        program: The whole.
        prologue: Its session; its first output has a row for each row of the inputs whose batch it
            fixes, and among them is ``timestep``.
        step: The other one's.
    """

    def __init__(self, program: Program, prologue: Session, step: Session) -> None:
        super().__init__(step.engine, program)
        self._prologue = prologue
        self._step = step
        self._features, features = next(iter(prologue.outputs.items()))
        assert isinstance(features.shape[0], int)  # as `split_program` makes them
        self._rows = features.shape[0]
        told = [name for name in prologue.inputs if name != _TIMESTEP]
        batched = [name for name in told if is_batch(self._inputs[name].shape[0])]
        self._batched = batched[0]
        self._combined = [name for name in batched if prologue.inputs[name].shape[0] == self._rows]
        self._timesteps = np.empty(0, np.float32)
        self._known: list[_Conditioning] = []  # the latest last
        self._bound_conditioning: _Conditioning | None = None
        self._bound_handles: list[ref[Handle]] = []

    def precompute(self, **inputs: np.ndarray) -> None:
        """Run the prologue for all timesteps of a request, and one of its conditionings."""
        with self._lock:
            self._require_open()
            timesteps = inputs.pop(_TIMESTEP)
            self._timesteps = np.unique(timesteps)
            self._learn(timesteps, inputs)

    def _condition(self, arrays: Arrays, timesteps: Sequence[float]) -> Handle:
        """Run the prologue, as often as it takes."""
        if not all(handle() for handle in self._bound_handles):
            self._forget_bound()
        features: dict[float, FloatArray] = {}
        shared: dict[str, np.ndarray] = {}
        given = {
            name: np.repeat(array, self._rows, axis=0) if name in self._combined else array
            for name, array in arrays.items()
        }
        for start in range(0, len(timesteps), self._rows):
            part = timesteps[start : start + self._rows]
            padded = [part[index % len(part)] for index in range(self._rows)]
            shared = self._prologue.run(**given, timestep=np.array(padded, np.float32))
            features.update(zip(part, shared.pop(self._features)[: len(part)].copy(), strict=True))
        return _HoistedHandle(self, frozenset(timesteps), features, shared)

    def _run_rows(self, rows: Sequence[Row]) -> Arrays:
        return self._step.run(**self._feed_step(rows))

    def _feed_step(self, rows: Sequence[Row]) -> Arrays:
        """Bind what the rows share over the steps, and give the rest of the step's inputs."""
        handles = [row.handle for row in rows if isinstance(row.handle, _HoistedHandle)]
        if [handle() for handle in self._bound_handles] != handles:
            specs = [self._step.inputs[name] for name in handles[0].shared]
            shared = [handle.shared for handle in handles]
            self._step.bind(**stack_arrays(self._component, specs, shared))
            self._bound_handles = [ref(handle) for handle in handles]
            self._bound_conditioning = None
        features = [
            handle.features[float(np.float32(row.timestep))]
            for handle, row in zip(handles, rows, strict=True)
        ]
        return {**self._stack_samples(rows), self._features: np.stack(features)}

    def _forget_bound(self) -> None:
        self._step.bind()
        self._bound_handles = []
        self._bound_conditioning = None

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return self._step.run(**self._prepare(feeds))

    def _profile(self, feeds: Mapping[str, np.ndarray]) -> Sequence[OperatorTime]:
        """Of the step alone, which is what runs again and again."""
        return self._step.profile(**self._prepare(feeds))

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give the step's feeds, with the prologue's results."""
        timesteps = feeds[_TIMESTEP]
        given = {name: feeds[name] for name in self._prologue.inputs if name != _TIMESTEP}
        told = self._recall(given)
        if told is None or not told.covers(timesteps):
            told = self._learn(np.concatenate([self._timesteps, timesteps]), given)
        if told is not self._bound_conditioning:
            self._step.bind(**told.shared)
            self._bound_conditioning, self._bound_handles = told, []
        own = {name: feeds[name] for name in self._step.inputs if name in feeds}
        return {**own, self._features: told.stack(timesteps)}

    def _close(self) -> None:
        self._prologue.close()
        self._step.close()

    def _recall(self, given: Mapping[str, np.ndarray]) -> _Conditioning | None:
        for known in self._known:
            if all(np.array_equal(array, known.given[name]) for name, array in given.items()):
                return known
        return None

    def _learn(
        self, timesteps: npt.NDArray[np.float32], given: Mapping[str, np.ndarray]
    ) -> _Conditioning:
        """Run the prologue, as often as it takes."""
        columns = [given[name] for name in self._combined]
        sources = _find_sources(columns, len(given[self._batched]))
        pairs = list(product(np.unique(timesteps).tolist(), dict.fromkeys(sources)))
        features: dict[tuple[float, int], FloatArray] = {}
        shared: dict[str, np.ndarray] = {}
        for start in range(0, len(pairs), self._rows):
            part = pairs[start : start + self._rows]
            padded = [part[index % len(part)] for index in range(self._rows)]
            rows = [row for _, row in padded]
            shared = self._prologue.run(
                **{
                    **given,
                    **{name: given[name][rows] for name in self._combined},
                    _TIMESTEP: np.array([timestep for timestep, _ in padded], np.float32),
                }
            )
            features.update(zip(part, shared.pop(self._features), strict=False))
        copies = {name: array.copy() for name, array in given.items()}
        told = _Conditioning(copies, sources, features, shared)
        known = self._recall(given)
        others = [each for each in self._known if each is not known]
        self._known = [*others, told][-_KEPT:]
        return told


def _find_sources(columns: Sequence[np.ndarray], batch: int) -> list[int]:
    """For each row of a batch, find the first one that is the same in all columns."""
    first: dict[bytes, int] = {}
    return [
        first.setdefault(b"".join(column[row].tobytes() for column in columns), row)
        for row in range(batch)
    ]
