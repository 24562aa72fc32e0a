"""A sheet of many pictures, in rows."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

LARGEST = 4096
"""Pixels of a sheet each way, at most."""


def make_sheet(files: Sequence[Path]) -> Image.Image:
    """Lay pictures of one size out in rows, in order, on white.

    The sheet is about as many pictures wide as high. They are scaled down where it would be larger
    than `LARGEST`, and read one by one.
    """
    columns = math.ceil(math.sqrt(len(files)))
    rows = math.ceil(len(files) / columns)
    with Image.open(files[0]) as first:
        width, height = first.size
    share = min(1.0, LARGEST / (columns * width), LARGEST / (rows * height))
    width, height = max(1, int(width * share)), max(1, int(height * share))
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, file in enumerate(files):
        row, column = divmod(index, columns)
        with Image.open(file) as image:
            picture = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        sheet.paste(picture, (column * width, row * height))
    return sheet
