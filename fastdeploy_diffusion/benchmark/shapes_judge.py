"""A judge of the models in the box that looks at pixels only.

It knows what the words of a caption mean as colours and geometry, and nothing of the models, their
training or their latents.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 70),
    "blue": (40, 80, 220),
    "yellow": (240, 215, 50),
    "orange": (245, 135, 30),
    "purple": (130, 50, 170),
    "pink": (250, 150, 190),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
    "gray": (128, 128, 128),
}

_CORNERS = {3: "triangle", 4: "square", 5: "star"}
_FEWEST_PIXELS = 40


@dataclass(frozen=True)
class Verdict:
    """Colours, shape and size in a picture; ``""`` where they are not clear."""

    background: str
    colour: str
    shape: str
    size: str


def judge(image: Image.Image) -> Verdict:
    """Look at a picture of one shape on a plain background."""
    pixels, mask, ground = _look_at(image)
    background = _name_colour(pixels[_erode(~mask)])
    if mask.sum() < _FEWEST_PIXELS:
        return Verdict(background, "", "", "")
    mask = _outline(pixels, mask, ground)
    inner = _erode(mask)
    colour = _name_colour(pixels[inner if inner.any() else mask])
    return Verdict(background, colour, _name_shape(mask), _name_size(mask))


def find_object(image: Image.Image) -> NDArray[np.bool_]:
    """Find the pixels of the shape, its holes included: (H, W), none where there is no shape."""
    pixels, mask, ground = _look_at(image)
    if mask.sum() < _FEWEST_PIXELS:
        return np.zeros_like(mask)
    return fill_holes(_outline(pixels, mask, ground))


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Add what cannot be reached from the border of a mask, (H, W)."""
    outside = np.zeros_like(mask)
    outside[[0, -1]] = outside[:, [0, -1]] = True
    outside &= ~mask
    while True:
        spread = outside.copy()
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            spread |= _shift(outside, step, axis)
        spread &= ~mask
        if (spread == outside).all():
            return ~outside
        outside = spread


def _look_at(
    image: Image.Image,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """The pixels, which of them belong to the largest thing, and the background's colour."""
    pixels = np.asarray(image.convert("RGB"), np.float64)
    border = np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3)])
    ground = np.median(border, axis=0)
    return pixels, _largest_part(np.linalg.norm(pixels - ground, axis=2) > 60), ground


def _outline(
    pixels: NDArray[np.float64], mask: NDArray[np.bool_], ground: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """The part whose pixels are nearer to the object's colour than to the background's.

    A soft edge is cut in its middle then, for every pair of colours: a fixed distance from the
    background would widen objects of strong contrast, and close the notches of small stars.
    """
    inner = _erode(mask)
    colour = np.median(pixels[inner if inner.any() else mask], axis=0)
    to_colour = np.linalg.norm(pixels - colour, axis=2)
    return _largest_part(to_colour < np.linalg.norm(pixels - ground, axis=2))


def _name_colour(pixels: NDArray[np.float64]) -> str:
    """The colour that three quarters of the pixels (N, 3) have, or ``""``."""
    if not len(pixels):
        return ""
    colour = np.median(pixels, axis=0)
    if np.mean(np.linalg.norm(pixels - colour, axis=1) < 50) < 0.75:
        return ""
    distances = {
        name: float(np.linalg.norm(colour - np.array(value))) for name, value in COLOURS.items()
    }
    nearest = min(distances, key=lambda name: distances[name])
    return nearest if distances[nearest] < 60 else ""


def _name_shape(mask: NDArray[np.bool_]) -> str:
    """By the hole, and by the number of corners that the outline has."""
    filled = fill_holes(mask)
    if filled.sum() - mask.sum() > 0.08 * filled.sum():
        return "ring"
    waves = _outline_waves(filled)
    corners = int(waves.argmax()) + 1
    if waves.max() < 0.06:
        return "circle"
    return _CORNERS.get(corners, "") if waves.max() > 0.1 else ""


def _outline_waves(filled: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Measure the variation of the distance from the middle to the outline, on the way round.

    Entry ``n - 1`` is the amplitude of ``n`` waves (1 to 8), as a share of the mean distance. Bent
    sides and soft notches change it little. As drawn: nothing for a circle, 0.27 of three waves for
    a triangle, 0.14 of four for a square, 0.35 of five for a star.
    """
    ys, xs = np.nonzero(filled)
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)[:, None]
    steps = np.arange(0, max(filled.shape), 0.25)
    rows = np.round(ys.mean() + np.sin(angles) * steps).astype(int)
    columns = np.round(xs.mean() + np.cos(angles) * steps).astype(int)
    height, width = filled.shape
    is_there = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    is_inside = filled[rows.clip(0, height - 1), columns.clip(0, width - 1)] & is_there
    spectrum = np.abs(np.fft.rfft(is_inside.sum(axis=1)))
    amplitudes: NDArray[np.float64] = 2 * spectrum[1:9] / spectrum[0]
    return amplitudes


def _name_size(mask: NDArray[np.bool_]) -> str:
    """By the wider side of the bounding box: large is more than half of the picture."""
    ys, xs = np.nonzero(mask)
    extent = max(np.ptp(ys), np.ptp(xs)) + 1
    return "large" if extent > 0.5 * mask.shape[0] else "small"


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        spread = labels.copy()
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            spread = np.maximum(spread, _shift(labels, step, axis))
        spread = np.where(mask, spread, 0)
        if (spread == labels).all():
            break
        labels = spread
    names, counts = np.unique(labels[mask], return_counts=True)
    return labels == names[counts.argmax()] if len(names) else mask


def _erode(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    for _ in range(2):
        mask = mask & np.logical_and.reduce(
            [_shift(mask, step, axis) for axis in (0, 1) for step in (1, -1)]
        )
    return mask


def _shift(array: NDArray[Any], step: int, axis: int) -> NDArray[Any]:
    """Move by one pixel; what comes in from outside is zero."""
    moved = np.roll(array, step, axis)
    moved[(0 if step == 1 else -1,) if axis == 0 else (slice(None), 0 if step == 1 else -1)] = 0
    return moved
