"""The contract of a session: a loaded program that checks its inputs and outputs."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Self

from fastdeploy_diffusion.errors import DiffusionError, EngineError, NonFiniteError
from fastdeploy_diffusion.runtime.freed_memory import give_back_freed_memory
from fastdeploy_diffusion.runtime.program import (
    RESIDUAL,
    Program,
    TensorSpec,
    check_array,
    check_feeds,
)
from fastdeploy_diffusion.size_range import is_batch

Shapes = tuple[tuple[int, ...], ...]
Arrays = Mapping[str, np.ndarray]
TIMESTEP = "timestep"
"""The input that makes a program a denoiser's: its first input is the sample, all others besides
are the conditioning, but for residuals."""


class OperatorTime(NamedTuple):
    """The time of one operator of a loaded program.

    Args:
        name: Its name in the engine's own graph, where operators may be merged.
        kind: Its type, in the engine's words: ``"Convolution"``.
    """

    name: str
    kind: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Handle:
    """The conditioning of one row, which a session keeps until this is freed.

    Args:
        timesteps: Those that the row may run at.
    """

    session: "Session"
    timesteps: frozenset[float]


class Row(NamedTuple):
    """One row of a denoiser's batch.

    Args:
        sample: Its latents, without the batch.
        timestep: One of those that its handle was conditioned for.
        residuals: The inputs whose names begin with `RESIDUAL`, without the batch.
    """

    handle: Handle
    sample: np.ndarray
    timestep: float
    residuals: Arrays = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class _KeptArrays(Handle):
    arrays: Arrays


def stack_arrays(component: str, specs: Sequence[TensorSpec], rows: Sequence[Arrays]) -> Arrays:
    """Join the arrays of rows, each with a batch of 1, to those of a batch.

    Args:
        specs: The inputs to join; one without a batch is the same for all rows.
        rows: Arrays by name.

    Raises:
        EngineError: Arrays without a batch differ between rows.
    """
    joined = {}
    for spec in specs:
        arrays = [row[spec.name] for row in rows]
        first = arrays[0]
        if is_batch(spec.shape[0]):
            joined[spec.name] = np.concatenate(arrays) if len(arrays) > 1 else first
        elif all(each is first or np.array_equal(each, first) for each in arrays):
            joined[spec.name] = first
        else:
            raise EngineError(
                f"{component}: {spec.name!r} differs between the rows of a batch, which share it",
                fix="run rows of different pictures' sizes in batches of their own",
            )
    return joined


def differ_in_batch_only(shapes: Shapes, others: Shapes) -> bool:
    """Tell whether two sets of input shapes differ in nothing but the batch."""
    return [shape[1:] for shape in shapes] == [shape[1:] for shape in others]


class Session(ABC):
    """A program loaded by an engine, safe to share between threads (runs take turns).

    Engines implement ``_run`` and ``_close``; the checks are here.
    """

    def __init__(self, engine: str, program: Program) -> None:
        self.engine = engine
        self._component = program.name
        self._inputs = {spec.name: spec for spec in program.inputs}
        self._outputs = {spec.name: spec for spec in program.outputs}
        self._bound: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Specs of the inputs, by name, in order."""
        return MappingProxyType(self._inputs)

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Specs of the outputs, by name, in order."""
        return MappingProxyType(self._outputs)

    def bind(self, **constants: np.ndarray) -> None:
        """Set the inputs that stay the same for all runs of a request (text conditioning …).

        Replaces everything that was bound before; without arguments, nothing is bound. The arrays
        are copied: what the caller does with them later has no effect.

        Args:
            **constants: Arrays by input name, of the types and shapes of ``inputs``.

        Raises:
            EngineError: A name, type or shape is wrong, or the session is closed.
        """
        check_feeds(self._component, list(self._inputs.values()), constants, complete=False)
        with self._lock:
            self._require_open()
            self._bound = {name: array.copy() for name, array in constants.items()}

    def condition(self, arrays: Arrays, timesteps: Sequence[float]) -> Handle:
        """Take the conditioning of a row, and compute what its steps share.

        Args:
            arrays: By name, every input besides the first, which is the sample, ``timestep`` and
                residuals; of one row. They are copied.
            timesteps: All that the row will run at.

        Returns:
            What `run_rows` takes: any number of them at once, each freed with its last reference.

        Raises:
            EngineError: The network takes no timestep; a name, type or shape is wrong; the engine
                failed; the session is closed.
        """
        specs = [
            replace(each, shape=(1, *each.shape[1:])) if is_batch(each.shape[0]) else each
            for each in self._list_conditions()
        ]
        check_feeds(self._component, specs, arrays)
        with self._lock, self._explain("condition"):
            self._require_open()
            return self._condition(arrays, np.unique(np.array(timesteps, np.float32)).tolist())

    def run_rows(self, rows: Sequence[Row]) -> np.ndarray:
        """Run a denoiser on a batch whose rows have conditionings and timesteps of their own.

        Returns:
            The first output, with a row for each: the caller's own.

        Raises:
            EngineError: A handle is not this session's, or was not made for its row's timestep;
                inputs without a batch differ; otherwise as ``run``.
            NonFiniteError: As ``run``.
        """
        return self.run_all(rows)[next(iter(self._outputs))]

    def run_all(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Run like ``run_rows``, for every output by name."""
        with self._lock, self._explain("run"):
            self._require_open()
            for row in rows:
                self._check_row(row)
            given = self._run_rows(rows)
            return {
                name: self._check_output(spec, given[name]) for name, spec in self._outputs.items()
            }

    def compile(self, sizes: Mapping[str, int]) -> None:
        """Compile for sizes that are to run, where the engine compiles for each; else do nothing.

        Args:
            sizes: Of free dimensions, by name; ``"batch"`` among them.

        Raises:
            EngineError: It fails, or the session is closed.
        """
        with self._lock, self._explain("compile"):
            self._require_open()
            self._compile(sizes)

    def prepare(self, **feeds: np.ndarray) -> Callable[[], Any]:
        """Prepare repeated runs on the same inputs, as the steps of a request would be.

        Raises:
            EngineError: As ``run``.
        """
        if TIMESTEP not in self._inputs:
            return partial(self.run, **feeds)
        with self._lock, self._explain("condition"):
            self._require_open()
            return partial(self.run_rows, self._make_rows(self._merge(feeds)))

    def run(self, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        """Run the network once.

        Args:
            **feeds: Arrays by input name: every input that is not bound.

        Returns:
            Arrays by output name. They are the caller's own: no later run changes them.

        Raises:
            EngineError: A feed is missing, unknown, bound already, or of a wrong type or shape; the
                engine failed; an output is not what its spec says; the session is closed.
            NonFiniteError: An output holds NaN or infinity.
        """
        with self._lock, self._explain("run"):
            self._require_open()
            outputs = self._run(self._merge(feeds))
            return {
                name: self._check_output(spec, outputs[name])
                for name, spec in self._outputs.items()
            }

    def profile(self, **feeds: np.ndarray) -> list[OperatorTime]:
        """Measure each operator's time, on a copy that may be slow to make.

        Returns:
            The operators of the optimised graph, in no order.

        Raises:
            EngineError: The engine cannot profile, or as ``run``.
        """
        with self._lock, self._explain("profile"):
            self._require_open()
            return list(self._profile(self._merge(feeds)))

    def close(self) -> None:
        """Free what the session holds; more than once is fine."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._bound = {}
                self._close()
                # Engines free many small pieces, which the C library would keep for itself.
                give_back_freed_memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Run on checked feeds, in the order of ``inputs``; called by one thread at a time."""

    def _compile(self, sizes: Mapping[str, int]) -> None:
        """Compile for sizes; other engines are compiled for all of them when they are loaded."""
        return

    def _condition(self, arrays: Arrays, timesteps: Sequence[float]) -> Handle:
        """Keep checked arrays of one row, or what is computed from them; timesteps ascend."""
        copies = {name: array.copy() for name, array in arrays.items()}
        return _KeptArrays(self, frozenset(timesteps), copies)

    def _run_rows(self, rows: Sequence[Row]) -> Arrays:
        """Run on rows with handles that ``_condition`` gave."""
        kept = [row.handle.arrays for row in rows if isinstance(row.handle, _KeptArrays)]
        shared = stack_arrays(self._component, self._list_conditions(), kept)
        timesteps = np.array([row.timestep for row in rows], np.float32)
        feeds = {**self._stack_samples(rows), TIMESTEP: timesteps, **shared}
        return self._run(self._merge(feeds))

    def _profile(self, feeds: Mapping[str, np.ndarray]) -> Sequence[OperatorTime]:
        """Profile a run on checked feeds; optional for engines."""
        raise EngineError(f"{self.engine} cannot measure its operators here")

    @abstractmethod
    def _close(self) -> None:
        """Free what the engine holds; called once."""

    def _list_conditions(self) -> list[TensorSpec]:
        if TIMESTEP not in self._inputs:
            raise EngineError(
                f"{self._component} takes no {TIMESTEP}, so that there is nothing to condition",
                allowed=", ".join(self._inputs),
                fix="run() it",
            )
        _, *others = self._inputs.values()
        return [
            each for each in others if each.name != TIMESTEP and not each.name.startswith(RESIDUAL)
        ]

    def _make_rows(self, feeds: Arrays) -> list[Row]:
        """Condition on each row of a batch."""
        batched = {name for name, spec in self._inputs.items() if is_batch(spec.shape[0])}
        names = [each.name for each in self._list_conditions()]
        rows = []
        for index, sample in enumerate(feeds[next(iter(self._inputs))]):
            own = {
                name: feeds[name][index : index + 1] if name in batched else feeds[name]
                for name in names
            }
            timestep = float(feeds[TIMESTEP][index])
            residuals = {
                name: feeds[name][index] for name in self._inputs if name.startswith(RESIDUAL)
            }
            rows.append(Row(self._condition(own, [timestep]), sample, timestep, residuals))
        return rows

    def _stack_samples(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Stack what each row brings to a step: samples and residuals."""
        return {
            next(iter(self._inputs)): np.stack([row.sample for row in rows]),
            **{
                name: np.stack([row.residuals[name] for row in rows])
                for name in self._inputs
                if name.startswith(RESIDUAL)
            },
        }

    def _check_row(self, row: Row) -> None:
        wanted = {name for name in self._inputs if name.startswith(RESIDUAL)}
        if row.residuals.keys() != wanted:
            raise EngineError(
                f"{self._component}: a row has the residuals {sorted(row.residuals) or 'none'}",
                allowed=", ".join(sorted(wanted)) or "none",
            )
        if row.handle.session is not self:
            raise EngineError(
                f"{self._component}: a row's handle is another session's",
                fix="condition() the session that runs it",
            )
        if float(np.float32(row.timestep)) not in row.handle.timesteps:
            raise EngineError(
                f"{self._component}: a row runs at timestep {row.timestep}, which it was not "
                "conditioned for",
                allowed=", ".join(map(str, sorted(row.handle.timesteps))),
                fix="condition() with every timestep of the request",
            )

    @contextmanager
    def _explain(self, task: str) -> Iterator[None]:
        """Turn an engine's exceptions into errors that name engine and component."""
        try:
            yield
        except DiffusionError:
            raise
        except Exception as error:
            raise EngineError(
                f"{self.engine} failed to {task} {self._component}: {type(error).__name__}: {error}"
            ) from error

    def _require_open(self) -> None:
        if self._closed:
            raise EngineError(
                f"{self._component}: the {self.engine} session is closed", fix="load it again"
            )

    def _merge(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Merge bound inputs with feeds, and check them."""
        if twice := sorted(self._bound.keys() & feeds.keys()):
            raise EngineError(
                f"{self._component}: input {', '.join(map(repr, twice))} is bound and fed",
                allowed="one of both",
                fix="bind() without it, or do not feed it",
            )
        merged = {**self._bound, **feeds}
        check_feeds(self._component, list(self._inputs.values()), merged)
        # In the order of the specs, not of the keywords.
        return {name: merged[name] for name in self._inputs}

    def _check_output(self, spec: TensorSpec, array: np.ndarray) -> np.ndarray:
        what = f"{self._component}: {self.engine} returned output {spec.name!r}, which"
        check_array(what, spec, array)
        if np.issubdtype(array.dtype, np.floating):
            finite = np.isfinite(array)
            if not finite.all():
                bad = array.size - np.count_nonzero(finite)
                raise NonFiniteError(
                    f"{what} holds NaN or infinity in {bad} of {array.size} values",
                    fix="look for them in the inputs; in half precision, use a higher one",
                )
        # A view may lie on the runtime's own buffer, which the next run overwrites.
        return array if array.flags.owndata else array.copy()
