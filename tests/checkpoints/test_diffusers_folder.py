"""Folders: components, variants, shards, old names, and everything that can be wrong with them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from checkpoint_writers import write_folder, write_json, write_tensors

from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError

ONE = np.ones((2, 2), np.float32)
STEM = "diffusion_pytorch_model"


def edit_json(path, **changes):
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not ...}))


def shard_unet(root, *, infix="", weight_map=None):
    """Replace the UNet's file by two shards and their index."""
    for old in (root / "unet").glob("*.safetensors"):
        old.unlink()
    prefix = STEM if not infix else f"{STEM}.{infix}"
    first, second = (f"{prefix}-0000{i}-of-00002.safetensors" for i in (1, 2))
    write_tensors(root / "unet" / first, {"conv_in.weight": ONE})
    write_tensors(root / "unet" / second, {"conv_in.bias": ONE[0] * 2})
    weight_map = weight_map or {"conv_in.weight": first, "conv_in.bias": second}
    middle = f".{infix}" if infix else ""
    write_json(
        root / "unet" / f"{STEM}.safetensors.index{middle}.json",
        {"metadata": {"total_size": 24}, "weight_map": weight_map},
    )
    return root / "unet" / first


def test_folder_gives_configs_tensors_and_options(tmp_path):
    checkpoint = open_checkpoint(write_folder(tmp_path))
    assert checkpoint.family.name == "sd1"
    assert checkpoint.components == ("text_encoder", "unet", "vae", "scheduler", "tokenizer")
    assert checkpoint.config("unet")["cross_attention_dim"] == 768
    # The class is that of model_index.json, as in diffusers.
    assert checkpoint.config("scheduler") == {"beta_start": 0.00085, "_class_name": "PNDMScheduler"}
    assert checkpoint.folder("tokenizer") == tmp_path / "tokenizer"
    assert checkpoint.pipeline_options == {"requires_safety_checker": True}
    assert checkpoint.tensors("unet").names == ("conv_in.bias", "conv_in.weight")
    assert checkpoint.tensors("text_encoder").names == ("final_layer_norm.weight",)


def test_xl_folder_has_two_encoders(tmp_path):
    checkpoint = open_checkpoint(write_folder(tmp_path, xl=True))
    assert checkpoint.family.name == "sdxl"
    assert "text_encoder_2" in checkpoint.components
    assert checkpoint.folder("tokenizer_2") == tmp_path / "tokenizer_2"


def test_linear_projections_make_it_sd2(tmp_path):
    write_folder(tmp_path)
    edit_json(tmp_path / "unet/config.json", use_linear_projection=True)
    assert open_checkpoint(tmp_path).family.name == "sd2"


@pytest.mark.parametrize("ask", ["config", "tensors", "folder"])
def test_unknown_component_lists_the_known(ask, tmp_path):
    checkpoint = open_checkpoint(write_folder(tmp_path))
    with pytest.raises(CheckpointError, match="component 'controlnet'") as error:
        getattr(checkpoint, ask)("controlnet")
    assert "unet" in error.value.allowed


def test_unknown_tensor_suggests_similar_names(tmp_path):
    source = open_checkpoint(write_folder(tmp_path)).tensors("unet")
    assert "conv_in.wieght" not in source
    with pytest.raises(CheckpointError, match=r"no tensor 'conv_in\.wieght'") as error:
        source.read("conv_in.wieght")
    assert "conv_in.weight" in error.value.allowed


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        (
            {"_class_name": "WanPipeline"},
            UnsupportedModelError,
            "_class_name = 'WanPipeline'",
        ),
        (
            {"_class_name": "FluxControlNetPipeline"},
            UnsupportedModelError,
            "is not implemented: ControlNet for Flux is not there yet",
        ),
        ({"_class_name": ...}, UnsupportedModelError, "_class_name = None"),
        ({"controlnet": ["diffusers", "X"]}, UnsupportedModelError, "component 'controlnet'"),
        ({"vae": ["diffusers", "AutoencoderTiny"]}, UnsupportedModelError, "AutoencoderTiny"),
        ({"vae": []}, UnsupportedModelError, "vae of class None"),
        ({"vae": [None, None]}, CheckpointError, "names no vae"),
        ({"tokenizer": ...}, CheckpointError, "names no tokenizer"),
    ],
)
def test_index_that_does_not_fit_is_refused(changes, kind, words, tmp_path):
    write_folder(tmp_path)
    edit_json(tmp_path / "model_index.json", **changes)
    with pytest.raises(kind, match=words):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a": "\\ud800"}',
        b'{"\\uDFFF": 1}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_damaged_json_is_refused_by_name(name, content, tmp_path):
    write_folder(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "vae/config.json",
        "scheduler/scheduler_config.json",
        "text_encoder/model.safetensors",
        f"vae/{STEM}.safetensors",
    ],
)
def test_missing_file_is_named(name, tmp_path):
    write_folder(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "unet",
        "unet/config.json",
        f"unet/{STEM}.safetensors",
        "scheduler/scheduler_config.json",
    ],
)
@pytest.mark.parametrize(
    ("target", "words"),
    [("../../blobs/0123", "which does not exist"), (..., "which leads back to itself")],
)
def test_a_link_that_leads_nowhere_is_named(name, target, words, tmp_path):
    """What a copied cache of a hub looks like without its blobs."""
    write_folder(tmp_path)
    place = tmp_path / name
    target = place.name if target is ... else target
    place.rename(tmp_path / "aside")
    place.symlink_to(target)
    with pytest.raises(CheckpointError, match=f"{place} is a link to {target}, {words}") as caught:
        open_checkpoint(tmp_path)
    assert "cp -rL" in caught.value.fix


