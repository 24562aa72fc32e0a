"""The estimate of a request's memory, a lower bound, and its comparison with what is free.

    need = weights + max(activations of the largest stage, pictures)

* weights: the checkpoint's numbers in the precision that a component runs in; of all components
  that are in memory at once, which ``memory`` decides. Streamed blocks count as nothing.
* activations: `activations` counts the numbers that are alive at once in a network; engines hold a
  share of them, which was measured (``held_features``).
* pictures: all of a batch, in several copies on the way to bytes.

It is meant to be a little less than the real need: a request that it refuses cannot work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fastdeploy_diffusion.errors import ResourceError
from fastdeploy_diffusion.families.networks.activations import Activations
from fastdeploy_diffusion.memory_room import find_memory_room, format_size
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.program import Signature

if TYPE_CHECKING:
    from fastdeploy_diffusion.engines.base import Engine
    from fastdeploy_diffusion.predictors.component import Component, Parts


# Peaks of one run of a loaded component above what it held before, in MiB, beside what was counted
# (MiB of feature maps / of scores, float32), with the preset "shapes" on two cores; in paddle and
# paddle-eager both shares are seen, in the others the scores make no difference:
#
#   denoiser, pixels and rows   512, 2   512, 8   768, 2   768, 8     1024, 2
#   counted                     14 / 32  58 / 128 32 / 162 131 / 648  58 / 512
#   paddle                      139      480      471      1688       1251
#   openvino (118 for a small)  168      216      190      335        224
#   onnxruntime                 18       82       44       221        82
#
#   VAE decoder, pixels         512      768       1024
#   counted                     80 / 64  180 / 324 320 / 1024
#   paddle                      301      704       2072
#   openvino (40 for a small)   141      277       465
#   onnxruntime                 132      377
#   the layer, and its build    473      1002      2188
#
# Hence the shares in the engines' classes.

# Decoded, twice while they are joined; as colours; and on the way to bytes.
_PICTURE_BYTES = 3 * 4 * 3


@dataclass(frozen=True)
class StageNeed:
    """The need of one component, in bytes.

    Args:
        weights: In its precision.
        activations: While it runs.
    """

    weights: int = 0
    activations: int = 0


class PictureBatch(NamedTuple):
    """Pictures that are drawn at once; sizes in pixels."""

    pictures: int
    height: int
    width: int

    def __str__(self) -> str:
        many = "1 picture" if self.pictures == 1 else f"{self.pictures} pictures at once"
        return f"{many} of {self.width} x {self.height} (width x height)"


@dataclass(frozen=True)
class MemoryNeed:
    """The need of a batch at least, in bytes.

    Args:
        pictures: Of all of them, as numbers.
    """

    weights: int
    activations: int
    pictures: int

    @property
    def total(self) -> int:
        """The sum; pictures exist when the last stage has ended."""
        return self.weights + max(self.activations, self.pictures)

    def beside(self, other: MemoryNeed, memory: str) -> MemoryNeed:
        """Join the needs of two that run one after the other for the same pictures.

        Args:
            memory: As `DiffusionConfig.memory`.
        """
        weights = self.weights, other.weights
        return MemoryNeed(
            sum(weights) if memory == "resident" else max(weights),
            max(self.activations, other.activations),
            max(self.pictures, other.pictures),
        )

    def __str__(self) -> str:
        largest = max((self.activations, "activations"), (self.pictures, "pictures"))
        return (
            f"{format_size(self.total)} (weights {format_size(self.weights)}, {largest[1]} "
            f"{format_size(largest[0])})"
        )


Estimate = Callable[[PictureBatch, str], MemoryNeed]
"""The need of a batch, by the option ``memory``."""


def hold_activations(engine: Engine, precision: str, counted: Activations) -> int:
    """Estimate the bytes of activations that an engine holds at least."""
    # Not their sum: maps are largest where the resolution is, and attention is mostly elsewhere.
    numbers = max(engine.held_features * counted.features, engine.held_scores * counted.scores)
    return int(numbers * PRECISIONS[precision].activation_bytes)


def estimate_stage(
    component: Component, signature: Signature, sizes: Mapping[str, int]
) -> StageNeed:
    """Estimate a component's need of CPU memory: nothing on other devices.

    Args:
        sizes: Of a run, by the names of free dimensions.
    """
    placement, network = component.placement, component.network
    if placement.spec.device.kind != "cpu":
        return StageNeed()
    precision = placement.spec.precision
    counted = component.count_activations(signature, sizes)
    return StageNeed(
        network.count_weights() * PRECISIONS[precision].weight_bytes,
        hold_activations(placement.engine, precision, counted),
    )


def estimate_need(
    parts: Parts, rows: int, batch: PictureBatch, memory: str, *, decodes: bool = True
) -> MemoryNeed:
    """Estimate the need of a batch.

    Args:
        rows: Of the denoiser's batch for one picture.
        memory: As `DiffusionConfig.memory`.
        decodes: Whether the decoder runs, and not that of a refiner.
    """
    weights, activations, denoising = [], [], 0
    for part in (each for each in parts if decodes or each != parts.decoder):
        is_denoising = part in (*parts.controlnets, parts.denoiser)
        # Texts are encoded one by one, and so are pictures encoded and decoded.
        count = rows * batch.pictures if is_denoising else 1
        stage = estimate_stage(part.component, part.signature, {**part.sizes, "batch": count})
        activations.append(stage.activations)
        if is_denoising:  # they are in memory together
            denoising += 0 if memory == "streamed" else stage.weights
        else:
            weights.append(stage.weights)
    weights.append(denoising)
    return MemoryNeed(
        sum(weights) if memory == "resident" else max(weights),
        max(activations),
        _PICTURE_BYTES * batch.pictures * batch.height * batch.width,
    )


class WaysOut(NamedTuple):
    """Alternatives to a batch that does not fit, for an error."""

    allowed: str
    fix: str


def find_ways_out(
    batch: PictureBatch, room: int, estimate: Estimate, memory: str, multiple: int
) -> WaysOut:
    """Find what would fit: fewer pictures, ``memory="staged"``, a smaller size.

    Args:
        estimate: The need of a batch, by the option ``memory``.
        multiple: Sizes are multiples of it.
    """

    def fits(tried: PictureBatch, mode: str) -> bool:
        return estimate(tried, mode).total <= room

    allowed, fixes = [], []
    if batch.pictures > 1:
        most = _find_most(lambda count: fits(batch._replace(pictures=count), memory), batch)
        if most:
            allowed.append(f"up to {most} of this size at once")
            fixes.append(f"num_images_per_prompt={most}, again and again")
    if memory == "resident" and fits(batch, "staged"):
        fixes.append("memory='staged'")
    alone = batch._replace(pictures=1)
    if not fits(alone, memory) and (
        smaller := _find_smaller(lambda tried: fits(tried, memory), alone, multiple)
    ):
        allowed.append(f"one of {smaller.width} x {smaller.height}")
        fixes.append(f"height={smaller.height}, width={smaller.width}")
    fixes = fixes or ["free memory, or take a machine with more of it"]
    return WaysOut(" or ".join(allowed), " — or: ".join(fixes))


def require_room(what: str, size: int) -> None:
    """Refuse an allocation that exceeds the free memory.

    Args:
        what: Its purpose, for the message.
        size: Lower bound in bytes.

    Raises:
        ResourceError: There is less.
    """
    room = find_memory_room()
    if room is not None and size > room.size:
        raise ResourceError(
            f"{what} takes at least {format_size(size)} of memory, and {room} can be had",
            fix="a smaller height and width, or a machine with more memory; builds that are made "
            "there can be copied (cache_dir)",
        )


def _find_most(fits: Callable[[int], bool], batch: PictureBatch) -> int:
    """Find the largest number of pictures that fits; 0 if not even one does."""
    low, high = 0, batch.pictures
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _find_smaller(
    fits: Callable[[PictureBatch], bool], batch: PictureBatch, multiple: int
) -> PictureBatch | None:
    """Find about the largest size of the same form that fits, for one picture."""
    low, high, found = 0, max(batch.height, batch.width) // multiple, None
    while high - low > 1:
        middle = (low + high) // 2
        height, width = (
            multiple * max(middle * side // max(batch.height, batch.width), 1)
            for side in (batch.height, batch.width)
        )
        smaller = PictureBatch(1, height, width)
        if fits(smaller):
            low, found = middle, smaller
        else:
            high = middle
    return found
