"""A judge of the shapes model that looks at pixels only.

It knows what the words of a caption mean as colours and geometry, and nothing of the model, its
training or its latents.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in a picture; ``""`` where it sees nothing clear."""

    background: str
    colour: str
    shape: str
    size: str


def judge(image: Image.Image) -> Verdict:
    """Look at a picture of one shape on a plain background."""
    pixels = np.asarray(image.convert("RGB"), np.float64)
    border = np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3)])
    ground = np.median(border, axis=0)
    mask = _largest_part(np.linalg.norm(pixels - ground, axis=2) > 60)
    background = _name_colour(pixels[_erode(~mask)])
    if mask.sum() < 40:
        return Verdict(background, "", "", "")
    mask = _outline(pixels, mask, ground)
    inner = _erode(mask)
    colour = _name_colour(pixels[inner if inner.any() else mask])
    return Verdict(background, colour, _name_shape(mask), _name_size(mask))


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
    """By how much of its bounding box, and of its hull, the shape fills, where, and its corners."""
    filled = _fill_holes(mask)
    if filled.sum() - mask.sum() > 0.08 * filled.sum():
        return "ring"
    ys, xs = np.nonzero(filled)
    height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
    if not 0.75 < width / height < 1.34:
        return ""
    fill = filled.sum() / (height * width)
    solidity = filled.sum() / _hull_area(xs, ys)
    if solidity < 0.75:
        return "star"
    if fill > 0.68:
        corners = _diagonal_reach(xs, ys)
        return "square" if corners > 1.2 else "circle" if corners < 1.15 else ""
    rows = filled.sum(axis=1)[ys.min() : ys.max() + 1]
    top, bottom = rows[: height // 3].mean(), rows[-height // 3 :].mean()
    return "triangle" if fill > 0.4 and bottom > 1.8 * top else ""


def _diagonal_reach(xs: NDArray[np.int_], ys: NDArray[np.int_]) -> float:
    """Extent along the diagonals as a share of that along the axes: circle 1, square 1.41.

    Unlike the filled share of the bounding box, this sees a square's corners also where its sides
    are bent.
    """
    along_axes = np.ptp(xs) + np.ptp(ys) + 2
    return float((np.ptp(xs + ys) + np.ptp(xs - ys) + 2) / np.sqrt(2) / along_axes)


def _name_size(mask: NDArray[np.bool_]) -> str:
    """By the wider side of the bounding box, as a share of the picture."""
    ys, xs = np.nonzero(mask)
    extent = max(np.ptp(ys), np.ptp(xs)) + 1
    return "large" if extent > 0.46 * mask.shape[0] else "small"


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


def _fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
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


def _erode(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    for _ in range(2):
        mask = mask & np.logical_and.reduce(
            [_shift(mask, step, axis) for axis in (0, 1) for step in (1, -1)]
        )
    return mask


def _shift(array: NDArray, step: int, axis: int) -> NDArray:
    """Move by one pixel; what comes in from outside is zero."""
    moved = np.roll(array, step, axis)
    moved[(0 if step == 1 else -1,) if axis == 0 else (slice(None), 0 if step == 1 else -1)] = 0
    return moved


def _hull_area(xs: NDArray, ys: NDArray) -> float:
    """Area of the convex hull (Andrew's monotone chain), pixels counted whole."""
    points = sorted(
        {(x + dx, y + dy) for x, y in zip(xs, ys, strict=True) for dx in (0, 1) for dy in (0, 1)}
    )

    def half(path: list[tuple[int, int]]) -> list[tuple[int, int]]:
        kept: list[tuple[int, int]] = []
        for x, y in path:
            while len(kept) > 1 and (
                (kept[-1][0] - kept[-2][0]) * (y - kept[-2][1])
                - (kept[-1][1] - kept[-2][1]) * (x - kept[-2][0])
                <= 0
            ):
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    hull = half(points) + half(points[::-1])
    return 0.5 * abs(
        sum(a * d - b * c for (a, b), (c, d) in zip(hull, hull[1:] + hull[:1], strict=True))
    )
