"""The memory that the requests of one pipeline may take, checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

from fastdeploy_diffusion.errors import ResourceError
from fastdeploy_diffusion.memory_room import MemoryRoom, find_memory_room, measure_own_memory
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.predictors.memory_need import Estimate, PictureBatch, find_ways_out

_LONGEST_REASON = 200


class MemoryBudget:
    """Compares the need of batches with the free memory.

    Memory that the process has taken since the pipeline was opened counts as room: a request reuses
    it.
    """

    def __init__(self, memory: str) -> None:
        self._memory = memory
        self._at_start = measure_own_memory()

    def require(
        self,
        batch: PictureBatch,
        estimate: Estimate,
        multiple: int,
        make_room: Callable[[], object],
    ) -> None:
        """Refuse a batch that cannot be drawn.

        Args:
            multiple: Sizes are multiples of it.
            make_room: Frees memory that the batch does not need.

        Raises:
            ResourceError: Names its need, the free memory, and what would fit.
        """
        room, need = find_memory_room(), estimate(batch, self._memory)
        if room is None or need.total <= room.size:
            return
        make_room()  # what is held counts as room from here on
        room = self._find_room()
        if room is None or need.total <= room.size:
            return
        takes = "takes" if batch.pictures == 1 else "take"
        ways = find_ways_out(batch, room.size, estimate, self._memory, multiple)
        raise ResourceError(
            f"{batch} {takes} at least {need} of memory, and {room} can be had",
            allowed=ways.allowed,
            fix=ways.fix,
        )

    def fits(self, batch: PictureBatch, estimate: Estimate) -> bool:
        """Tell whether a batch may fit into memory."""
        room = self._find_room()
        return room is None or estimate(batch, self._memory).total <= room.size

    def limit(self, batch: PictureBatch, estimate: Estimate) -> int:
        """Halve the number of pictures of a batch until they fit; at least 1."""
        room, pictures = self._find_room(), batch.pictures
        while pictures > 1 and room is not None:
            tried = batch._replace(pictures=pictures)
            if estimate(tried, self._memory).total <= room.size:
                break
            pictures //= 2
        return pictures

    @contextmanager
    def explain_exhaustion(
        self, batch: PictureBatch, estimate: Estimate, multiple: int
    ) -> Generator[None, None, None]:
        """Raise one kind of error where memory runs out in spite of the estimate.

        Raises:
            ResourceError: In place of MemoryError, and of what runtimes raise.
        """
        try:
            yield
        except ResourceError:
            raise
        except Exception as error:
            if not tells_of_memory(error):
                raise
            # The estimate was too low: suggest half of it.
            sizes = [estimate(batch, self._memory).total]
            sizes += [room.size for room in [self._find_room()] if room is not None]
            ways = find_ways_out(batch, min(sizes) // 2, estimate, self._memory, multiple)
            reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            raise ResourceError(
                f"memory ran out for {batch}: {reason}", allowed=ways.allowed, fix=ways.fix
            ) from error

    def _find_room(self) -> MemoryRoom | None:
        room = find_memory_room()
        if room is None:
            return None
        held = max(measure_own_memory() - self._at_start, 0)
        return replace(room, size=room.size + held)
