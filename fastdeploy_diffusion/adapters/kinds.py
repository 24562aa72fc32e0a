"""The kinds of changes to a layer's weight, and how each is computed; in float32.

With s = alpha / rank, or 1 without alpha (of LoKr, where neither matrix is factored, too):

* LoRA (Hu et al., 2021): s · up · down; of convolutions, up is 1 × 1. LoCon (LyCORIS) with a middle
  (Tucker): its kernel, with both of its channel axes multiplied.
* LoHa (LyCORIS): s · (w1a · w1b) ∘ (w2a · w2b), each with a kernel in between where there is one.
* LoKr (LyCORIS): s · kron(w1, w2).
* full: the difference itself; of norms, too.

DoRA (Liu et al., 2024) changes the weight's norms after any of them, along the axis that the shape
of its scale says: of each output, as PEFT and LyCORIS have it, or of each input, over all others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from fastdeploy_diffusion.adapters.spellings import FloatArray

Parts = Mapping[str, FloatArray]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kind:
    """A kind of change.

    Args:
        name: For messages.
        needs: Parts that tell it, and must all be there; of a tuple, one of its sets.
        may: Further parts.
        compute: Makes the difference of its parts, without s, in any shape.
        measure: Tells the difference's shape from the parts'; it may be that of a matrix.
        find_rank: Tells the rank, or 0 where alpha has no effect.
    """

    name: str
    needs: tuple[frozenset[str], ...]
    may: frozenset[str]
    compute: Callable[[Parts], FloatArray]
    measure: Callable[[Shapes], tuple[int, ...]]
    find_rank: Callable[[Shapes], int]

    def scale(self, shapes: Shapes, alpha: float | None, is_root: bool) -> float:
        """Compute s; with ``is_root``, over the root of the rank (rsLoRA)."""
        rank = self.find_rank(shapes)
        if alpha is None or not rank:
            return 1.0
        return alpha / (sqrt(rank) if is_root else rank)


_COMMON = frozenset({"alpha", "dora_scale", "magnitude"})


def _matrix(array: FloatArray) -> FloatArray:
    return array.reshape(len(array), -1)


def _kernel(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:]


def _compute_lora(parts: Parts) -> FloatArray:
    up, down = parts["up"], parts["down"]
    if "mid" in parts:
        product = np.einsum("mn...,im,nj->ij...", parts["mid"], _matrix(up), _matrix(down))
        return np.asarray(product, np.float32)
    product = _matrix(up) @ _matrix(down)
    return product.reshape(len(up), *down.shape[1:])


def _measure_lora(shapes: Shapes) -> tuple[int, ...]:
    up, down = shapes["up"], shapes["down"]
    return (up[0], down[1], *_kernel(shapes.get("mid", down)))


def _compute_loha(parts: Parts) -> FloatArray:
    halves = []
    for number in (1, 2):
        up, down = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
        if f"hada_t{number}" in parts:
            halves.append(_rebuild(parts[f"hada_t{number}"], up, down))
        else:
            halves.append(_matrix(up) @ _matrix(down))
    product: FloatArray = halves[0] * halves[1]
    return product


def _measure_loha(shapes: Shapes) -> tuple[int, ...]:
    up, down = shapes["hada_w1_a"], shapes["hada_w1_b"]
    if "hada_t1" in shapes:
        return (up[1], down[1], *_kernel(shapes["hada_t1"]))
    return (up[0], *down[1:])


def _compute_lokr(parts: Parts) -> FloatArray:
    first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    if "lokr_w2" in parts:
        second = parts["lokr_w2"]
    elif "lokr_t2" in parts:
        second = _rebuild(parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    else:
        up, down = parts["lokr_w2_a"], parts["lokr_w2_b"]
        second = (up @ _matrix(down)).reshape(len(up), *down.shape[1:])
    product: FloatArray = np.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second)
    return product


def _measure_lokr(shapes: Shapes) -> tuple[int, ...]:
    if "lokr_w1" in shapes:
        outer = shapes["lokr_w1"]
    else:
        outer = (shapes["lokr_w1_a"][0], shapes["lokr_w1_b"][1])
    if "lokr_w2" in shapes:
        inner = shapes["lokr_w2"]
    elif "lokr_t2" in shapes:
        sides = shapes["lokr_w2_a"][1], shapes["lokr_w2_b"][1]
        inner = (*sides, *_kernel(shapes["lokr_t2"]))
    else:
        inner = (shapes["lokr_w2_a"][0], *shapes["lokr_w2_b"][1:])
    return (outer[0] * inner[0], outer[1] * inner[1], *_kernel(inner))


def _find_lokr_rank(shapes: Shapes) -> int:
    for name in ("lokr_w1_b", "lokr_w2_b"):
        if name in shapes:
            return shapes[name][0]
    return 0


def _rebuild(kernel: FloatArray, up: FloatArray, down: FloatArray) -> FloatArray:
    rebuilt: FloatArray = np.einsum("ij...,ip,jr->pr...", kernel, up, down)
    return rebuilt


_LOKR_FIRST = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))
_LOKR_SECOND = (frozenset({"lokr_w2"}), frozenset({"lokr_w2_a", "lokr_w2_b"}))

KINDS: tuple[Kind, ...] = (
    Kind(
        "LoRA",
        (frozenset({"up", "down"}),),
        frozenset({"mid"}) | _COMMON,
        _compute_lora,
        _measure_lora,
        lambda shapes: shapes["down"][0],
    ),
    Kind(
        "LoHa",
        (frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),),
        frozenset({"hada_t1", "hada_t2"}) | _COMMON,
        _compute_loha,
        _measure_loha,
        lambda shapes: shapes["hada_w1_b"][0],
    ),
    Kind(
        "LoKr",
        tuple(first | second for first in _LOKR_FIRST for second in _LOKR_SECOND),
        frozenset({"lokr_t2"}) | _COMMON,
        _compute_lokr,
        _measure_lokr,
        _find_lokr_rank,
    ),
    Kind(
        "full",
        (frozenset({"diff"}),),
        frozenset({"dora_scale", "magnitude", "alpha"}),
        lambda parts: parts["diff"],
        lambda shapes: shapes["diff"],
        lambda shapes: 0,
    ),
    Kind(
        "norm",
        (frozenset({"w_norm"}),),
        frozenset(),
        lambda parts: parts["w_norm"],
        lambda shapes: shapes["w_norm"],
        lambda shapes: 0,
    ),
)
BIASES = ("diff_b", "b_norm")
"""Parts that are the difference of a layer's bias."""


