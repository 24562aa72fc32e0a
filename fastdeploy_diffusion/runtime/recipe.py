"""Recipes of weights: how a build's weights are derived from stored tensors, as JSON.

A weight is a stored tensor, by name, or a `Derivation`: a named operation with its sources. A build
keeps its recipe beside its graph, so that weights are bound without the passes that made it, and
without Paddle.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.suggest import did_you_mean

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
_PLAIN: tuple[Literal["C"], Literal["A"]] = ("C", "A")  # contiguous, aligned: as engines take it


class Tensors(Protocol):
    """Stored tensors by name, in PyTorch's layout: the weight of a linear layer is [out, in]."""

    def read_stored(self, name: str) -> Array:
        """Read one in its stored type, bfloat16 as its uint16 bits."""

    def read(self, name: str) -> FloatArray:
        """Read one as float32."""


@dataclass(frozen=True)
class Derivation:
    """A weight that an operation makes of others."""

    sources: tuple[MadeOf, ...]
    op: str
    params: Mapping[str, Any] = field(default_factory=dict)


MadeOf: TypeAlias = "str | Derivation"
"""The origin of a weight: the name of a stored tensor, or a derivation."""


@dataclass(frozen=True)
class Weight:
    """A weight that is bound when a build is loaded.

    Args:
        dtype: Of the bound array: ``"float32"``, ``"float16"``, or ml_dtypes' ``"bfloat16"``.
    """

    made_of: MadeOf
    dtype: str = "float32"


@dataclass(frozen=True)
class _Operation:
    """A registered operation.

    Args:
        run: Maps arrays, and parameters by name, to an array.
        moves: Whether it computes nothing, so that any type of number goes through.
    """

    run: Callable[..., Array]
    moves: bool


_OPERATIONS: dict[str, _Operation] = {}


def register_op(
    name: str, *, moves: bool = False
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Register a function of NumPy arrays as an operation of derivations; a decorator.

    Args:
        name: Unique among all distributions, as ``"acme.fold"``.
        moves: Whether it only moves numbers, computing nothing. It gets them in their stored type
            then, bfloat16 as uint16; otherwise in float32.

    Raises:
        ValueError: Another function has the name.
    """

    def register(run: Callable[..., Array]) -> Callable[..., Array]:
        earlier = _OPERATIONS.get(name)
        # The same function again: its module was imported again.
        if earlier and _locate(earlier.run) != _locate(run):
            raise ValueError(f"the operation {name!r} is {_locate(earlier.run)} already")
        _OPERATIONS[name] = _Operation(run, moves)
        return run

    return register


def list_names(made_of: MadeOf) -> tuple[str, ...]:
    """List the stored tensors that a weight is made of."""
    if isinstance(made_of, str):
        return (made_of,)
    return tuple(name for each in made_of.sources for name in list_names(each))


def replace_names(made_of: MadeOf, find: Callable[[str], MadeOf]) -> MadeOf:
    """Replace the stored tensors that a weight is made of."""
    if isinstance(made_of, str):
        return find(made_of)
    sources = tuple(replace_names(each, find) for each in made_of.sources)
    return Derivation(sources, made_of.op, made_of.params)


def is_moved(made_of: MadeOf) -> bool:
    """Tell whether a weight is made without computing: it may have any type of number."""
    if isinstance(made_of, str):
        return True
    return _find(made_of.op).moves and all(map(is_moved, made_of.sources))


def digest_code(made_of: MadeOf) -> dict[str, str]:
    """Hash the source files of a weight's operations; sha256 by operation."""
    if isinstance(made_of, str):
        return {}
    code = {op: each for part in made_of.sources for op, each in digest_code(part).items()}
    file = inspect.getsourcefile(_find(made_of.op).run)
    return code | {made_of.op: hashlib.sha256(Path(str(file)).read_bytes()).hexdigest()}


def find_fault(made_of: MadeOf) -> str:
    """Return why a derivation cannot be run, or kept as JSON; empty if it can."""
    if isinstance(made_of, str):
        return ""
    if made_of.op not in _OPERATIONS:
        return f"there is no operation {made_of.op!r}"
    params = dict(made_of.params)
    try:
        is_json = json.loads(json.dumps(params)) == params
    except (TypeError, ValueError):
        is_json = False
    if not is_json:
        return f"the parameters of {made_of.op} are no JSON values: {params}"
    return next(filter(None, map(find_fault, made_of.sources)), "")


def derive(weight: Weight, tensors: Tensors) -> Array:
    """Make a weight, copied only if its layout or type differs from the stored one.

    Numbers that are only moved stay in their stored type until the end: a half-precision tensor is
    not widened to float32 on its way to the same type.

    Returns:
        A contiguous array, to be read only: it may lie on a mapped file. Values beyond float16's
        range are infinite in it.

    Raises:
        CheckpointError: A tensor cannot be read.
        EngineError: An operation is not registered.
    """
    made = _make(weight.made_of, tensors)
    if weight.dtype == "bfloat16":
        import ml_dtypes

        if made.dtype == np.uint16:
            return np.require(made, None, _PLAIN).view(ml_dtypes.bfloat16)
        return np.asarray(_widen(made), ml_dtypes.bfloat16, order="C")
    if made.dtype.name == weight.dtype:
        return np.require(made, None, _PLAIN)
    with np.errstate(over="ignore"):  # the check of outputs finds infinities, and names them
        return np.require(_widen(made), weight.dtype, _PLAIN)


def describe(made_of: MadeOf) -> Any:
    """Describe the origin of a weight as JSON values."""
    if isinstance(made_of, str):
        return made_of
    described = {"op": made_of.op, "sources": [describe(each) for each in made_of.sources]}
    return {**described, "params": dict(made_of.params)} if made_of.params else described


def parse(described: Any) -> MadeOf:
    """Parse the JSON values of `describe`.

    Raises:
        ValueError: They are not of that form.
    """
    if isinstance(described, str):
        return described
    try:
        sources = tuple(parse(each) for each in described["sources"])
        return Derivation(sources, str(described["op"]), dict(described.get("params", {})))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no weight is made like this: {described}") from error


def _make(made_of: MadeOf, tensors: Tensors) -> Array:
    if isinstance(made_of, str):
        stored = tensors.read_stored(made_of)
        return tensors.read(made_of) if stored.dtype == np.float64 else stored
    operation = _find(made_of.op)
    parts = [_make(each, tensors) for each in made_of.sources]
    if not operation.moves or len({part.dtype for part in parts}) > 1:
        parts = [_widen(part) for part in parts]
    return operation.run(*parts, **made_of.params)


def _find(name: str) -> _Operation:
    if name in _OPERATIONS:
        return _OPERATIONS[name]
    raise EngineError(
        f"weights of this build are made by an operation {name!r}, which is not registered",
        allowed=", ".join(_OPERATIONS),
        fix=did_you_mean(name, _OPERATIONS) or "install the passes that it was built with",
    )


def _widen(array: Array) -> FloatArray:
    """Widen numbers of any type, and the bits of bfloat16, to float32."""
    if array.dtype == np.int8:
        raise EngineError(
            "a tensor in int8 is read as a weight in floating point",
            allowed="float16, bfloat16, float32, float64",
            fix="take the checkpoint in one of these types",
        )
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)  # float32's upper half
    return np.require(array, np.float32, "A")


