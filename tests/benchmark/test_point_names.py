"""Names in a chart are read, because nothing lies on them."""

import re
from itertools import combinations

import numpy as np
import pytest

from fastdeploy_diffusion.benchmark.report.point_names import write_names
from fastdeploy_diffusion.benchmark.report.svg import WIDTH, Drawing


def draw_names(points, top=16, bottom=236):
    """Each name's box: left, top, right, bottom; as the browser draws small letters, about."""
    drawing = Drawing("points", 250)
    write_names(drawing, points, top, bottom)
    pattern = r'<text x="([\d.]+)" y="([\d.]+)" class="small" text-anchor="(\w+)">([^<]*)</text>'
    found = re.findall(pattern, drawing.render())
    assert [name for *_, name in found] == [name for *_, name in points]
    boxes = []
    for x, y, anchor, name in found:
        x, y, width = float(x), float(y), 6 * len(name)
        left = x - width if anchor == "end" else x
        boxes.append((left, y - 8, left + width, y + 2))
    return boxes


def touch(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("seed", range(5))
def test_no_name_lies_on_another_or_on_a_point(seed):
    random = np.random.default_rng(seed)
    cluster = random.uniform((150, 80), (290, 170))
    points = [
        (*(cluster + random.uniform(-12, 12, 2)), f"onnxruntime bf16 {number}")
        for number in range(5)
    ]
    boxes = draw_names(points)
    assert not any(touch(*pair) for pair in combinations(boxes, 2))
    for x, y, _ in points:
        assert not any(touch((x - 5, y - 5, x + 5, y + 5), box) for box in boxes)
    assert all(left >= 0 and right <= WIDTH and top >= 16 for left, top, right, _ in boxes)
    assert all(bottom <= 236 for *_, bottom in boxes)


def test_a_point_at_the_edge_has_its_name_inside():
    ((_, top, _, bottom),) = draw_names([(100.0, 232.0, "at the bottom")])
    assert top >= 16
    assert bottom <= 236


def test_many_points_at_one_place_all_have_their_names():
    draw_names([(100.0, 100.0, f"case {number}") for number in range(40)])
