"""Components of different models are refused when they are opened, by numbers that do not match."""

import json
import shutil
import time

import pytest
from tiny_flux import shrink
from tiny_sdxl import shrink_sdxl

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.benchmark.random_checkpoint import write_random_checkpoint
from fastdeploy_diffusion.errors import BadInputError, CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.published.flux import FLUX_SCHNELL
from fastdeploy_diffusion.pipelines.opening import open_pipeline

# Another model of each family, in one component.
OTHER_FLUX = {
    "text_encoder": {"hidden_size": 32, "intermediate_size": 40},
    "text_encoder_2": {"d_model": 24},
    "transformer": {"out_channels": 8},
    "vae": {"latent_channels": 8},
}
OTHER_SDXL = {
    "text_encoder": {"hidden_size": 32, "intermediate_size": 40},
    "text_encoder_2": {"projection_dim": 24},
    "vae": {"latent_channels": 8},
}


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A checkpoint of each family, every component of which is another than the tiny model's."""
    root = tmp_path_factory.mktemp("others")
    write_random_checkpoint(root / "flux", shrink(FLUX_SCHNELL, **OTHER_FLUX))
    write_random_checkpoint(root / "sdxl", shrink_sdxl(**OTHER_SDXL))
    return root


@pytest.mark.parametrize(
    ("family", "component", "words"),
    [
        (
            "flux",
            "text_encoder",
            r"text_encoder gives 32 numbers a text, and transformer wants 24 \(pooled_proj",
        ),
        (
            "flux",
            "text_encoder_2",
            r"text_encoder_2 gives 24 numbers a token, and transformer wants 32 \(joint_att",
        ),
        (
            "flux",
            "transformer",
            r"transformer gives 8 numbers a token, and vae wants 16 \(four times latent_channels",
        ),
        (
            "flux",
            "vae",
            r"vae gives 32 numbers for four latents, and transformer wants 16 \(in_channels",
        ),
        (
            "sdxl",
            "text_encoder",
            r"text_encoder_2 together give 64 numbers a token, and unet wants 56 \(cross_att",
        ),
        (
            "sdxl",
            "text_encoder_2",
            r"text_encoder_2 gives 24 numbers a text, and unet wants 28 \(projection_class",
        ),
        ("sdxl", "vae", r"vae gives latents of 8 channels, and unet wants 4 \(in_channels\)"),
    ],
)
def test_a_component_of_another_model(
    family, component, words, others, tiny_schnell, tiny_sdxl, tmp_path
):
    mixed = shutil.copytree({"flux": tiny_schnell, "sdxl": tiny_sdxl}[family], tmp_path / "mixed")
    shutil.copytree(others / family / component, mixed / component, dirs_exist_ok=True)
    refuse(mixed, UnsupportedModelError, words, "not of one model")


@pytest.mark.parametrize(
    ("file", "changes", "kind", "words"),
    [
        (
            "unet/config.json",
            {"cross_attention_dim": 24},
            UnsupportedModelError,
            r"text_encoder gives 16 numbers a token, and unet wants 24 \(cross_attention_dim",
        ),
        (
            "unet/config.json",
            {"out_channels": 8},
            UnsupportedModelError,
            "unet gives 8 channels, and PNDMScheduler wants 4",
        ),
        (
            "text_encoder/config.json",
            {"max_position_embeddings": 76},
            UnsupportedModelError,
            "the tokenizer of text_encoder gives 77 tokens a text, and text_encoder reads 76",
        ),
        (
            "text_encoder/config.json",
            {"intermediate_size": 33},
            CheckpointError,
            "text_encoder does not fit CLIPTextModel",
        ),
        ("vae/config.json", {"use_post_quant_conv": False}, CheckpointError, "2 unexpected"),
        (
            "vae/config.json",
            {"block_out_channels": [16, 24]},
            CheckpointError,
            r"conv1\.weight: \(32, 32, 3, 3\) in the checkpoint, \(24, 24, 3, 3\) in the model",
        ),
        (
            "unet/config.json",
            {"sample_size": "64"},
            CheckpointError,
            r"unet/config\.json: UNet2DConditionConfig: sample_size = '64'",
        ),
    ],
)
def test_a_config_of_another_model(file, changes, kind, words, tiny_sd1, tmp_path):
    model = shutil.copytree(tiny_sd1, tmp_path / "model")
    edit(model / file, changes)
    refuse(model, kind, words)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("text_encoder/config.json", {"num_hidden_layers": 10**6}, "num_hidden_layers = 1000000"),
        ("text_encoder/config.json", {"num_hidden_layers": 500}, "makes 500 layers"),
        ("unet/config.json", {"layers_per_block": 10**5}, "layers_per_block = 100000"),
        ("unet/config.json", {"layers_per_block": 400}, "makes 400 layers"),
        ("unet/config.json", {"transformer_layers_per_block": 500}, "makes 500 layers"),
        ("vae/config.json", {"layers_per_block": 499}, "makes 499 layers"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"beta_start": 0.5}, "beta_start=0.5 is larger"),
    ],
)
def test_what_is_out_of_all_proportion_is_refused_at_once(file, changes, words, tiny_sd1, tmp_path):
    model = shutil.copytree(tiny_sd1, tmp_path / "model")
    edit(model / file, changes)
    started = time.process_time()
    problem = refuse(model, BadInputError, words)
    assert time.process_time() - started < 1
    assert str(model / file) in problem


def edit(path, changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refuse(model, kind, *words):
    with pytest.raises(kind) as caught:
        open_pipeline(DiffusionConfig(model_path=model))
    for each in words:
        caught.match(each)
    assert str(model) in caught.value.problem
    assert caught.value.fix
    return caught.value.problem
