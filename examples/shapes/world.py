"""Captions and pictures of the shapes world: ``a small red circle on a blue background``."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COLOURS = {
    "red": ("红色", (220, 40, 40)),
    "green": ("绿色", (40, 160, 70)),
    "blue": ("蓝色", (40, 80, 220)),
    "yellow": ("黄色", (240, 215, 50)),
    "orange": ("橙色", (245, 135, 30)),
    "purple": ("紫色", (130, 50, 170)),
    "pink": ("粉色", (250, 150, 190)),
    "white": ("白色", (250, 250, 250)),
    "black": ("黑色", (15, 15, 15)),
    "gray": ("灰色", (128, 128, 128)),
}
SHAPES = {
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "star": "星形",
    "ring": "圆环",
}
SIZES = {"small": "小", "large": "大"}
RESOLUTION = 128
SMALLEST, LARGEST = 24.0, 44.0  # radius of objects that are placed, in pixels
_MARGIN = 4.0


@dataclass(frozen=True)
class Scene:
    """What a caption says. ``size`` is empty when the caption leaves it open."""

    size: str
    colour: str
    shape: str
    background: str

    @property
    def is_held_out(self) -> bool:
        """Whether training never shows this colour, shape and background together (1 in 7)."""
        colours, shapes = list(COLOURS), list(SHAPES)
        place = (
            colours.index(self.colour)
            + 2 * shapes.index(self.shape)
            + 3 * colours.index(self.background)
        )
        return place % 7 == 0

    def caption(self, language: str) -> str:
        """The prompt in ``"en"`` or ``"zh"``."""
        if language == "en":
            size = f"{self.size} " if self.size else ""
            return f"a {size}{self.colour} {self.shape} on a {self.background} background"
        size = SIZES[self.size] if self.size else ""
        background, colour = COLOURS[self.background][0], COLOURS[self.colour][0]
        return f"{background}背景上的{size}{colour}{SHAPES[self.shape]}"


def all_scenes() -> list[Scene]:
    """Every scene with distinct colours: 10 × 9 colours × 5 shapes × 3 sizes."""
    return [
        Scene(size, colour, shape, background)
        for size in ("", *SIZES)
        for colour in COLOURS
        for shape in SHAPES
        for background in COLOURS
        if colour != background
    ]


class Placement(NamedTuple):
    """Where an object is, and how large: its centre from the left and the top, and its radius.

    All are in pixels.
    """

    x: float
    y: float
    radius: float


def place_object(random: np.random.Generator) -> Placement:
    """Choose a place and a size at which the whole object is in the picture."""
    radius = random.uniform(SMALLEST, LARGEST)
    # Triangles and stars reach out farther than their radius.
    slack = max(RESOLUTION / 2 - 1.15 * radius - _MARGIN, 0.0)
    x, y = RESOLUTION / 2 + random.uniform(-slack, slack, 2)
    return Placement(float(x), float(y), float(radius))


def draw(scene: Scene, random: np.random.Generator) -> np.ndarray:
    """Draw a scene a little off the centre, (128, 128, 3) float32 in [-1, 1]."""
    size = scene.size or random.choice(list(SIZES))
    radius = random.uniform(24, 27) if size == "small" else random.uniform(42, 46)
    slack = 4.0
    x, y = RESOLUTION / 2 + random.uniform(-slack, slack, 2)
    return paint(scene, Placement(x, y, radius))


def paint(scene: Scene, place: Placement) -> np.ndarray:
    """Draw a scene with its object in a place, (128, 128, 3) float32 in [-1, 1]."""
    inside = np.clip(0.5 - _measure_distances(scene.shape, place), 0, 1)
    colour, background = (
        np.array(COLOURS[name][1]) / 127.5 - 1 for name in (scene.colour, scene.background)
    )
    picture = background + inside[..., None] * (colour - background)
    return picture.astype(np.float32)


def cover(shape: str, place: Placement) -> np.ndarray:
    """The pixels inside the outline of a shape, (128, 128) bool."""
    return _measure_distances(shape, place) < 0


def draw_edges(shape: str, place: Placement, thickness: float = 2.0) -> np.ndarray:
    """Draw the outline of a shape in white on black, (128, 128) float32 in [0, 1].

    Args:
        thickness: In pixels.
    """
    distances = np.abs(_measure_distances(shape, place))
    return np.clip((thickness + 1) / 2 - distances, 0, 1).astype(np.float32)


def _measure_distances(shape: str, place: Placement) -> np.ndarray:
    ys, xs = np.mgrid[:RESOLUTION, :RESOLUTION].astype(np.float32) + 0.5
    return _distance(shape, xs - place.x, ys - place.y, place.radius)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance in pixels to the outline, negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.76 * radius) - 0.24 * radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.86 * radius
    if shape == "triangle":
        corners = _circle_points(3, [1.12 * radius])
        return _polygon_distance(x, y - 0.2 * radius, corners)
    return _polygon_distance(x, y, _circle_points(10, [1.1 * radius, 0.46 * radius]))


def _circle_points(count: int, radii: list[float]) -> np.ndarray:
    angles = -np.pi / 2 + 2 * np.pi * np.arange(count) / count
    lengths = np.resize(radii, count)
    return np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)


def _polygon_distance(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    nearest = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
        along = np.clip(along, 0, 1)
        nearest = np.minimum(
            nearest, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay))
        )
        if ay != by:
            crosses = (y < ay) != (y < by)
            inside ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return np.where(inside, -nearest, nearest)
