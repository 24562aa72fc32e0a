"""Values after renaming, against diffusers' own converters; and the edges of the rules."""

from types import SimpleNamespace

import numpy as np
import pytest
from checkpoint_writers import write_tensors
from ldm_reference import (
    Shapes,
    TowerShape,
    UNetShape,
    clip_tower,
    ldm_unet,
    ldm_vae,
    open_clip_tower,
)

from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import collect_tensors
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.families.keys.rules import ignore, rename
from fastdeploy_diffusion.families.registry import FAMILIES

torch = pytest.importorskip("torch")
converters = pytest.importorskip("diffusers.loaders.single_file_utils")

SMALL_UNETS = {
    "sd1": UNetShape(8, (1, 2, 4, 4), (1, 1, 1, 0), 12, False),
    "sd2": UNetShape(8, (1, 2, 4, 4), (1, 1, 1, 0), 16, True),
    "sdxl": UNetShape(8, (1, 2, 4), (0, 2, 3), 20, True, 24),
}
VAE_CONFIG = {"down_block_types": [""] * 4, "up_block_types": [""] * 4}


def random_values(shapes: Shapes, prefix: str = "") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {prefix + name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def collect(tmp_path, family: str, component: str, values: dict[str, np.ndarray]):
    layout = FAMILIES[family].layouts[-1]
    file = SafetensorsFile(write_tensors(tmp_path / "model.safetensors", values))
    return collect_tensors(file.path, [file], layout.rules[component], layout.prefixes[component])


def assert_same_tensors(source, expected: dict[str, object]) -> None:
    assert set(source.names) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(source.read(name), value.numpy(), err_msg=name)
        assert source.shape(name) == tuple(value.shape)


def as_torch(values: dict[str, np.ndarray]) -> dict[str, object]:
    return {name: torch.from_numpy(value) for name, value in values.items()}


@pytest.mark.parametrize("family", SMALL_UNETS)
def test_unet_values_equal_those_of_diffusers(family, tmp_path):
    values = random_values(ldm_unet(SMALL_UNETS[family]), "model.diffusion_model.")
    config = {"layers_per_block": 2}
    if family == "sdxl":
        config["addition_embed_type"] = "text_time"
    expected = converters.convert_ldm_unet_checkpoint(as_torch(values), config)
    assert_same_tensors(collect(tmp_path, family, "unet", values), expected)


def test_vae_values_equal_those_of_diffusers(tmp_path):
    values = random_values(ldm_vae(4), "first_stage_model.")
    expected = converters.convert_ldm_vae_checkpoint(as_torch(values), VAE_CONFIG)
    assert_same_tensors(collect(tmp_path, "sd1", "vae", values), expected)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_clip_values_equal_those_of_diffusers(family, tmp_path):
    prefix = FAMILIES[family].layouts[-1].prefixes["text_encoder"]
    values = random_values(clip_tower(8, 3, 20), prefix)
    converted = converters.convert_ldm_clip_checkpoint(as_torch(values))
    expected = {
        name.removeprefix("text_model."): value
        for name, value in converted.items()
        if not name.endswith("position_ids")
    }
    assert_same_tensors(collect(tmp_path, family, "text_encoder", values), expected)


@pytest.mark.parametrize(
    ("family", "component", "layers"), [("sd2", "text_encoder", 24), ("sdxl", "text_encoder_2", 3)]
)
def test_open_clip_values_equal_those_of_diffusers(family, component, layers, tmp_path):
    prefix = FAMILIES[family].layouts[-1].prefixes[component]
    values = random_values(open_clip_tower(TowerShape(8, layers, 8, 20)), prefix)
    converted = converters.convert_open_clip_checkpoint(
        SimpleNamespace(config=SimpleNamespace(hidden_size=8)), as_torch(values), prefix
    )
    expected = {name.removeprefix("text_model."): value for name, value in converted.items()}
    assert_same_tensors(collect(tmp_path, family, component, values), expected)


def test_name_without_a_rule_is_kept(tmp_path):
    values = random_values({"out.0.weight": (2,), "out.1.strange": (2,)}, "model.diffusion_model.")
    source = collect(tmp_path, "sd1", "unet", values)
    assert source.names == ("conv_norm_out.weight", "out.1.strange")


def test_inert_tensor_is_left_out(tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "a", random_values({"a": (1,), "ab": (1,)})))
    assert collect_tensors(file.path, [file], [ignore("a")]).names == ("ab",)


def test_two_tensors_for_one_name_are_refused(tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "a", random_values({"x": (1,), "y": (1,)})))
    with pytest.raises(CheckpointError, match="gives 'x' twice: as 'x' in a and as 'y' in a"):
        collect_tensors(file.path, [file], [rename("y", "x")])


def test_fused_tensor_that_does_not_divide_is_refused(tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "a", random_values({"qkv": (4, 2)})))
    with pytest.raises(CheckpointError, match="'qkv' has 4 rows") as error:
        collect_tensors(file.path, [file], [rename("qkv", "q", "k", "v")])
    assert "a multiple of 3" in str(error.value)


def test_fused_scalar_is_refused(tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "a", random_values({"qkv": ()})))
    with pytest.raises(CheckpointError, match="'qkv' has 1 rows"):
        collect_tensors(file.path, [file], [rename("qkv", "q", "k", "v")])


def test_squeezing_touches_only_kernels_of_one_by_one(tmp_path):
    shapes = {"a": (2, 3, 1, 1), "b": (2, 3, 1), "c": (2, 3), "d": (2, 3, 3, 3), "e": (2,)}
    file = SafetensorsFile(write_tensors(tmp_path / "a", random_values(shapes)))
    source = collect_tensors(file.path, [file], [rename("(.)", r"\1", squeezed=True)])
    squeezed = {name: source.read(name).shape for name in source}
    assert squeezed == {"a": (2, 3), "b": (2, 3), "c": (2, 3), "d": (2, 3, 3, 3), "e": (2,)}
    assert squeezed == {name: source.shape(name) for name in source}
