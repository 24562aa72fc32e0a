"""The command line on checkpoints of Flux: every command, and bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from PIL import Image

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline
from fastdeploy_diffusion.images import read_settings

QUICK = ("--engine", "paddle-eager")
SMALL = ("--height", 16, "--width", 24, "--steps", 2)
COMPONENTS = ["text_encoder", "text_encoder_2", "denoiser", "vae_decoder"]


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refuse(*words):
    result = run(*words, code=2)
    assert result.stdout == ""
    assert not list(Path().glob("*.png"))
    return result.stderr


def copy(model, folder="copied"):
    return shutil.copytree(model, Path(folder).absolute())


def edit(model, component, **changes):
    """Change a component's config, or the index; None takes a key out."""
    file = model / component / "config.json" if component else model / "model_index.json"
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value}))


def test_generate_draws_what_the_library_draws(tiny_dev):
    result = run(
        "generate", "a red dog", "--model", tiny_dev, *QUICK, *SMALL, "--seed", 5,
        "--guidance-scale", 2, "--prompt-2", "a large dog", "--negative-prompt", "blue",
        "--true-cfg-scale", 3, "--max-sequence-length", 24,
    )  # fmt: skip
    assert result.stderr == ""
    pipeline = FluxPipeline(DiffusionConfig(model_path=tiny_dev, engine="paddle-eager"))
    expected = pipeline.text_to_image(
        "a red dog", prompt_2="a large dog", negative_prompt="blue", true_cfg_scale=3.0,
        max_sequence_length=24, height=16, width=24, num_inference_steps=2, guidance_scale=2.0,
        seed=5,
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(Image.open("output.png")), np.asarray(expected))
    assert read_settings("output.png") == read_settings(expected)
    lines = result.stdout.splitlines()
    assert "(flux), FlowMatchEulerScheduler, " in lines[1]
    assert "steps 2, guidance scale 2, true CFG scale 3" in lines[1]
    assert [line.split()[0] for line in lines[2:6]] == COMPONENTS


def test_schnell_has_no_guidance_scale_to_show(tiny_schnell):
    words = ("generate", "a dog", "--model", tiny_schnell, *QUICK, *SMALL)
    assert "guidance" not in run(*words, "--max-sequence-length", 16).stdout


def test_presets_are_those_of_the_published_models(tiny_dev, tiny_schnell):
    for name, model, scale in (("flux-dev", tiny_dev, 3.5), ("flux-schnell", tiny_schnell, None)):
        config = DiffusionConfig.from_preset(name, model_path=model)
        pipeline = FluxPipeline(config)
        asked = pipeline.describe_request(pipeline.request_class(prompt=""))
        bare = FluxPipeline(DiffusionConfig(model_path=model))
        own = bare.describe_request(bare.request_class(prompt=""))
        assert (asked["height"], asked["width"]) == (1024, 1024)
        for key in ("num_inference_steps", "guidance_scale", "max_sequence_length"):
            assert asked[key] == own[key]
        assert asked["guidance_scale"] == scale
    stderr = refuse("generate", "x", "--model", "flux-dev")
    assert "the preset 'flux-dev' holds a model's usual settings, but no model" in stderr


def test_fewer_tokens_can_be_configured(tiny_schnell, tiny_sd1):
    text = "defaults: {max_sequence_length: 12, height: 16, width: 16, num_inference_steps: 1}\n"
    Path("c.yaml").write_text(f"model_path: {tiny_schnell}\nengine: paddle-eager\n{text}")
    run("generate", "a dog", "--config", "c.yaml")
    assert read_settings("output.png")["max_sequence_length"] == 12
    Path("output.png").unlink()
    Path("sd.yaml").write_text(f"model_path: {tiny_sd1}\n{text}")
    assert "which SD 1.x does not have" in refuse("generate", "x", "--config", "sd.yaml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt-2", "a"], "--prompt-2 a has no effect on "),
        (["--true-cfg-scale", 4], "--true-cfg-scale 4.0 has no effect on "),
        (["--max-sequence-length", 99], "--max-sequence-length 99 has no effect on "),
    ],
)
def test_options_of_flux_are_refused_by_others(tiny_sd1, words, message):
    stderr = refuse("generate", "x", "--model", tiny_sd1, *words)
    assert f"error: {message}{tiny_sd1}, a checkpoint of the family sd1" in stderr
    assert f"fix: leave {words[0]} out" in stderr
    families = "SDXL or Flux" if words[0] == "--prompt-2" else "Flux"
    assert f"allowed: {words[0]} for a checkpoint of {families}\n" in stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--negative-prompt", "blue"], "--negative-prompt 'blue' has no effect on MODEL"),
        (["--height", 18], "height is 18\n  allowed: multiples of 4: each token of MODEL"),
        (["--scheduler", "euler"], "scheduler is 'euler', which Flux does not have"),
        (["--max-sequence-length", 513], "max_sequence_length is 513\n  allowed: 1 to 512"),
        (["--tokenizer", "."], "tokenizer_path is ., which lacks tokenizer or tokenizer_2"),
    ],
)
def test_what_flux_refuses(tiny_dev, words, message):
    stderr = refuse("generate", "x", "--model", tiny_dev, *words)
    assert f"error: {message.replace('MODEL', str(tiny_dev))}" in stderr
    assert "\n  fix: " in stderr or "\n  allowed: " in stderr


