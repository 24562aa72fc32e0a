"""The weights of all blocks of one kind: what they are as inputs, and how to read them."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import TensorSource
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.program import TensorSpec
from fastdeploy_diffusion.runtime.recipe import (
    MadeOf,
    Weight,
    derive,
    is_moved,
    list_names,
    replace_names,
)

# Read as they are stored, for engines to convert: half the bytes to read and to hold.
_AS_STORED: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_ALIGNMENT = 64


class BlockWeights:
    """Weights of ``count`` blocks that have the same names and shapes.

    Args:
        source: The weights of the network.
        path: Its list of blocks: ``"transformer_blocks"``.
        count: How many there are.
        prefix: What the program of a block has before the names within a block.
        shapes: Names in the program, in the order of its inputs, with shapes in PyTorch's layout.
        recipe: What they are made of, by their names: of the first block's, as the program has it.

    Attributes:
        count: As given.
        specs: The weights as inputs of the program: of the type that all blocks store them in;
            float32 where they differ, or where a weight is computed.
        nbytes: What the weights of one block take.
    """

    def __init__(
        self,
        source: TensorSource,
        path: str,
        count: int,
        prefix: str,
        shapes: Mapping[str, tuple[int, ...]],
        recipe: Mapping[str, MadeOf],
    ) -> None:
        self._source = source
        self._path = path
        self._prefix = prefix
        self._shapes = dict(shapes)
        self._recipe = {name: recipe.get(name, name) for name in shapes}
        self.count = count
        self._stored = {name: self._find_type(name) for name in shapes}
        if "bfloat16" in self._stored.values():
            # It comes with the export to ONNX, without which nothing is streamed.
            import ml_dtypes  # noqa: F401  # numpy knows the type by its name from here on
        self.specs = tuple(
            TensorSpec(name, shape, self._stored[name] or "float32")
            for name, shape in shapes.items()
        )
        self._offsets: dict[str, int] = {}
        self.nbytes = 0
        for spec in self.specs:
            self._offsets[spec.name] = self.nbytes
            size = prod(shapes[spec.name]) * np.dtype(spec.dtype).itemsize
            self.nbytes += -(-size // _ALIGNMENT) * _ALIGNMENT

    def arrange(self, memory: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Divide at least ``nbytes`` of memory among the weights of one block, by name."""
        return {
            spec.name: np.ndarray(
                self._shapes[spec.name], spec.dtype, memory, self._offsets[spec.name]
            )
            for spec in self.specs
        }

    def read(self, index: int, name: str, out: npt.NDArray[Any]) -> None:
        """Read one weight of one block.

        Args:
            index: The block.
            name: The weight.
            out: Where it goes; of its spec's shape and type.

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
        return f"{self._path}.{index}.{name.removeprefix(self._prefix)}"

    def _find_type(self, name: str) -> str | None:
        """Give the type that all blocks store a weight in, if engines take it as it is."""
        if not is_moved(self._recipe[name]):
            return None
        stored = {
            self._source.dtype(self._find(index, each))
            for each in list_names(self._recipe[name])
            for index in range(self.count)
        }
        return _AS_STORED.get(stored.pop()) if len(stored) == 1 else None
