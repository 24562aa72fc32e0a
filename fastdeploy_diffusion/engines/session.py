"""The contract of a session: a loaded program that checks what goes in and what comes out."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import NamedTuple

import numpy as np
from typing_extensions import Self

from fastdeploy_diffusion.engines.freed_memory import give_back_freed_memory
from fastdeploy_diffusion.errors import DiffusionError, EngineError, NonFiniteError
from fastdeploy_diffusion.program import Program, TensorSpec, check_array, check_feeds

Shapes = tuple[tuple[int, ...], ...]


class OperatorTime(NamedTuple):
    """What one operator of a loaded program takes.

    Args:
        name: Its name in the engine's own graph, where operators may be merged.
        kind: What it does, in the engine's words: ``"Convolution"``.
        seconds: Of one run.
    """

    name: str
    kind: str
    seconds: float


def differ_in_batch_only(shapes: Shapes, others: Shapes) -> bool:
    """Tell whether inputs of some shapes are pictures, or texts, of the same size as others."""
    return [shape[1:] for shape in shapes] == [shape[1:] for shape in others]


class Session(ABC):
    """A program loaded by an engine, safe to share between threads (runs take turns).

    Engines implement ``_run`` and ``_close``; everything that all have in common is here.

    Args:
        engine: Name of the engine, for messages.
        program: What was loaded.
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

    def precompute(self, **inputs: np.ndarray) -> None:
        """Compute ahead what coming runs share, where the session is made for that.

        Args:
            **inputs: Every value that an input will have, stacked, by input name.

        Raises:
            EngineError: As ``run``.
        """
        with self._lock:
            self._require_open()

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
        with self._lock:
            self._require_open()
            merged = self._merge(feeds)
            try:
                outputs = self._run(merged)
            except DiffusionError:
                raise
            except Exception as error:
                raise EngineError(
                    f"{self.engine} failed to run {self._component}: "
                    f"{type(error).__name__}: {error}"
                ) from error
            return {
                name: self._check_output(spec, outputs[name])
                for name, spec in self._outputs.items()
            }

    def profile(self, **feeds: np.ndarray) -> list[OperatorTime]:
        """Measure what each operator takes, on a copy made for that: it may be slow to make.

        Args:
            **feeds: As for ``run``.

        Returns:
            The operators that really run, in no order.

        Raises:
            EngineError: The engine does not tell, or as ``run``.
        """
        with self._lock:
            self._require_open()
            merged = self._merge(feeds)
            try:
                return list(self._profile(merged))
            except DiffusionError:
                raise
            except Exception as error:
                raise EngineError(
                    f"{self.engine} failed to profile {self._component}: "
                    f"{type(error).__name__}: {error}"
                ) from error

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

    def _profile(self, feeds: Mapping[str, np.ndarray]) -> Sequence[OperatorTime]:
        """Run on checked feeds, and say what each operator took; engines that can implement it."""
        raise EngineError(f"{self.engine} does not tell here what its operators take")

    @abstractmethod
    def _close(self) -> None:
        """Free what the engine holds; called once."""

    def _require_open(self) -> None:
        if self._closed:
            raise EngineError(
                f"{self._component}: the {self.engine} session is closed", fix="load it again"
            )

    def _merge(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add what is bound to what is fed, and check it."""
        if twice := sorted(self._bound.keys() & feeds.keys()):
            raise EngineError(
                f"{self._component}: input {', '.join(map(repr, twice))} is bound and fed",
                allowed="one of both",
                fix="bind() without it, or do not feed it",
            )
        merged = {**self._bound, **feeds}
        check_feeds(self._component, list(self._inputs.values()), merged)
        # In the order of the specs, whatever the order of the keywords.
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
