"""Pictures of plain shapes, for networks that are calibrated with some picture."""

import numpy as np
from PIL import Image, ImageDraw

_SHAPES = 4  # of a picture


def draw_shapes(seed: int, width: int, height: int) -> Image.Image:
    """Draw filled ellipses and rectangles of random colours, sizes and places; of mode "RGB"."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), _draw_colour(random))
    draw = ImageDraw.Draw(image)
    for number in range(_SHAPES):
        box = _draw_box(random, width, height)
        (draw.ellipse, draw.rectangle)[number % 2](box, fill=_draw_colour(random))
    return image


def draw_outlines(seed: int, width: int, height: int) -> Image.Image:
    """Draw outlines of such shapes, white on black, as detectors of edges do; of mode "RGB"."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for number in range(_SHAPES):
        box = _draw_box(random, width, height)
        (draw.ellipse, draw.rectangle)[number % 2](box, outline="white")
    return image


def _draw_colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue


def _draw_box(random: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    left, right = sorted(random.integers(0, width, 2).tolist())
    top, bottom = sorted(random.integers(0, height, 2).tolist())
    return left, top, right, bottom
