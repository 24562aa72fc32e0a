"""The second pass on the command line."""

import numpy as np
import pytest
from command_line import run
from PIL import Image

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.images import read_settings

WORDS = ("generate", "a red circle", "--steps", 4, "--seed", 5, "--height", 64, "--width", 64)


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_generate_draws_what_the_library_draws():
    words = ("--hires-scale", 1.5, "--hires-strength", 0.5, "--hires-upscaler", "latent")
    assert "64 x 64, hires scale 1.5" in run(*WORDS, *words).stdout
    with SDPipeline(DiffusionConfig.from_preset("shapes")) as pipeline:
        expected = pipeline.text_to_image(**read_settings("output.png"))
    np.testing.assert_array_equal(np.asarray(Image.open("output.png")), np.asarray(expected))
    assert expected.size == (96, 96)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--hires-scale", 0.5), "hires_scale is 0.5"),
        (("--hires-strength", 0.5), "there is no second pass"),
        (("--hires-scale", 2, "--hires-upscaler", "x"), "hires_upscaler is 'x'"),
    ],
)
def test_what_is_refused(words, answer):
    assert answer in run(*WORDS, *words, code=2).stderr
