"""``bundle`` writes what ``generate`` draws with elsewhere."""

import json

import pytest
from command_line import run
from PIL import Image
from tiny_controlnet import write_tiny_controlnet
from tiny_ip_adapter import write_tiny_image_encoder, write_tiny_ip_adapter

from fastdeploy_diffusion.images import read_metadata

QUICK = ("--steps", 1, "--seed", 1)


def test_a_bundle_is_written_and_drawn_with(tiny_sd1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"model_path: {tiny_sd1}\nengine: openvino\ndefaults: {{seed: 5}}\n")
    made = run("bundle", "--config", file, "--size", "16x16,24x16", "--output", "packed")
    assert "for 16 x 16, 24 x 16 pixels with openvino on cpu" in made.stdout
    for words in (("--model", "packed"), ("--config", file, "--height", 16, "--width", 16)):
        run("generate", "a cat", *words, "--steps", 1, "--output", f"{words[0]}.png")
    bundled, plain = (read_metadata(f"{name}.png") for name in ("--model", "--config"))
    assert bundled == plain
    assert bundled["settings"]["seed"] == 5
    stderr = run("bundle", "--config", file, "--output", "packed", code=2).stderr
    assert "packed exists already" in stderr


def test_a_bundle_for_long_prompts(tiny_sd1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--model", tiny_sd1, "--engine", "openvino", "--size", "16x16", "--chunks", "1,2")
    made = run("bundle", *words, "--output", "packed")
    assert "for 16 x 16 pixels, prompts of 1 or 2 chunks" in made.stdout
    weighted = ("--model", "packed", "--prompt-syntax", "weighted", *QUICK)
    run("generate", "a (cat:1.3) BREAK on mars", *weighted, "--output", "cat.png")
    settings = read_metadata("cat.png")["settings"]
    assert (settings["prompt_syntax"], settings["prompt_chunks"]) == ("weighted", 2)
    stderr = run("generate", "a BREAK cat BREAK on mars", *weighted, code=2).stderr
    assert "bundle --chunks 3" in stderr


@pytest.mark.parametrize("count", ["0", "100", "two", "1,,2", ""])
def test_a_number_of_pictures_must_be_one(tiny_sd1, tmp_path, count):
    words = ("--model", tiny_sd1, "--ip-images", count)
    for command in (("bundle", "--output", tmp_path / "packed"), ("build",)):
        assert "1 to 99" in run(*command, *words, code=2).stderr


@pytest.mark.parametrize("chunks", ["0", "33", "two", "1,,2", ""])
def test_a_number_of_chunks_must_be_one(tiny_sd1, tmp_path, chunks):
    words = ("--model", tiny_sd1, "--output", tmp_path / "packed", "--chunks", chunks)
    assert "1 to 32" in run("bundle", *words, code=2).stderr


def test_json_says_what_lies_in_it(tiny_sd1, tmp_path):
    words = ("--model", tiny_sd1, "--engine", "onnxruntime", "--size", "16x16", "--json")
    found = json.loads(run("bundle", *words, "--output", tmp_path / "packed").stdout)
    assert found["sizes"] == [[16, 16]]
    assert found["components"]["denoiser"]["engine"] == "onnxruntime"
    written = {path.relative_to(tmp_path / "packed") for path in (tmp_path / "packed").rglob("*")}
    assert set(found["files"]) <= {path.as_posix() for path in written}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--height", 8, "--width", 8), "8x8 is no size that the bundle was built for"),
        (("--precision", "bf16"), "precision is 'bf16'"),
    ],
)
def test_what_a_bundle_does_not_have_is_explained(tiny_sd1, tmp_path, words, problem):
    run("bundle", "--model", tiny_sd1, "--engine", "openvino", "--output", tmp_path / "packed")
    assert problem in run("generate", "x", "--model", tmp_path / "packed", *words, code=2).stderr


def test_a_bundle_holds_a_controlnet_and_an_ip_adapter(tiny_sd1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = write_tiny_controlnet(tmp_path / "net", tiny_sd1)
    adapter = write_tiny_ip_adapter(tmp_path / "base.safetensors", tiny_sd1, "base")
    tower = write_tiny_image_encoder(tmp_path / "tower")
    Image.linear_gradient("L").save("picture.png")
    added = ("--controlnet", net, "--ip-adapter", adapter, "--ip-encoder", tower)
    words = ("--model", tiny_sd1, "--engine", "onnxruntime", "--size", "16x16", *added)
    run("bundle", *words, "--output", "packed")
    given = ("--control", "picture.png", "--ip-image", "picture.png")
    for name, model in (("bundled", ("--model", "packed")), ("plain", words[:4] + added)):
        size = ("--height", 16, "--width", 16)
        run("generate", "a cat", *model, *given, *size, *QUICK, "--output", f"{name}.png")
    bundled, plain = (Image.open(f"{name}.png") for name in ("bundled", "plain"))
    assert bundled.tobytes() == plain.tobytes()
    assert read_metadata("bundled.png") == read_metadata("plain.png")
    draw = ("generate", "a cat", "--model", "packed", "--overwrite")
    assert "is no size that the bundle" in run(*draw, *given, code=2).stderr
    assert "there is no ip_adapter_image" in run(*draw, *given[:2], code=2).stderr
    assert "is a bundle, whose controlnets" in run(*draw, *given, *added[:2], code=2).stderr
