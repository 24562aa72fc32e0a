"""Weights of block after block, read ahead by a thread while the last block runs."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import TensorSource
from fastdeploy_diffusion.errors import CheckpointError, EngineError
from fastdeploy_diffusion.runtime.program import TensorSpec
from fastdeploy_diffusion.runtime.recipe import (
    MadeOf,
    Weight,
    derive,
    is_moved,
    list_names,
    replace_names,
)

Arrays = Mapping[str, npt.NDArray[Any]]

# Read as they are stored, for engines to convert: half the bytes to read and to hold.
_AS_STORED: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_ALIGNMENT = 64


class BlockWeights:
    """Weights of a list of blocks that have the same names and shapes: inputs of one program.

    Args:
        path: Its list of blocks: ``"transformer_blocks"``.
        shapes: Names of the first block's weights, in the order of the program's inputs, with
            shapes in PyTorch's layout.

    Attributes:
        specs: The weights as inputs of the program: of the type that all blocks store them in;
            float32 where they differ, or where a weight is computed.
        nbytes: Bytes of the weights of one block.
    """

    def __init__(
        self,
        source: TensorSource,
        path: str,
        count: int,
        shapes: Mapping[str, tuple[int, ...]],
        recipe: Mapping[str, MadeOf],
    ) -> None:
        self._source = source
        self._path = path
        self._recipe = {name: recipe.get(name, name) for name in shapes}
        self.count = count
        self._stored = {name: self._find_type(name) for name in shapes}
        if "bfloat16" in self._stored.values():
            # A dependency of the export to ONNX, without which nothing is streamed.
            import ml_dtypes  # noqa: F401  # numpy knows the type by its name from here on
        self.specs = tuple(
            TensorSpec(name, shape, self._stored[name] or "float32")
            for name, shape in shapes.items()
        )
        self._places: dict[str, tuple[tuple[int, ...], str, int]] = {}
        self.nbytes = 0
        for name, shape in shapes.items():
            dtype = self._stored[name] or "float32"
            self._places[name] = shape, dtype, self.nbytes
            size = prod(shape) * np.dtype(dtype).itemsize
            self.nbytes += -(-size // _ALIGNMENT) * _ALIGNMENT

    def arrange(self, memory: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Lay out the weights of one block, by name, in at least ``nbytes`` of memory."""
        return {
            name: np.ndarray(shape, dtype, memory, offset)
            for name, (shape, dtype, offset) in self._places.items()
        }

    def read(self, index: int, name: str, out: npt.NDArray[Any]) -> None:
        """Read one weight of one block.

        Args:
            name: The weight, by its name in the first block.
            out: Of its spec's shape and type.

        Raises:
            CheckpointError: It cannot be read; the message names tensor and file.
        """
        try:
            made_of = replace_names(self._recipe[name], lambda each: self._find(index, each))
            if isinstance(made_of, str) and self._stored[name]:
                bits = out.view(np.uint16) if out.dtype.name == "bfloat16" else out
                self._source.read_into(made_of, bits)
            else:
                out[...] = derive(Weight(made_of, out.dtype.name), self._source)
        except CheckpointError as error:
            raise CheckpointError(
                f"{self._find(index, name)} cannot be read any more: {error.problem}",
                allowed=error.allowed,
                fix=error.fix or "keep the checkpoint in its place as long as its pipeline runs",
            ) from error

    def read_block(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """Read all weights of one block into new memory; raises as ``read``."""
        arrays = self.arrange(np.empty(self.nbytes, np.uint8))
        for name, array in arrays.items():
            self.read(index, name, array)
        return arrays

    def _find(self, index: int, name: str) -> str:
        return name.replace(f"{self._path}.0.", f"{self._path}.{index}.", 1)

    def _find_type(self, name: str) -> str | None:
        """Find the type that all blocks store a weight in, if engines take it."""
        if not is_moved(self._recipe[name]):
            return None
        stored = {
            self._source.dtype(self._find(index, each))
            for each in list_names(self._recipe[name])
            for index in range(self.count)
        }
        return _AS_STORED.get(stored.pop()) if len(stored) == 1 else None


class WeightStream:
    """Streams the weights of all blocks in turn, round after round.

    Two blocks are in memory: the one that runs, and the next one, which a thread of its own reads.
    For use by one thread.

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
        """Wait for the weights of the next block, and start reading those of the one after it.

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
                break  # the consumer stopped
            kind.read(index, name, array)
        return arrays