def test_schnell_takes_no_guidance_scale(tiny_schnell):
    stderr = refuse("generate", "x", "--model", tiny_schnell, "--guidance-scale", 3.5)
    assert f"guidance_scale is 3.5, and {tiny_schnell} was not distilled for guidance" in stderr
    assert "fix: leave guidance_scale out" in stderr


@pytest.mark.parametrize(
    ("component", "changes", "message"),
    [
        (
            "text_encoder_2",
            {"d_model": 48},
            "MODEL: text_encoder_2 gives 48 numbers a token, and transformer wants 32 ",
        ),
        (
            "text_encoder_2",
            {"feed_forward_proj": "relu"},
            "MODEL/text_encoder_2/config.json: T5Config: feed_forward_proj = 'relu'",
        ),
        (
            "",
            {"text_encoder_2": ["transformers", "UMT5EncoderModel"]},
            "MODEL/model_index.json: text_encoder_2 of class 'UMT5EncoderModel'",
        ),
        ("", {"text_encoder_2": None}, "MODEL/model_index.json names no text_encoder_2"),
    ],
)
def test_a_wrong_t5_is_named(tiny_schnell, component, changes, message):
    model = copy(tiny_schnell)
    edit(model, component, **changes)
    stderr = refuse("generate", "x", "--model", model)
    assert f"error: {message.replace('MODEL', str(model))}" in stderr
    assert "\n  fix: " in stderr


def test_weights_of_another_t5_are_named(tiny_schnell, tmp_path):
    model = copy(tiny_schnell)
    edit(model, "text_encoder_2", d_ff=41)
    stderr = refuse("generate", "x", "--model", model)
    assert f"error: {model}/text_encoder_2 does not fit T5EncoderModel" in stderr
    assert "6 of another shape" in stderr
    assert "wi_0.weight: (40, 32) in the checkpoint, (41, 32) in the model" in stderr
    assert "\n  fix: " in stderr
    edit(model, "text_encoder_2", num_layers=1)
    stderr = refuse("generate", "x", "--model", model)
    assert f"{model}/text_encoder_2/config.json: num_layers makes 1 layers" in stderr
    assert f"{model}/text_encoder_2 has weights for 2" in stderr


def test_a_missing_text_encoder_2_is_named(tiny_schnell):
    model = copy(tiny_schnell)
    (model / "text_encoder_2" / "model.safetensors").unlink()
    stderr = refuse("generate", "x", "--model", model)
    assert f"error: {model}/text_encoder_2/model.safetensors is missing" in stderr
    shutil.rmtree(model / "text_encoder_2")
    stderr = refuse("generate", "x", "--model", model)
    assert f"error: {model}/text_encoder_2/config.json is missing" in stderr
    assert "fix: download or export the whole checkpoint folder again" in stderr


def test_files_that_are_no_checkpoint_are_named(tiny_schnell):
    from safetensors.numpy import save_file

    name = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    save_file({name: np.zeros((2, 2), np.float32)}, "lora.safetensors")
    stderr = refuse("generate", "x", "--model", "lora.safetensors")
    assert "error: lora.safetensors looks like a LoRA" in stderr
    assert "fix: give the checkpoint that the LoRA was trained on" in stderr
    for file in ("flux1-dev-Q4_0.gguf", "renamed.safetensors"):
        Path(file).write_bytes(b"GGUF" + bytes(60))
        stderr = refuse("generate", "x", "--model", file)
        assert f"error: {file} is " in stderr
        assert "GGUF" in stderr
        assert "\n  fix: " in stderr
    transformer = tiny_schnell / "transformer" / "diffusion_pytorch_model.safetensors"
    stderr = refuse("generate", "x", "--model", transformer)
    assert f"error: {transformer} looks like the transformer of Flux" in stderr


def test_build_explain_and_passes(tiny_schnell):
    Path("c.yaml").write_text(
        f"model_path: {tiny_schnell}\ndefaults: {{height: 16, width: 16, max_sequence_length: 8}}\n"
    )
    words = ("--config", "c.yaml", *QUICK, "--json")
    (built,) = json.loads(run("build", *words, "--size", "24x16").stdout)
    assert [each["name"] for each in built["components"]] == COMPONENTS
    assert all(each["relative_error"] <= each["tolerance"] for each in built["components"])
    told = json.loads(run("explain", *words, "--width", 24, "--height", 16).stdout)
    assert [each["engine"] for each in told["components"]] == ["paddle-eager"] * 4
    trials = json.loads(run("passes", *words, "--passes", "merge-qkv").stdout)
    assert [each["component"] for each in trials] == COMPONENTS
    assert max(each["error"] or 0.0 for each in trials) < 1e-5
