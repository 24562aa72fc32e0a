"""The change of one layer of a file, and what it adds to tensors of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from fastdeploy_diffusion.adapters.kinds import Kind, decompose
from fastdeploy_diffusion.adapters.spellings import FloatArray, Place, Site, join
from fastdeploy_diffusion.checkpoints.weight_file import WeightFile


@dataclass(frozen=True, eq=False)
class LayerChange:
    """A change; nothing is read before it is computed.

    Attributes:
        name: Of the file's layer.
        site: The layers of ours that it is.
        kind: Of the weight's change; ``None`` if only the bias changes.
        parts: Tensors of the weight's change, by part.
        scale: Factor of the difference that they make.
        norms: The tensor with the norms that DoRA gives, and whether they are of outputs.
        bias: The tensor with the difference of the bias.
    """

    name: str
    site: Site
    file: WeightFile
    kind: Kind | None
    parts: Mapping[str, str]
    scale: float
    norms: tuple[str, bool] | None
    bias: str | None

    @property
    def tensors(self) -> tuple[str, ...]:
        """What changes of each layer: ``weight``, ``bias``."""
        return (*(("weight",) if self.kind else ()), *(("bias",) if self.bias else ()))

    def differ(self, place: Place, tensor: str, read: Callable[[Place], FloatArray]) -> FloatArray:
        """Compute the difference of one of our layers at strength 1.

        Args:
            tensor: ``weight`` or ``bias``.
            read: Reads the unchanged tensor of a layer.

        Returns:
            A new array, in the tensor's shape, or flattened but for the first axis.
        """
        if tensor == "bias":
            assert self.bias is not None
            return place.take(self.file.read(self.bias).reshape(-1))
        assert self.kind is not None
        parts = {part: self.file.read(name) for part, name in self.parts.items()}
        difference = self.kind.compute(parts)
        if self.scale != 1.0:
            difference = difference * np.float32(self.scale)
        if self.norms is not None:
            whole = join(self.site, read)
            changed = whole + difference.reshape(whole.shape)
            name, by_output = self.norms
            scale = self.file.read(name)
            difference = decompose(changed, scale, by_output=by_output) - whole
        return place.take(difference)


def flatten_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Flatten all axes but the first: files may hold kernels as matrices."""
    return (*shape, 1)[0], prod(shape[1:])
