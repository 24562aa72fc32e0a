"""Drivers of loops: for one request on its own, or for many whose rows run together."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from fastdeploy_diffusion.errors import CancelledError, EngineError, RequestError
from fastdeploy_diffusion.predictors.loop import FloatArray, Loop, Predict
from fastdeploy_diffusion.predictors.result import GenerationResult, StepEvent
from fastdeploy_diffusion.requests.request import GenerationRequest

# Pixels of the pictures that are best drawn at once on a CPU. On two cores, 8 of 128 x 128 took a
# sixth less work each than one (openvino) or half of it (onnxruntime), and 16 hardly less; at
# 512 x 512, one is enough work.
BATCH_PIXELS = 8 * 128 * 128


class Generation(Iterator[StepEvent]):
    """One request while it is served: iterate for its events; the last one carries the result.

    It advances when an event or the result is asked for; in a batch, with every step of that.

    Args:
        batch: ``None`` for a request on its own.
        pictures: Their number in the request.
        most: Largest number drawn at once, all requests of the batch together.
    """

    def __init__(
        self,
        loop: Loop,
        cancelled: threading.Event,
        batch: "RequestBatch | None" = None,
        pictures: int = 1,
        most: int = 1,
    ) -> None:
        self.pictures, self.most = pictures, most
        self._loop, self._cancelled, self._batch = loop, cancelled, batch
        self._work: Predict | None = None  # the prediction that it waits for
        self._events: deque[StepEvent] = deque()
        self._result: GenerationResult | None = None
        self._error: Exception | None = None
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended, with or without a result."""
        return self._is_over

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop this request before its next step, from any thread; it raises `CancelledError`."""
        self._cancelled.set()

    def close(self) -> None:
        """Abandon the request, and free its sessions; in a batch, with its next step."""
        if self._batch is None:
            self.abandon()
        else:
            self.cancel()

    def result(self) -> GenerationResult:
        """Run to the end; returns the pictures with timings and report.

        Raises:
            DiffusionError: The error that ended the request, as for ``generate``.
        """
        for _ in self:
            pass
        if self._result is None:
            raise EngineError("the request was given up", fix="do not close it")
        return self._result

    def __next__(self) -> StepEvent:
        while not self._events and not self._is_over:
            if self._batch is not None:
                self._batch.step()
            else:
                self._step_alone()
        if self._events:
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        raise StopIteration

    def find_work(self) -> Predict | None:
        """Advance to the next wanted prediction, if any. Called by drivers, like the rest."""
        while self._work is None and not self._is_over:
            self._resume(lambda: next(self._loop))
        return self._work

    def answer(self, predictions: FloatArray) -> None:
        """Send the wanted predictions to the loop, which goes on to the step's event."""
        self._resume(lambda: self._loop.send(predictions))

    def fail(self, error: Exception) -> None:
        """Raise an error in the loop in place of predictions."""
        self._resume(lambda: self._loop.throw(error))

    def abandon(self, error: Exception | None = None) -> None:
        """End it now."""
        self._loop.close()
        if not self._is_over:
            self._error, self._is_over = error, True

    def _resume(self, resume: Callable[[], Predict | StepEvent]) -> None:
        self._work = None
        try:
            given = resume()
        except Exception as error:  # of this request alone: `result` raises it
            self._error, self._is_over = error, True
            return
        if isinstance(given, Predict):
            self._work = given
            return
        self._events.append(given)
        if given.result is not None:
            self._result = given.result
            self.abandon()

    def _step_alone(self) -> None:
        try:
            advance([self])
        except BaseException:  # Ctrl-C
            self.abandon()
            raise


