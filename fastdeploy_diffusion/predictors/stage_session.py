"""The session of a network that was built as several programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from weakref import ref

import numpy as np

from fastdeploy_diffusion.engines.base import BuildSpec, Engine
from fastdeploy_diffusion.predictors.stage_programs import StageProgram
from fastdeploy_diffusion.predictors.weight_stream import WeightStream
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import (
    TIMESTEP,
    Arrays,
    Handle,
    OperatorTime,
    Row,
    Session,
    stack_arrays,
)
from fastdeploy_diffusion.runtime.stages import Stage, name_value
from fastdeploy_diffusion.size_range import is_batch


@dataclass(frozen=True, eq=False)
class _ComputedHandle(Handle):
    """The prologue's results for one row, and the conditioning that it does not take."""

    features: Mapping[float, np.ndarray]
    shared: Arrays


class StageSession(Session):
    """The programs of a network's stages behind the signature of the whole.

    Args:
        stages: In order, each with its session: the prologue, and the stages of every step.
        stream: The weights of the blocks that a session takes as inputs, in the order in which they
            run; ``None`` where sessions have their own.
    """

    def __init__(
        self,
        program: Program,
        stages: Sequence[tuple[Stage, Session]],
        stream: WeightStream | None = None,
    ) -> None:
        (prologue, session), *steps = stages
        super().__init__(session.engine, program)
        self._prologue, self._steps, self._stream = session, steps, stream
        self._features, *shared = (spec.name for spec in prologue.outputs)
        rows = prologue.outputs[0].shape[0]
        assert isinstance(rows, int)  # checked by `Stage`
        self._rows = rows
        # These have a row for each timestep; the others, for each row of the batch.
        self._combined = {
            spec.name
            for spec in prologue.inputs
            if spec.shape[0] == rows and is_batch(self._inputs[spec.name].shape[0])
        }
        # Steps take some of the conditioning as it is.
        self._taken = frozenset(spec.name for spec in prologue.inputs)
        passed = [spec for spec in self._list_conditions() if spec.name not in self._taken]
        shared += [spec.name for spec in passed]
        replaced = {name_value(spec.name) for stage, _ in steps for spec in stage.outputs}
        self._constant = set(shared) - replaced
        self._shared = [*(spec for spec in prologue.outputs if spec.name in shared), *passed]
        self._bound_for: list[ref[Handle]] = []
        self._varying: Arrays = {}

    def _condition(self, arrays: Arrays, timesteps: Sequence[float]) -> Handle:
        """Run the prologue, batch by batch of timesteps."""
        if not all(handle() for handle in self._bound_for):
            self._bind([])
        given = {
            name: np.repeat(array, self._rows, axis=0) if name in self._combined else array
            for name, array in arrays.items()
            if name in self._taken
        }
        passed = {name: array.copy() for name, array in arrays.items() if name not in self._taken}
        features: dict[float, np.ndarray] = {}
        shared: dict[str, np.ndarray] = {}
        for start in range(0, len(timesteps), self._rows):
            part = timesteps[start : start + self._rows]
            padded = [part[index % len(part)] for index in range(self._rows)]
            shared = self._prologue.run(**given, **{TIMESTEP: np.array(padded, np.float32)})
            features.update(zip(part, shared.pop(self._features)[: len(part)].copy(), strict=True))
        return _ComputedHandle(self, frozenset(timesteps), features, {**shared, **passed})

    def _run_rows(self, rows: Sequence[Row]) -> Arrays:
        values = dict(self._start(rows))
        if self._stream is not None:
            self._stream.restart()
        for stage, session in self._steps:
            own = [spec.name for spec in stage.inputs if spec.name not in self._constant]
            takes_weights = len(session.inputs) > len(stage.inputs)
            for _ in range(stage.repeats):
                weights = self._stream.take() if self._stream and takes_weights else {}
                given = session.run(**{name: values[name] for name in own}, **weights)
                values |= {name_value(name): array for name, array in given.items()}
        return values

    def _start(self, rows: Sequence[Row]) -> Arrays:
        """Bind the inputs that the rows share over timesteps, and return the others."""
        handles = [row.handle for row in rows if isinstance(row.handle, _ComputedHandle)]
        if [handle() for handle in self._bound_for] != handles:
            self._bind(handles)
        features = [
            handle.features[float(np.float32(row.timestep))]
            for handle, row in zip(handles, rows, strict=True)
        ]
        return {**self._stack_samples(rows), self._features: np.stack(features), **self._varying}

    def _bind(self, handles: Sequence[_ComputedHandle]) -> None:
        self._bound_for, self._varying = [], {}
        shared = [handle.shared for handle in handles]
        values = stack_arrays(self._component, self._shared, shared) if handles else {}
        for stage, session in self._steps:
            names = self._constant & values.keys() & {spec.name for spec in stage.inputs}
            session.bind(**{name: values[name] for name in names})
        self._varying = {name: values[name] for name in values.keys() - self._constant}
        self._bound_for = [ref(handle) for handle in handles]

    def _compile(self, sizes: Mapping[str, int]) -> None:
        self._prologue.compile({**sizes, "batch": 1})  # of a row by itself
        for _, session in self._steps:
            session.compile(sizes)

    def _run(self, feeds: Arrays) -> Arrays:
        return self._run_rows(self._make_rows(feeds))

    def _profile(self, feeds: Arrays) -> Sequence[OperatorTime]:
        """Profile a step that is one program: the prologue runs once a request."""
        if len(self._steps) > 1:
            return super()._profile(feeds)
        ((_, session),) = self._steps
        rows = self._make_rows(feeds)  # which keep their handles until the end
        return session.profile(**self._start(rows))

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._prologue.close()
        for _, session in self._steps:
            session.close()


def start_programs(
    engine: Engine, spec: BuildSpec, program: Program, programs: Sequence[StageProgram]
) -> Session:
    """Load the programs of a build as one session.

    Raises:
        EngineError: One does not load.
    """
    with ExitStack() as loaded:  # closed, if one of them does not load
        sessions = [
            loaded.enter_context(engine.load(each.program, spec, each.folder)) for each in programs
        ]
        loaded.pop_all()
    if len(sessions) == 1:
        return sessions[0]
    stages = [each.stage for each in programs]
    return StageSession(program, list(zip(stages, sessions, strict=True)))