def test_a_shard_that_is_a_link_to_nowhere_is_named(tmp_path):
    shard = shard_unet(write_folder(tmp_path))
    shard.unlink()
    shard.symlink_to("gone")
    with pytest.raises(CheckpointError, match=f"{shard.name} is a link to gone, which does not"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["unet/config.json", f"unet/{STEM}.safetensors"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_named_and_not_waited_for(name, make, tmp_path):
    write_folder(tmp_path)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name} is a .*, not a file"):
        open_checkpoint(tmp_path)


def test_a_file_of_options_is_not_read_without_end(tmp_path, monkeypatch):
    write_folder(tmp_path)
    monkeypatch.setattr("fastdeploy_diffusion.model_files.MAX_BYTES", 30)
    with pytest.raises(CheckpointError, match=r"model_index\.json is too large"):
        open_checkpoint(tmp_path)


def test_a_config_with_other_numbers_of_layers_than_the_weights(tmp_path):
    write_folder(tmp_path)
    names = [f"text_model.encoder.layers.{index}.mlp.fc1.bias" for index in range(3)]
    file = tmp_path / "text_encoder/model.safetensors"
    write_tensors(file, dict.fromkeys(names, ONE))
    checkpoint = open_checkpoint(tmp_path)

    class Config:
        stacks = (("num_hidden_layers", "encoder.layers", 3),)
        dispensable = ()

    assert checkpoint.read_network("text_encoder", lambda _: Config()).stacks == Config.stacks
    for key, name, count in (
        ("num_hidden_layers", "encoder.layers", 10**6),
        ("num_hidden_layers", "encoder.layers", 2),
        ("num_blocks", "encoder.blocks", 1),
    ):
        Config.stacks = ((key, name, count),)
        found = 3 if name == "encoder.layers" else 0
        words = rf"config\.json: {key} makes {count} layers of {name}, and .* for {found}"
        with pytest.raises(CheckpointError, match=words):
            checkpoint.read_network("text_encoder", lambda _: Config())


def test_a_file_that_is_only_named_as_one_of_torch_is_refused(tmp_path):
    write_folder(tmp_path)
    (tmp_path / f"unet/{STEM}.safetensors").rename(tmp_path / f"unet/{STEM}.bin")
    with pytest.raises(CheckpointError, match=rf"{STEM}\.bin is not a readable file of torch"):
        open_checkpoint(tmp_path)


def test_variant_is_opened_when_asked_for(tmp_path):
    write_folder(tmp_path, infix=".fp16")
    assert len(open_checkpoint(tmp_path, variant="fp16").tensors("unet")) == 2


def test_variant_that_is_there_is_suggested(tmp_path):
    write_folder(tmp_path, infix=".fp16")
    with pytest.raises(CheckpointError, match="other variants") as error:
        open_checkpoint(tmp_path)
    assert error.value.fix == 'open the checkpoint with variant="fp16"'


def test_variant_that_is_missing_suggests_the_plain_files(tmp_path):
    with pytest.raises(CheckpointError, match=r"fp16\.safetensors is missing") as error:
        open_checkpoint(write_folder(tmp_path), variant="fp16")
    assert error.value.allowed == "variant=None"


@pytest.mark.parametrize("infix", ["", "fp16"])
def test_shards_are_read_as_one(infix, tmp_path):
    write_folder(tmp_path, infix=f".{infix}" if infix else "")
    shard_unet(tmp_path, infix=infix)
    source = open_checkpoint(tmp_path, variant=infix or None).tensors("unet")
    np.testing.assert_array_equal(source.read("conv_in.weight"), ONE)
    np.testing.assert_array_equal(source.read("conv_in.bias"), [2.0, 2.0])


def test_sharded_variant_that_is_there_is_suggested(tmp_path):
    write_folder(tmp_path)
    shard_unet(tmp_path, infix="fp16")
    with pytest.raises(CheckpointError, match="other variants") as error:
        open_checkpoint(tmp_path)
    assert error.value.allowed == 'variant="fp16"'


def test_weights_in_one_file_and_in_shards_are_ambiguous(tmp_path):
    write_folder(tmp_path)
    shard_unet(tmp_path)
    write_tensors(tmp_path / f"unet/{STEM}.safetensors", {"conv_in.weight": ONE})
    with pytest.raises(CheckpointError, match="holds the weights twice"):
        open_checkpoint(tmp_path)


def test_missing_shard_is_named(tmp_path):
    shard = shard_unet(write_folder(tmp_path))
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name} is missing"):
        open_checkpoint(tmp_path)


