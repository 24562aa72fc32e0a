"""A network ready for engines: its layer, and the names, shapes and types of its tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.quantization import Quantization
from fastdeploy_diffusion.size_range import Size, SizeRange, choose_size, fits, parse_range
from fastdeploy_diffusion.suggest import did_you_mean

RESIDUAL = "residual_"
"""Begins the names of inputs that belong to a step, as the sample does."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of one input or output.

    Args:
        shape: Dimensions; a `SizeRange` is free within bounds, ``None`` of any size from 1.
        dtype: Numpy's name of the element type: ``"float32"``, ``"int64"``, ``"bool"`` …
    """

    name: str
    shape: tuple[Size, ...]
    dtype: str

    @property
    def open_shape(self) -> tuple[int | None, ...]:
        """The shape for traces: ``None`` for all that is free."""
        return tuple(size if isinstance(size, int) else None for size in self.shape)

    def describe(self) -> list[Any]:
        """Describe name, shape and type as JSON values."""
        sizes = [size.describe() if isinstance(size, SizeRange) else size for size in self.shape]
        return [self.name, sizes, self.dtype]

    @classmethod
    def parse(cls, description: list[Any]) -> "TensorSpec":
        """Parse the JSON values of `describe`."""
        name, sizes, dtype = description
        shape = [parse_range(size) if isinstance(size, list) else size for size in sizes]
        return cls(name, tuple(shape), dtype)

    def accepts(self, array: np.ndarray) -> bool:
        """Tell whether an array has this type, this rank and these sizes."""
        return array.dtype == np.dtype(self.dtype) and self._fits(array.shape)

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.shape) and all(map(fits, shape, self.shape))

    def __str__(self) -> str:
        return describe(self.dtype, ["any" if size is None else str(size) for size in self.shape])


class Signature(NamedTuple):
    """The inputs and outputs of a component."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Program:
    """One component of a pipeline, as engines see it.

    Args:
        name: The component ("text_encoder", "denoiser", "vae_decoder"): used in errors and reports.
        layer: The Paddle layer, in eval mode. ``forward`` takes the inputs in the order of
            ``inputs``, its parameters named like them, and returns one tensor or a sequence of
            tensors in the order of ``outputs``. ``None`` where only a finished build is loaded.
        tensors: Source of stored tensors (``runtime.recipe.Tensors``); ``None`` where the layer
            itself holds its weights. With it, the layer may be one without values.
        recipe: The derivation of each parameter of the layer, by name (``runtime.recipe.MadeOf``),
            in PyTorch's layout; by default the tensor of the same name. A finished build has its
            own.
        store: Keeps converted weights (``runtime.weight_store.WeightStore``); ``None`` where none
            are kept.
        graph_passes: Applied to the exported graph, in order
            (``passes.graph_pass.GraphPass``); engines that read no ONNX leave them be.
        quantization: For a build in int8.
    """

    name: str
    layer: Callable[..., Any] | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tensors: Any = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    store: Any = None
    graph_passes: tuple[Any, ...] = ()
    quantization: Quantization | None = None


def fill_shapes(
    specs: Sequence[TensorSpec], sizes: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Fill in free sizes of shapes, by name, as `choose_size`."""
    return {spec.name: tuple(choose_size(size, sizes) for size in spec.shape) for spec in specs}


def check_feeds(
    component: str,
    specs: Sequence[TensorSpec],
    feeds: Mapping[str, np.ndarray],
    *,
    complete: bool = True,
) -> None:
    """Refuse feeds that do not match the specs.

    Args:
        complete: Whether every input must be there.

    Raises:
        EngineError: A name is missing or unknown, or a type or shape is not the spec's.
    """
    names = [spec.name for spec in specs]
    for name in feeds:
        if name not in names:
            raise EngineError(
                f"{component}: unknown input {name!r}",
                allowed=", ".join(names),
                fix=did_you_mean(name, names),
            )
    missing = [name for name in names if name not in feeds]
    if complete and missing:
        raise EngineError(
            f"{component}: input {', '.join(map(repr, missing))} was not given",
            allowed=", ".join(names),
            fix="feed every input, or bind it before the run",
        )
    for spec in specs:
        if spec.name in feeds:
            check_array(f"{component}: input {spec.name!r}", spec, feeds[spec.name])


def check_array(what: str, spec: TensorSpec, array: object) -> None:
    """Refuse anything but an array of the spec's type and shape.

    Args:
        what: Its name for the message: ``"denoiser: input 'sample'"``.

    Raises:
        EngineError: It is no numpy array, or of another type or shape.
    """
    if not isinstance(array, np.ndarray):
        raise EngineError(
            f"{what} is of type {type(array).__name__}, not a numpy array",
            allowed=str(spec),
            fix=f"numpy.asarray(…, dtype={spec.dtype!r})",
        )
    if not spec.accepts(array):
        fix = f'array.astype("{spec.dtype}")' if array.dtype != np.dtype(spec.dtype) else ""
        raise EngineError(
            f"{what} is {describe(str(array.dtype), array.shape)}", allowed=str(spec), fix=fix
        )


def describe(dtype: str, shape: Sequence[int | str]) -> str:
    """Write a type and a shape as ``float32 (2, 4, 64, 64)``."""
    return f"{dtype} ({', '.join(map(str, shape))})"
