import json

import numpy as np
import pytest
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors.numpy import save_file
from tiny_controlnet import configure_controlnet, write_tiny_controlnet

from fastdeploy_diffusion.checkpoints import build_skeleton, check_weights, list_shapes
from fastdeploy_diffusion.checkpoints.controlnet import open_controlnet
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.keys.ldm import LDM_CONTROLNET_RULES
from fastdeploy_diffusion.families.keys.reversed_rules import reverse_rules
from fastdeploy_diffusion.families.networks.controlnet import ControlNetConfig
from fastdeploy_diffusion.families.published.sd import SD_1_5, SD_2_1, SDXL_BASE
from fastdeploy_diffusion.models.controlnet import ControlNetModel


@pytest.fixture
def folder(tiny_sd1, tmp_path):
    return write_tiny_controlnet(tmp_path / "edges", tiny_sd1)


def list_published(configs):
    """Names and shapes of the ControlNet of a published UNet, and its config."""
    raw = configure_controlnet(
        dict(configs["unet"]), conditioning_embedding_out_channels=[16, 32, 96, 256]
    )
    config = ControlNetConfig.from_dict(raw)
    return list_shapes(build_skeleton(lambda: ControlNetModel(config))), config


def name_originally(names):
    """The names that the original code gives, by canonical names."""
    rules = reverse_rules(LDM_CONTROLNET_RULES)
    found = {}
    for name in names:
        stored = next((each for rule in rules for each in rule.apply(name)), name)
        found[name] = f"control_model.{stored}"
    return found


def write_original(path, names, width):
    """A file with these names: of the tensors, only the width of the texts is as published."""
    save_file(
        {name: np.zeros((1, width if "attn2.to_k" in name else 1), np.float32) for name in names},
        path,
    )
    return path


def test_a_folder_is_read(folder):
    found = open_controlnet(folder)
    assert found.config.block_out_channels == (16, 32)
    check_weights(build_skeleton(lambda: ControlNetModel(found.config)), found.source)


@pytest.mark.parametrize("configs", [SD_1_5, SD_2_1])
def test_original_names_are_those_that_diffusers_reads(configs):
    shapes, config = list_published(configs)
    originals = name_originally(shapes)
    assert len(set(originals.values())) == len(shapes)
    converted = convert_controlnet_checkpoint(
        {stored: name for name, stored in originals.items()},
        {"layers_per_block": config.layers_per_block},
    )
    # Each of them comes back under the name that it came from.
    assert converted == {name: name for name in shapes}


@pytest.mark.parametrize(("configs", "width"), [(SD_1_5, 768), (SD_2_1, 1024), (SDXL_BASE, 2048)])
def test_a_single_file_has_the_config_of_its_family(configs, width, tmp_path):
    shapes, config = list_published(configs)
    path = write_original(tmp_path / "c.safetensors", name_originally(shapes).values(), width)
    found = open_controlnet(path)
    assert found.config == config
    assert set(found.source) == set(shapes)


def test_what_is_no_controlnet_is_refused(folder, tiny_sd1, tmp_path):
    shapes, _ = list_published(SD_1_5)
    names = list(name_originally(shapes).values())
    with pytest.raises(UnsupportedModelError, match="no published width"):
        open_controlnet(write_original(tmp_path / "odd.safetensors", names, 99))
    with pytest.raises(CheckpointError, match="no ControlNet's: cond_stage"):
        open_controlnet(write_original(tmp_path / "b.safetensors", [*names, "cond_stage"], 768))
    with pytest.raises(UnsupportedModelError, match="UNet2DConditionModel"):
        open_controlnet(tiny_sd1 / "unet")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        open_controlnet(tiny_sd1)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_controlnet(tmp_path / "missing")
    (tmp_path / "control.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"not a readable file of torch\.save"):
        open_controlnet(tmp_path / "control.pth")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layers_per_block": 2}))
    with pytest.raises(CheckpointError, match="layers_per_block makes 2 layers"):
        open_controlnet(folder)
    (folder / "config.json").write_text(json.dumps({**config, "act_fn": "gelu"}))
    with pytest.raises(UnsupportedModelError, match=r"config\.json: .*act_fn"):
        open_controlnet(folder)
