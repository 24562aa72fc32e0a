"""Weights of block after block, read ahead by a thread while the last block runs."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.predictors.block_weights import BlockWeights

Arrays = Mapping[str, npt.NDArray[Any]]


class WeightStream:
    """Gives the weights of all blocks in turn, round after round.

    Two blocks are in memory: the one that runs, and the next one, which is being read. For one
    thread; the reading one is its own.

    Args:
        kinds: The blocks, in the order in which they run.
    """

    def __init__(self, kinds: Sequence[BlockWeights]) -> None:
        self._blocks = [(kind, index) for kind in kinds for index in range(kind.count)]
        self._size = max((kind.nbytes for kind in kinds), default=0)
        self._buffers: list[npt.NDArray[np.uint8]] = []
        self._pool = ThreadPoolExecutor(1, "weight-stream")
        self._is_closing = threading.Event()
        self._position = 0
        self._coming: Future[Arrays] | None = None

    def restart(self) -> None:
        """Go back to the first block; after a whole round it has been read already."""
        if not self._blocks or (self._coming is not None and self._position == 0):
            return
        if self._coming is not None:
            wait([self._coming])
        self._read_ahead(0)

    def take(self) -> Arrays:
        """Wait for the weights of the next block, and have those of the one after it read.

        Returns:
            Arrays by name. Those that were taken before are overwritten from now on.

        Raises:
            CheckpointError: One cannot be read; the message names tensor and file.
        """
        if self._coming is None:
            raise EngineError("the stream of weights was not started again after it failed")
        coming, self._coming = self._coming, None
        arrays = coming.result()
        self._read_ahead((self._position + 1) % len(self._blocks))
        return arrays

    def close(self) -> None:
        """End the thread, after the tensor that it is reading, and free the memory."""
        self._is_closing.set()
        self._pool.shutdown(cancel_futures=True)
        self._coming = None
        self._buffers.clear()

    def _read_ahead(self, position: int) -> None:
        if not self._buffers:
            self._buffers = [np.empty(self._size, np.uint8) for _ in range(2)]
        self._position = position
        self._buffers.reverse()  # the other one is in use
        self._coming = self._pool.submit(self._read, *self._blocks[position], self._buffers[0])

    def _read(self, kind: BlockWeights, index: int, memory: npt.NDArray[np.uint8]) -> Arrays:
        arrays = kind.arrange(memory)
        for name, array in arrays.items():
            if self._is_closing.is_set():
                break  # nobody is going to take them
            kind.read(index, name, array)
        return arrays
