"""Edges of pictures, as ControlNets of Canny's edges are given them."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fastdeploy_diffusion.control_pictures import detect_edges
from fastdeploy_diffusion.errors import RequestError


def draw_square(mode="RGB", ink="red", ground="white"):
    picture = Image.new(mode, (60, 40), ground)
    ImageDraw.Draw(picture).rectangle((20, 10, 39, 29), fill=ink)
    return picture


def test_edges_are_where_colours_change():
    edges = detect_edges(draw_square())
    assert (edges.mode, edges.size) == ("RGB", (60, 40))
    lines = np.asarray(edges)[..., 0] > 0
    rows, columns = np.nonzero(lines)
    # On the outline, give or take a pixel, and a line on each side.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 29, 19, 39)
    assert not lines[12:27, 22:37].any()
    assert set(np.unique(edges)) == {0, 255}


def test_they_are_those_of_opencv_and_always_the_same():
    import cv2

    noise = np.random.default_rng(7).integers(0, 256, (33, 47, 3), np.uint8)
    smooth = Image.fromarray(noise).resize((141, 99), Image.Resampling.BICUBIC)
    wanted = cv2.Canny(np.asarray(smooth), 100, 200)
    for _ in range(3):
        np.testing.assert_array_equal(np.asarray(detect_edges(smooth))[..., 0], wanted)
    fewer = np.asarray(detect_edges(smooth, 300, 600))[..., 0]
    assert 0 < (fewer > 0).sum() < (wanted > 0).sum()


def test_what_is_transparent_counts_as_white():
    clear = draw_square("RGBA", ink=(255, 0, 0, 255), ground=(0, 0, 0, 0))
    np.testing.assert_array_equal(detect_edges(clear), detect_edges(draw_square()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": -1}, "low is -1"),
        ({"high": 3000}, "high is 3000"),
        ({"low": float("nan")}, "low is nan"),
        ({"low": 300, "high": 200}, "low is 300, and high 200"),
    ],
)
def test_thresholds_that_are_refused(settings, message):
    with pytest.raises(RequestError, match=message):
        detect_edges(draw_square(), **settings)


def test_without_opencv_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(RequestError, match=r'pip install "fastdeploy-diffusion\[control\]"'):
        detect_edges(draw_square())