class RequestBatch:
    """Serves requests at once: their rows run together, each at its own step; give it a ``with``.

    Any thread may submit, wait for results and cancel at any time; threads that wait, or call
    `step`, take the steps in turns. The block's end waits for all requests; after an error in the
    block, it abandons them.

    Args:
        begin: Checks a request with its settings, and makes its `Generation` for this batch.
    """

    def __init__(
        self,
        begin: Callable[
            [GenerationRequest | str | Sequence[str], dict[str, Any], "RequestBatch"], Generation
        ],
    ) -> None:
        self._begin = begin
        self._waiting: deque[Generation] = deque()
        self._active: list[Generation] = []
        self._lock = threading.RLock()
        self._is_stepping = self._is_closed = False

    def submit(
        self, request: GenerationRequest | str | Sequence[str], **settings: Any
    ) -> Generation:
        """Let a request join at the next step, or as soon as the pictures of others are done.

        Args:
            request: A request, or the prompt of one.
            **settings: With a prompt, as for ``text_to_image``.

        Raises:
            RequestError: A setting is unknown or not allowed, or the batch is closed.
        """
        if self._is_closed:
            raise RequestError("the batch is closed", fix="submit inside its block")
        generation = self._begin(request, settings, self)
        self._waiting.append(generation)
        return generation

    def step(self) -> bool:
        """Advance every request that has joined by one step; returns whether any is left."""
        with self._lock:
            if self._is_stepping:
                raise RequestError(
                    "the batch is in the middle of a step",
                    fix="in a callback, neither step nor wait for a result",
                )
            self._is_stepping = True
            try:
                self._admit()
                advance(self._active)
            finally:
                self._is_stepping = False
                self._active = [each for each in self._active if not each.is_over]
            return bool(self._active or self._waiting)

    def close(self) -> None:
        """Abandon unfinished requests: their `Generation.result` raises `CancelledError`."""
        with self._lock:
            self._is_closed = True
            for each in (*self._active, *self._waiting):
                each.abandon(CancelledError("the batch was closed before the request was done"))
            self._active.clear()
            self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        try:
            while kind is None and self.step():
                pass
        finally:
            self.close()

    def _admit(self) -> None:
        """Admit requests, in order, up to the number of pictures that may be drawn at once."""
        for each in [each for each in self._waiting if each.is_cancelled]:
            self._waiting.remove(each)
            each.find_work()  # ends at once
        while self._waiting:
            together = [*self._active, self._waiting[0]]
            pictures = sum(each.pictures for each in together)
            is_full = pictures > min(each.most for each in together)
            if self._active and is_full:
                return
            self._active.append(self._waiting.popleft())


def advance(generations: Sequence[Generation]) -> None:
    """Advance each by one step; rows of equal kinds run at once."""
    groups: dict[Any, list[tuple[Generation, Predict]]] = {}
    for each in generations:
        work = each.find_work()
        if work is not None:
            groups.setdefault(work.kind or each, []).append((each, work))
    for group in groups.values():
        _serve(group)


def _serve(group: Sequence[tuple[Generation, Predict]]) -> None:
    try:
        predictions = _predict([work for _, work in group])
    except Exception as error:  # each request gets its own
        if len(group) == 1:
            group[0][0].fail(error)
            return
        for each in group:  # one may be to blame; the others run on
            _serve([each])
        return
    for (generation, _), predicted in zip(group, predictions, strict=True):
        generation.answer(predicted)


def _predict(works: Sequence[Predict]) -> list[FloatArray]:
    """Run the rows of requests at once, as many as all of them run alone."""
    session, rows = works[0].session, [row for work in works for row in work.rows]
    most, parts = sum(work.most for work in works), []
    batch, *_ = next(iter(session.inputs.values())).shape
    while rows:
        size = min(most, len(rows))
        if len(works) > 1 and batch is None:
            # Few sizes, for some engines compile for each: powers of two.
            size = 1 << (size.bit_length() - 1)
        parts.append(session.run_rows(rows[:size]))
        rows = rows[size:]
    ends = np.cumsum([len(work.rows) for work in works])
    return np.split(np.concatenate(parts), ends[:-1])