def test_damaged_shard_is_named(tmp_path):
    shard = shard_unet(write_folder(tmp_path))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{shard.name} is not a readable safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "shard",
    [
        "../vae/diffusion_pytorch_model.safetensors",
        "/etc/passwd",
        "sub/a.safetensors",
        "..\\a.safetensors",
        "a.bin",
        "",
        "..",
        7,
        None,
    ],
)
def test_shard_name_that_is_not_a_plain_name_is_refused(shard, tmp_path):
    write_folder(tmp_path)
    shard_unet(tmp_path, weight_map={"conv_in.weight": shard})
    with pytest.raises(CheckpointError, match=r"'conv_in\.weight' lies in") as error:
        open_checkpoint(tmp_path)
    assert "index.json" in str(error.value)


def test_shard_that_links_out_of_the_folder_is_refused(tmp_path):
    root = write_folder(tmp_path / "model")
    shard = shard_unet(root)
    outside = tmp_path / "outside.safetensors"
    shard.rename(outside)
    shard.symlink_to(outside)
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        open_checkpoint(root)


def test_shards_of_the_hub_cache_may_be_links_to_its_blobs(tmp_path):
    repository = tmp_path / "models--org--name"
    root = write_folder(repository / "snapshots" / "0123abc")
    shard = shard_unet(root)
    blob = repository / "blobs" / "ffee"
    blob.parent.mkdir()
    shard.rename(blob)
    shard.symlink_to(os.path.relpath(blob, shard.parent))
    assert len(open_checkpoint(root).tensors("unet")) == 2


@pytest.mark.parametrize("weight_map", [[], {}, "x", {"a": ["b"]}])
def test_index_without_a_weight_map_is_refused(weight_map, tmp_path):
    write_folder(tmp_path)
    shard_unet(tmp_path)
    write_json(tmp_path / f"unet/{STEM}.safetensors.index.json", {"weight_map": weight_map})
    (tmp_path / f"unet/{STEM}.safetensors").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        open_checkpoint(tmp_path)


def test_index_that_names_tensors_a_shard_lacks_is_refused(tmp_path):
    write_folder(tmp_path)
    shard = shard_unet(tmp_path)
    edit_json(
        tmp_path / f"unet/{STEM}.safetensors.index.json",
        weight_map={"conv_in.weight": shard.name, "conv_out.weight": shard.name},
    )
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors .*'conv_out\.weight'"):
        open_checkpoint(tmp_path)


def test_tensor_in_two_shards_is_refused(tmp_path):
    shard = shard_unet(write_folder(tmp_path))
    write_tensors(shard, {"conv_in.weight": ONE, "conv_in.bias": ONE[0]})
    with pytest.raises(CheckpointError, match=r"holds 1 tensors .*'conv_in\.bias'"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("kernel", [(), (1,), (1, 1)])
def test_old_attention_names_of_the_vae_are_read(kernel, tmp_path):
    write_folder(tmp_path)
    old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    rng = np.random.default_rng(1)
    values = {}
    for tower in ("encoder", "decoder"):
        for name in old:
            base = f"{tower}.mid_block.attentions.0.{name}"
            values[f"{base}.weight"] = rng.standard_normal((4, 4, *kernel)).astype(np.float32)
            values[f"{base}.bias"] = rng.standard_normal(4).astype(np.float32)
        values[f"{tower}.mid_block.attentions.0.group_norm.weight"] = ONE[0]
    write_tensors(tmp_path / f"vae/{STEM}.safetensors", values)
    source = open_checkpoint(tmp_path).tensors("vae")
    assert len(source) == len(values)
    for name, new in old.items():
        read = source.read(f"decoder.mid_block.attentions.0.{new}.weight")
        stored = values[f"decoder.mid_block.attentions.0.{name}.weight"]
        np.testing.assert_array_equal(read, stored.reshape(4, 4))


def test_position_ids_are_left_out(tmp_path):
    write_folder(tmp_path)
    write_tensors(
        tmp_path / "text_encoder/model.safetensors",
        {"text_model.embeddings.position_ids": ONE, "text_model.final_layer_norm.bias": ONE},
    )
    assert open_checkpoint(tmp_path).tensors("text_encoder").names == ("final_layer_norm.bias",)


def test_name_with_and_without_prefix_is_refused(tmp_path):
    write_folder(tmp_path)
    write_tensors(
        tmp_path / "text_encoder/model.safetensors",
        {"text_model.final_layer_norm.bias": ONE, "final_layer_norm.bias": ONE},
    )
    with pytest.raises(CheckpointError, match=r"gives 'final_layer_norm\.bias' twice"):
        open_checkpoint(tmp_path)
