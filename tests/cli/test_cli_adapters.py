"""``--lora``: what it loads, and what it refuses."""

import json

from command_line import run
from PIL import Image
from tiny_lora import write_tiny_lora

from fastdeploy_diffusion.cli.added_networks import read_loras
from fastdeploy_diffusion.images import METADATA_KEY


def test_loras_are_loaded_with_their_strengths(tiny_sd1, tmp_path):
    first = write_tiny_lora(tmp_path / "a.safetensors", tiny_sd1)
    second = write_tiny_lora(tmp_path / "b.safetensors", tiny_sd1, seed=1)
    words = ("generate", "a red circle", "--model", tiny_sd1, "--engine", "paddle-eager")
    words += ("--steps", 1, "--seed", 1, "--json")

    def draw(*loras):
        given = [word for each in loras for word in ("--lora", each)]
        shown = run(*words, *given, "-o", tmp_path / "pictures").stdout
        file = json.loads(shown)["images"][0]["file"]
        with Image.open(file) as picture:
            return json.loads(picture.info[METADATA_KEY])["run"]

    plain, drawn = draw(), draw(f"{first}:0.8", second)
    on = [(each["name"], each["strength"]) for each in drawn["adapters"]]
    assert on == [("a", 0.8), ("b", 1.0)]
    assert "adapters" not in plain
    error = run(*words, "--lora", tmp_path / "none.safetensors", code=2).stderr
    assert "none.safetensors does not exist" in error


def test_the_last_colon_may_be_part_of_the_path():
    assert read_loras(["a:b.safetensors", "c.pt:-1", "d"]) == [
        {"path": "a:b.safetensors"},
        {"path": "c.pt", "strength": -1.0},
        {"path": "d"},
    ]
    assert read_loras(None) is None
