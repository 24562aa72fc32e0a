"""Many pictures on the command line: batches, what is saved when, and what is said of it."""

import io
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from PIL import Image

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.cli import progress
from fastdeploy_diffusion.cli.draw import split_evenly
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor

QUICK = ("--engine", "paddle-eager", "--scheduler", "ddim", "--steps", 2)


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pairs(monkeypatch):
    """Let two pictures be as many as pay, whatever their size."""
    monkeypatch.setattr(DiffusionPredictor, "choose_batch", lambda self, request: 2)


def draw(model, *words, **options):
    return run("generate", "a red circle", "--model", model, *QUICK, *words, **options)


@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [(1, 8, [1]), (8, 8, [8]), (9, 8, [5, 4]), (10, 4, [4, 3, 3]), (3, 1, [1, 1, 1])],
)
def test_batches_are_of_two_sizes_at_most(count, most, sizes):
    assert split_evenly(count, most) == sizes


def test_very_many_are_split_at_once():
    assert sum(split_evenly(100_000, 16)) == 100_000


@pytest.mark.usefixtures("pairs")
def test_pictures_do_not_depend_on_their_batches(tiny_sd1):
    shown = json.loads(draw(tiny_sd1, "--images", 3, "--seed", 2**64 - 2, "--json").stdout)
    pipeline = SDPipeline(
        DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", scheduler="ddim")
    )
    alone = [
        pipeline.text_to_image("a red circle", num_inference_steps=2, seed=seed)
        for seed in (2**64 - 2, 2**64 - 1, 0)
    ]
    files = [Path(each["file"]) for each in shown["images"]]
    assert [file.name for file in files] == ["output-1.png", "output-2.png", "output-3.png"]
    for file, image in zip(files, alone, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(image))
        assert read_settings(file) == read_settings(image)
    timings = shown["timings"]
    assert len(timings["steps"]) == 2 * 2  # two batches, two steps each
    assert [(each["texts"], each["kept"]) for each in shown["embeddings"]] == [(2, 0)]


@pytest.mark.parametrize("seeds", ["7-9", "7..9"])
def test_a_range_of_seeds_is_a_picture_of_each(tiny_sd1, seeds):
    shown = json.loads(draw(tiny_sd1, "--seed", seeds, "--json").stdout)
    assert [each["seed"] for each in shown["images"]] == [7, 8, 9]


def test_a_range_of_seeds_is_the_number_of_pictures():
    stderr = run("generate", "x", "--seed", "7-9", "--images", 2, code=2).stderr
    assert "--seed 7-9 asks for 3 pictures, and --images for 2" in stderr
    assert "leave --images out" in stderr


@pytest.mark.usefixtures("pairs")
def test_a_grid_shows_all_batches(tiny_sd1):
    shown = json.loads(draw(tiny_sd1, "--images", 3, "--grid", "--json").stdout)
    pictures = [np.asarray(Image.open(each["file"])) for each in shown["images"]]
    grid = np.asarray(Image.open(shown["grid"]))
    height, width, _ = pictures[0].shape
    for index, picture in enumerate(pictures):
        row, column = divmod(index, 2)
        cell = grid[row * height : (row + 1) * height, column * width : (column + 1) * width]
        np.testing.assert_array_equal(cell, picture)
    assert Path(shown["grid"]).name == "output-1-grid.png"


@pytest.mark.usefixtures("pairs")
def test_each_batch_is_saved_before_the_next_one_is_drawn(tiny_sd1, monkeypatch):
    before, stream = [], DiffusionPredictor.stream

    def watch(self, request):
        before.append(len(list(Path().glob("*.png"))))
        return stream(self, request)

    monkeypatch.setattr(DiffusionPredictor, "stream", watch)
    draw(tiny_sd1, "--images", 5)
    assert before == [0, 2, 4]


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (ValueError, 1)])
def test_what_is_saved_is_told_when_drawing_ends_early(
    tiny_sd1,
    error,
    code,
    monkeypatch,
):
    stream = DiffusionPredictor.stream

    def fail_late(self, request):
        if Path("many/output-2.png").exists():
            raise error("late")
        return stream(self, request)

    monkeypatch.setattr(DiffusionPredictor, "stream", fail_late)
    result = draw(tiny_sd1, "--images", 4, "-o", "many", code=code)
    first, last, *_ = result.stderr.splitlines()
    assert first == "saved 2 of 4 pictures: many/output-1.png to many/output-2.png"
    assert last == ("interrupted" if code == 130 else "error: ValueError: late")
    assert sorted(Path("many").iterdir()) == [Path("many/output-1.png"), Path("many/output-2.png")]


@pytest.mark.usefixtures("pairs")
def test_progress_is_told_without_a_terminal(tiny_sd1, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.005)
    lines = draw(tiny_sd1, "--images", 3).stderr.splitlines()
    assert lines[0].startswith("building and checking (")
    pattern = r"drawing (1 to 2|3) of 3, step [12] of 2, \d+\.\d\d steps/s \(\d+ s\)"
    drawn = [line for line in lines if line.startswith("drawing")]
    assert drawn
    assert all(re.fullmatch(pattern, line) for line in drawn)


def test_a_closed_stderr_does_not_end_the_command(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.001)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.show_progress("waiting") as show:
        stream.close()
        show("waiting", 1, 2)
        time.sleep(0.01)  # for a line that cannot be written


def test_what_a_batch_refuses_is_refused_before_the_first_one(tiny_sd1):
    Path("c.yaml").write_text(
        f"model_path: {tiny_sd1}\nengine: paddle-eager\nenable_dynamic_shape: true\n"
        "shapes: {batch: [4, 4, 4]}\n"
    )
    result = run("generate", "x", "--config", "c.yaml", "--images", 3, code=2)
    assert "the pictures of this request are 2 rows of the denoiser" in result.stderr
    assert list(Path().glob("*.png")) == []