def find_kind(names: frozenset[str]) -> Kind | None:
    """Tell the kind of a change from its parts, all of which it must know."""
    for kind in KINDS:
        for needed in kind.needs:
            if needed <= names and names - needed <= kind.may:
                return kind
    return None


def decompose(weight: FloatArray, scale: FloatArray, *, by_output: bool) -> FloatArray:
    """Give a weight's outputs, or its inputs, new norms: DoRA.

    Args:
        scale: The norms: as many as there are outputs, or inputs.
    """
    rows = weight if by_output else np.swapaxes(weight, 0, 1)
    norms = np.linalg.norm(_matrix(np.ascontiguousarray(rows)), axis=1)
    # An output of zeros stays one, as in LyCORIS.
    factors = scale.reshape(-1) / (norms + np.finfo(np.float32).eps)
    shape = (-1, *[1] * (weight.ndim - 1)) if by_output else (1, -1, *[1] * (weight.ndim - 2))
    decomposed: FloatArray = weight * factors.reshape(shape)
    return decomposed


def fits_outputs(part: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> bool | None:
    """Tell along which axis norms count: True for outputs, False for inputs, None if they fit none.

    Args:
        part: ``magnitude`` is PEFT's, of the outputs in whatever shape; ``dora_scale``'s shape
            tells it.
        weight: Shape of the layer's weight.
    """
    size = prod(shape)
    if part == "magnitude":
        return True if size == weight[0] else None
    if size == weight[0] and shape[0] == size:
        return True
    return False if len(shape) > 1 and shape[1] == size == weight[1] else None
