"""From a path to a checkpoint, and what is said when that cannot be."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from checkpoint_writers import write_folder, write_json, write_raw, write_sparse, write_tensors
from ldm_reference import single_file

from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError

ONE = np.ones((2, 2), np.float32)


class Bomb:
    """Unpickling it fails the test."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_missing_path_names_what_is_near(tmp_path):
    (tmp_path / "stable-diffusion-v1-5").mkdir()
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path / "stable-difusion-v1-5" / "unet")
    assert "has no 'stable-difusion-v1-5' (similar: stable-diffusion-v1-5)" in str(error.value)


@pytest.mark.parametrize(
    "name", ["runwayml/stable-diffusion-v1-5", "AI-ModelScope/stable-diffusion-v1-5", "a/B_c.d-1"]
)
def test_the_name_of_a_hub_prints_its_downloads(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A file is no misspelling of the owner's folder.
    (tmp_path / f"{name.split('/')[0]}.yaml").touch()
    folder = name.split("/")[1]
    for given, is_name in ((name, True), (Path(name), True), (tmp_path / name, False)):
        with pytest.raises(CheckpointError, match=f"{name} does not exist") as caught:
            open_checkpoint(given)
        assert ("looks like the name of a model of a hub" in caught.value.problem) == is_name
        fix = caught.value.fix
        assert ("correct model_path" in fix) == (not is_name)
        assert f"`hf download {name} --local-dir {folder}`" in fix
        assert f"`modelscope download --model {name} --local_dir {folder}`" in fix
        assert f'model_path="./{folder}"' in fix
        assert f"--model ./{folder}" in fix


@pytest.mark.parametrize(
    "path", ["models/v1-5", "a/b/c", "mdoels/v1-5", "v1-5", "owner/v1-5.safetensors", "-a/b"]
)
def test_a_mistaken_path_is_no_name_of_a_hub(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(CheckpointError, match="does not exist") as caught:
        open_checkpoint(path)
    assert "hub" not in caught.value.problem
    assert "correct model_path" in caught.value.fix
    assert "hf download OWNER/NAME" in caught.value.fix
    assert "modelscope download --model OWNER/NAME" in caught.value.fix


def test_a_path_that_the_system_refuses(tmp_path, monkeypatch):
    for path in ("x" * 5000, "x/" * 5000, "nul\0inside", tmp_path / ("y" * 300)):
        with pytest.raises(CheckpointError, match="cannot be opened") as caught:
            open_checkpoint(path)
        assert len(str(caught.value)) < 400
    with pytest.raises(CheckpointError, match="no such user"):
        open_checkpoint("~nobody-of-this-name/model")


def test_links_that_lead_nowhere_as_a_model(tmp_path):
    for name, target, words in (
        ("gone", "no/where", "is a link to no/where, which does not exist"),
        ("loop", "loop", "is a link to loop, which leads back to itself"),
    ):
        (tmp_path / name).symlink_to(target)
        for path in (tmp_path / name, tmp_path / name / "inside"):
            with pytest.raises(CheckpointError, match=f"{name} {words}") as caught:
                open_checkpoint(path)
            assert "cp -rL" in caught.value.fix
            assert "--local-dir" in caught.value.fix


def test_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "model")
    assert open_checkpoint("~/model").path == tmp_path / "model"


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth", ".pdparams", ".pkl", ".CKPT"])
def test_a_plain_pickle_is_refused_unread(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="pickle") as error:
        open_checkpoint(path)
    assert ".safetensors" in str(error.value)


def test_pickle_named_safetensors_is_refused_unread(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="it looks like a pickle"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["v1-5.ckpt"], "give a file of it"),
        (["v1-5.safetensors"], "give a file of it"),
        (["notes.txt"], "it holds notes.txt"),
        ([], "it holds nothing"),
    ],
)
def test_folder_without_model_index_is_explained(names, words, tmp_path):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(tmp_path)


def test_component_folder_points_to_its_checkpoint(tmp_path):
    write_folder(tmp_path)
    with pytest.raises(CheckpointError, match=f"one component of a checkpoint: give {tmp_path}"):
        open_checkpoint(tmp_path / "unet")


def test_file_of_another_kind_is_refused(tmp_path):
    path = write_json(tmp_path / "model_index.json", {})
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        open_checkpoint(path)