def _locate(run: Callable[..., Any]) -> str:
    return f"{run.__module__}.{run.__qualname__}"


@register_op("concatenate", moves=True)
def _concatenate(*parts: Array) -> Array:
    """Concatenate along the first axis, the outputs of weights."""
    return np.concatenate(parts)


@register_op("transpose", moves=True)
def _transpose(array: Array) -> Array:
    transposed: Array = array.T
    return transposed


@register_op("tile", moves=True)
def _tile(array: Array, times: int) -> Array:
    return np.tile(array, times)


@register_op("patches", moves=True)
def _order_by_patches(kernel: Array) -> Array:
    """Turn a (O, I, height, width) kernel into a matrix (O, height · width · I)."""
    rows: Array = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    return rows


@register_op("part-pairs", moves=True)
def _part_pairs(array: Array, heads: int) -> Array:
    """Move the first numbers of all pairs of a head's outputs before the second ones."""
    pairs = array.reshape(heads, -1, 2, *array.shape[1:])
    parted: Array = pairs.swapaxes(1, 2).reshape(array.shape)
    return parted


@register_op("add-one")
def _add_one(vector: FloatArray, parts: int, chosen: list[int]) -> FloatArray:
    """Add one to some parts of a vector, which are of equal size."""
    raised: FloatArray = vector.reshape(parts, -1).copy()
    raised[chosen] += 1
    return raised.reshape(-1)


@register_op("phases")
def _split_into_phases(kernel: FloatArray) -> FloatArray:
    """Turn a (O, I, 3, 3) kernel into the (4 · O, I, 2, 2) kernels of an upsampler's phases.

    Phases come in the order even-even, even-odd, odd-even, odd-odd (rows, columns).
    """

    def add(kernel: FloatArray, axis: int, is_odd: int) -> FloatArray:
        first, middle, last = np.moveaxis(kernel, axis, 0)
        # An even row reads the row before once and its own twice; an odd one the reverse.
        pair = (first + middle, last) if is_odd else (first, middle + last)
        return np.stack(pair, axis)

    return np.concatenate(
        [add(add(kernel, 2, row), 3, column) for row in (0, 1) for column in (0, 1)]
    )


@register_op("winograd")
def _transform_kernel(kernel: FloatArray, matrix: list[list[float]]) -> FloatArray:
    """Turn a (O, I, 3, 3) kernel into (points, O, I), a matrix for each point of a tile.

    Args:
        matrix: The transform of one axis, the paper's G.
    """
    outputs, inputs = kernel.shape[:2]
    both = np.kron(matrix, matrix).T.astype(np.float32)
    points = kernel.reshape(outputs * inputs, 9) @ both
    return np.ascontiguousarray(points.T).reshape(-1, outputs, inputs)


@register_op("quantize")
def _quantize(weight: FloatArray, bits: int) -> npt.NDArray[np.int8]:
    """Round a weight to int8, symmetric, in steps of `quantization-scales` of as many bits."""
    steps = _measure_steps(weight, bits).reshape(-1, *(1,) * (weight.ndim - 1))
    return np.rint(weight / steps).astype(np.int8)


@register_op("quantization-scales")
def _measure_steps(weight: FloatArray, bits: int) -> FloatArray:
    """Choose a step for each output, the first axis: of 8 bits, 127 steps reach its largest weight.

    Args:
        bits: 8, or fewer, which leave the ends of int8 free: of 7, 63 steps reach it.
    """
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    most = np.float32(2 ** (bits - 1) - 1)
    # Of an output that is all zeros, any step is right.
    steps: FloatArray = np.where(largest > 0, largest / most, np.float32(1))
    return steps
