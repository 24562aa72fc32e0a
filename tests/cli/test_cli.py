"""The command line in this process: what it draws, prints and refuses."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from PIL import Image
from tiny_controlnet import write_tiny_controlnet
from tiny_ip_adapter import write_tiny_image_encoder, write_tiny_ip_adapter

import fastdeploy_diffusion
from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.benchmark.peers import ADAPTERS
from fastdeploy_diffusion.families.registry import FAMILIES
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.registry import ENGINES
from fastdeploy_diffusion.scheduler_names import SCHEDULERS

# The eager engine has nothing to compile.
QUICK = ("--engine", "paddle-eager", "--steps", "2")


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def draw(model, *words):
    return run("generate", "a red circle", "--model", model, *QUICK, *words)


def refuse(*words, code=2):
    """Run a command that must fail, leaving no file; return its stderr."""
    before = set(Path().rglob("*"))
    result = run(*words, code=code)
    assert result.stdout == ""
    assert set(Path().rglob("*")) == before
    return result.stderr


def test_generate_draws_what_the_library_draws(tiny_sd1):
    result = draw(
        tiny_sd1, "--seed", 5, "--images", 2, "--height", 24, "--guidance-scale", 3,
        "--negative-prompt", "blue", "--scheduler", "ddim", "-o", "new/folder",
    )  # fmt: skip
    assert result.stderr == ""
    config = DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", scheduler="ddim")
    expected = SDPipeline(config).text_to_image(
        "a red circle", negative_prompt="blue", height=24, num_inference_steps=2,
        guidance_scale=3.0, num_images_per_prompt=2, seed=5,
    )  # fmt: skip
    files = [Path("new/folder/output-1.png"), Path("new/folder/output-2.png")]
    assert sorted(Path("new/folder").iterdir()) == files
    for file, image in zip(files, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(image))
        assert read_settings(file) == read_settings(image)
    lines = result.stdout.splitlines()
    assert lines[0] == "new/folder/output-1.png  seed 5  32 x 24"
    assert lines[1] == "new/folder/output-2.png  seed 6  32 x 24"
    assert "DDIMScheduler, steps 2, guidance scale 3" in lines[2]
    for line, name in zip(lines[3:6], ("text_encoder", "denoiser", "vae_decoder"), strict=True):
        assert re.search(
            rf"{name} +paddle-eager +cpu +fp32 +proven to \de[-+]\d\d of the Paddle layer", line
        )
    assert re.search(r"calls 4, \d+\.\d\d/s\).*building and checking \d+\.\d\d s", lines[6])


def test_json_is_all_of_stdout(tiny_sd1):
    found = json.loads(draw(tiny_sd1, "--seed", 7, "--json").stdout)
    (image,) = found["images"]
    assert image["file"] == str(Path("output.png").absolute())
    assert {key: image[key] for key in image if key != "file"} == read_settings(image["file"])
    assert image["seed"] == 7
    assert (found["family"], found["scheduler"]) == ("sd1", "PNDMScheduler")
    names = [each["name"] for each in found["components"]]
    assert names == ["text_encoder", "denoiser", "vae_decoder"]
    assert all(each["relative_error"] <= each["tolerance"] for each in found["components"])
    timings = found["timings"]
    assert len(timings["steps"]) == 3  # PNDM calls the denoiser once more
    stages = ("text_encoder", "beginning", "prologue", "vae_decoder", "post_processing")
    parts = sum(timings[stage] for stage in stages) + sum(timings["steps"])
    assert timings["total"] == pytest.approx(parts)
    assert found["warnings"] == []


def test_the_output_is_refused_before_the_model_is_opened():
    Path("a.png").write_text("mine")
    common = ("generate", "x", "--model", "no/such")
    assert "--output is 'a.bmp'" in refuse(*common, "-o", "a.bmp")
    assert "a.png exists already" in refuse(*common, "-o", "a.png")
    assert "no/such does not exist" in refuse(*common, "-o", "a.png", "--overwrite")
    assert "no/such does not exist" in refuse(*common, "-o", "a.png", "--images", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "shaps"], r"no such preset.*\n  allowed: .*\n  fix: did you mean 'shapes'\?"),
        (["--model", "sd15"], r"'sd15' holds .* no model\n  allowed: .*\n  fix: --model FOLDER"),
        (["--model", "no/such"], r"no/such does not exist"),
        (["--model", "x" * 5000], r"--model x{200}: there is no such preset"),
        (["--model", "x/" * 5000], r"'x/.*cannot be opened: File name too long"),
        (["--model", "~nobody-of-this-name/x"], "there is no such user"),
        (["--model", "loop"], "loop is a link to loop, which leads back to itself"),
        (["--model", "shapes", "--tokenizer", "y" * 5000], "cannot be opened: File name too long"),
        (["--model", "shapes", "--tokenizer", "a.ckpt"], "a.ckpt is a file, not a folder"),
        (
            ["--model", "a/sd"],
            r"a/sd does not exist(.|\n)*--model a/sd --local_dir sd` from ModelScope",
        ),
        (["--model", "a.ckpt"], r"a\.ckpt is not a readable file of torch\.save"),
        (["--config", "bad.yaml"], r"bad\.yaml:2:1: unknown option 'engin'\n.*\n.*'engine'\?"),
        (["--config", "none.yaml"], r"none\.yaml: there is no such file"),
        (["--model", "m", "--engine", "trt"], r"engine is 'trt'\n.*\n  fix: .* 'tensorrt'\?"),
        (["--model", "m", "--device", "cuda"], r"device is 'cuda'\n.*\n  fix: did you mean 'gpu'"),
    ],
)
def test_bad_input_is_explained(words, message):
    Path("m").mkdir()
    Path("a.ckpt").touch()
    Path("loop").symlink_to("loop")
    Path("bad.yaml").write_text("model_path: m\nengin: paddle\n")
    stderr = refuse("generate", "x", *words)
    assert re.match(rf"error: .*{message}", stderr)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--height", 31], "error: height is 31\n  allowed: multiples of 2\n  fix: height=30 or"),
        (["--guidance-scale", "nan"], "error: guidance_scale is nan"),
        (["--seed", 2**64], "error: "),
    ],
)
def test_a_bad_request_is_refused(tiny_sd1, words, message):
    assert refuse("generate", "x", "--model", tiny_sd1, *words).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate"], "there is no PROMPT"),
        (["generate", "x", "--steps", "0"], "Invalid value for '--steps'"),
        (["generate", "x", "--stps", "2"], "--steps"),
        (["genrate"], "No such command 'genrate'"),
    ],
)
def test_usage_errors_end_with_2(words, message):
    assert message in refuse(*words)


@pytest.mark.slow  # builds with ONNX Runtime
def test_what_would_be_faster_is_said_where_it_is_not_installed(tiny_sd1, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    words = ("generate", "x", "--model", tiny_sd1, "--scheduler", "ddim", "--steps", 1)
    lines = run(*words).stdout.splitlines()
    assert [line.split()[1] for line in lines[2:5]] == ["onnxruntime"] * 3
    command = 'pip install "fastdeploy-diffusion[openvino]"'
    assert lines[5] == f"openvino is faster as a rule, and is not installed: {command}"
    report = json.loads(run(*words, "--json").stdout)
    assert report["components"][1]["installable"] == {"openvino": command}
    # Who names an engine knows why.
    assert "is not installed" not in run(*words, "--engine", "onnxruntime").stdout


@pytest.mark.slow  # builds with Paddle Inference
def test_a_fallback_is_one_line_of_warning(tiny_sd1):
    result = draw(tiny_sd1, "--engine", "tensorrt", "--json", "--scheduler", "ddim", "--steps", 1)
    (line,) = result.stderr.splitlines()  # although all three networks fall back
    assert re.match(r"warning: tensorrt on cpu in fp32 cannot run .* openvino on cpu in", line)
    found = json.loads(result.stdout)
    assert found["warnings"] == [line.removeprefix("warning: ")]
    for component in found["components"]:
        assert component["engine"] == "openvino"
        assert component["fallback"] in line
        assert 0 <= component["relative_error"] <= 1e-4


def test_without_fallback_it_is_an_error(tiny_sd1):
    Path("strict.yaml").write_text(f"model_path: {tiny_sd1}\ncpu_fallback: false\n")
    words = ("generate", "x", "--config", "strict.yaml", "--engine", "tensorrt")
    stderr = refuse(*words, code=1)
    assert stderr.startswith("error: tensorrt on cpu in fp32 cannot run here: ")
    assert "cpu_fallback=True" in stderr


def test_command_line_wins_over_the_file(tiny_sd1):
    Path("c.yaml").write_text(
        f"model_path: {tiny_sd1}\nengine: paddle-eager\nscheduler: euler\n"
        "defaults: {num_inference_steps: 1, seed: 4, guidance_scale: 2}\n"
    )
    result = run("generate", "x", "--config", "c.yaml", "--seed", 9, "--scheduler", "ddim")
    assert read_settings("output.png") == {
        "prompt": "x", "height": 32, "width": 32, "num_inference_steps": 1,
        "guidance_scale": 2.0, "prompt_syntax": "plain", "seed": 9,
    }  # fmt: skip
    assert "DDIMScheduler" in result.stdout


def test_a_presets_name_means_the_preset_and_its_model():
    Path("c.yaml").write_text("model_path: elsewhere\n")
    Path("sd15").mkdir()
    result = run("generate", "x", "--model", "sd15", "--config", "c.yaml", code=2)
    assert result.stderr.startswith("warning: --model sd15 means the preset; ")
    assert f"error: {Path('elsewhere').absolute()} does not exist" in result.stderr
    assert "sd15 has no model_index.json" in refuse("generate", "x", "--model", "./sd15")


def test_the_prompt_that_was_cut_off_is_shown(tiny_sd1):
    result = run("generate", "circle " * 200, "--model", tiny_sd1, *QUICK, "--steps", 1)
    (line,) = result.stderr.splitlines()
    assert re.match(r"warning: the prompt has \d+ tokens .* cut off: 'c", line)


def test_debug_shows_the_traceback_before_the_error():
    result = run("generate", "x", "--model", "no/such", "--debug", code=2)
    assert re.search(r"^error: no/such does not exist", result.stderr, re.MULTILINE)


def test_help_names_every_choice():
    text = run("generate", "--help").stdout
    assert [name for name in (*ENGINES, *PRECISIONS, *SCHEDULERS) if name not in text] == []
    published = [name for family in FAMILIES.values() for name in family.published]
    text = run("bench", "--help").stdout
    peers = [file.stem.replace("_", "-") for file in ADAPTERS.glob("*.py")]
    assert "diffusers" in peers
    assert [name for name in (*published, *PRECISIONS, *peers) if name not in text] == []


def test_version():
    assert run("--version").stdout == f"fastdeploy-diffusion {fastdeploy_diffusion.__version__}\n"


@pytest.mark.parametrize(
    ("seed", "hint"),
    [
        ("9-7", "'9-7' is no whole number, nor FIRST-LAST. From the lower to the higher: 7-9"),
        ("1,2", "picture i of --images N is drawn from SEED + i"),
        ("x", "'x' is no whole number"),
        ("1" * 5000, "is no whole number"),
    ],
)
def test_several_seeds_get_a_hint(seed, hint):
    assert hint in refuse("generate", "x", "--seed", seed)


def test_syntax_of_other_tools_is_one_line_of_warning(tiny_sd1):
    result = draw(tiny_sd1, "--negative-prompt", "(bad:1.4)", "--steps", 1)
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: '(bad:1.4)' in the prompt is read as plain text: ")
    assert "prompt_syntax='weighted' reads weights" in line


def test_a_controlnet_draws_what_the_library_draws(tiny_sd1, tmp_path):
    net, edges = write_tiny_controlnet(tmp_path / "net", tiny_sd1), tmp_path / "edges.png"
    colours = np.random.default_rng(0).integers(0, 256, (32, 24, 3), np.uint8)
    Image.fromarray(colours).save(edges)
    given = ("--controlnet", net, "--control", edges, "--control-scale", 0.5)
    draw(tiny_sd1, "--seed", 5, *given, "-o", "cat.png")
    config = DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", controlnets=[net])
    settings = {"num_inference_steps": 2, "seed": 5, "controlnet_conditioning_scale": 0.5}
    expected = SDPipeline(config).text_to_image("a red circle", control_image=edges, **settings)
    np.testing.assert_array_equal(np.asarray(Image.open("cat.png")), np.asarray(expected))
    words = ("generate", "a red circle", "--model", tiny_sd1, "--control", edges)
    assert "there is no ControlNet" in refuse(*words)


def test_an_image_prompt_draws_what_the_library_draws(tiny_sd1, tmp_path):
    adapter = write_tiny_ip_adapter(tmp_path / "a" / "plus.safetensors", tiny_sd1, "plus")
    tower, picture = write_tiny_image_encoder(tmp_path / "tower"), tmp_path / "picture.png"
    colours = np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)
    Image.fromarray(colours).save(picture)
    given = ("--ip-adapter", adapter, "--ip-encoder", tower, "--ip-image", picture)
    draw(tiny_sd1, "--seed", 5, *given, "--ip-scale", 0.5, "-o", "cat.png")
    options = [{"path": adapter, "image_encoder_path": tower}]
    config = DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", ip_adapters=options)
    settings = {"num_inference_steps": 2, "seed": 5, "ip_adapter_scale": 0.5}
    expected = SDPipeline(config).text_to_image(
        "a red circle", ip_adapter_image=picture, **settings
    )
    np.testing.assert_array_equal(np.asarray(Image.open("cat.png")), np.asarray(expected))
    words = ("generate", "a red circle", "--model", tiny_sd1)
    assert "there is no IP-Adapter" in refuse(*words, "--ip-image", picture)
    assert "there is no ip_adapter_image" in refuse(*words, *given[:4])
    assert "has no vision tower" in refuse(*words, *given[:2], *given[4:])
    assert "no --ip-adapter" in refuse(*words, *given[2:])