@pytest.mark.parametrize("variant", ["", "../fp16", "fp16/x", "a b"])
def test_variant_must_be_part_of_a_file_name(variant, tmp_path):
    with pytest.raises(CheckpointError, match="variant = "):
        open_checkpoint(write_folder(tmp_path), variant=variant)


def test_variant_of_a_single_file_is_refused(tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", {"x": ONE})
    with pytest.raises(CheckpointError, match="no meaning for the single file"):
        open_checkpoint(path, variant="fp16")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("unet.mid_block.attentions.0.to_q.lora_A.weight", "a LoRA"),
        ("unet.mid_block.attentions.0.to_q.lora.down.weight", "a LoRA"),
        ("emb_params", "a textual inversion"),
        ("control_model.time_embed.0.weight", "a ControlNet"),
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "Diffusion 3"),
        ("double_blocks.0.img_attn.qkv.weight", "the transformer of Flux"),
        ("conditioner.embedders.0.model.ln_final.weight", "an SDXL refiner"),
        ("model.diffusion_model.out.0.weight", "a Stable Diffusion UNet that lacks"),
        ("first_stage_model.encoder.conv_in.weight", "a VAE alone"),
        ("decoder.mid_block.resnets.0.conv1.weight", "a VAE alone"),
        ("down_blocks.0.resnets.0.conv1.weight", "the UNet of a diffusers folder"),
        ("text_model.embeddings.token_embedding.weight", "a CLIP text encoder alone"),
        ("blocks.0.weight", "is no known checkpoint; its 1 tensors begin with blocks.0.weight"),
    ],
)
def test_other_file_is_named_for_what_it_looks_like(name, words, tmp_path):
    path = write_tensors(tmp_path / "model.safetensors", {name: ONE})
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("family", "name", "shape", "words"),
    [
        ("sd1", "input_blocks.0.0.weight", (320, 5, 3, 3), "input channels of the unet = 5"),
        (
            "sd2",
            "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
            (320, 768),
            "looks like sd2, but cross-attention width = 768",
        ),
    ],
)
def test_single_file_of_another_shape_is_unsupported(family, name, shape, words, tmp_path):
    shapes = single_file(family) | {f"model.diffusion_model.{name}": shape}
    with pytest.raises(UnsupportedModelError, match=words):
        open_checkpoint(write_sparse(tmp_path / "a.safetensors", shapes))


@pytest.mark.parametrize(("family", "channels"), [("sd1", 9), ("sd2", 9), ("sdxl", 9), ("sd1", 8)])
def test_single_file_of_another_kind_has_its_input_channels(family, channels, tmp_path):
    name = "input_blocks.0.0.weight"
    shapes = single_file(family) | {f"model.diffusion_model.{name}": (320, channels, 3, 3)}
    config = open_checkpoint(write_sparse(tmp_path / "a.safetensors", shapes)).config("unet")
    assert (config["in_channels"], config["out_channels"]) == (channels, 4)


def test_single_file_that_lacks_the_telling_tensor_is_refused(tmp_path):
    shapes = single_file("sd1")
    del shapes["model.diffusion_model.input_blocks.0.0.weight"]
    with pytest.raises(CheckpointError, match="is missing"):
        open_checkpoint(write_sparse(tmp_path / "a.safetensors", shapes))


def test_single_file_with_tensors_of_no_component_is_refused(tmp_path):
    shapes = single_file("sdxl") | {"v_pred": (), "add_on.weight": (3,)}
    with pytest.raises(CheckpointError, match="2 tensors belong to no component of sdxl: add_on"):
        open_checkpoint(write_sparse(tmp_path / "a.safetensors", shapes))


def test_configs_given_out_are_copies(tmp_path):
    checkpoint = open_checkpoint(write_sparse(tmp_path / "a.safetensors", single_file("sd1")))
    checkpoint.config("unet")["block_out_channels"].append(5)
    assert checkpoint.config("unet")["block_out_channels"] == [320, 640, 1280, 1280]


def test_damaged_single_file_is_refused(tmp_path):
    path = write_raw(tmp_path / "model.safetensors", {"x": 1}, b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable safetensors"):
        open_checkpoint(path)
