"""Merged weights of every kind and family, against LyCORIS."""

import numpy as np
import pytest
from adapter_files import CONVOLUTION_KINDS, LINEAR_KINDS, RANK, draw, draw_change
from opened_adapters import merge, open_written

from fastdeploy_diffusion.checkpoints import open_checkpoint

torch = pytest.importorskip("torch")
lycoris = pytest.importorskip("lycoris.functional")

_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0"
_LDM_ATTENTION = "input_blocks_1_1_transformer_blocks_0"
_SINGLE = "single_transformer_blocks.1"
# By family: the component, names in files, and our layers that make them, in the order of rows.
LINEAR = {
    "sd": ("unet", f"lora_unet_{_LDM_ATTENTION}_attn2_to_k", [f"{_ATTENTION}.attn2.to_k"]),
    "sdxl": (
        "unet",
        "lora_unet_mid_block_attentions_0_transformer_blocks_1_ff_net_0_proj",
        ["mid_block.attentions.0.transformer_blocks.1.ff.net.0.proj"],
    ),
    "flux": (
        "transformer",
        "lora_unet_single_blocks_1_linear1",
        [
            *(f"{_SINGLE}.attn.to_{letter}" for letter in "qkv"),
            f"{_SINGLE}.proj_mlp",
        ],
    ),
    "text": (
        "text_encoder",
        "lora_te1_text_model_encoder_layers_1_mlp_fc1",
        ["encoder.layers.1.mlp.fc1"],
    ),
    "text-2": (
        "text_encoder_2",
        "lora_te2_text_model_encoder_layers_0_self_attn_out_proj",
        ["encoder.layers.0.self_attn.out_proj"],
    ),
}
CONVOLUTIONS = {
    "sd": ("unet", "lora_unet_input_blocks_1_0_in_layers_2", ["down_blocks.0.resnets.0.conv1"]),
    "sdxl": ("unet", "lora_unet_mid_block_resnets_1_conv2", ["mid_block.resnets.1.conv2"]),
}
CASES = [
    *(pytest.param(family, kind, LINEAR) for family in LINEAR for kind in LINEAR_KINDS),
    *(
        pytest.param(each, kind, CONVOLUTIONS)
        for each in CONVOLUTIONS
        for kind in CONVOLUTION_KINDS
    ),
]


@pytest.fixture(scope="module")
def models(tiny_sd1, tiny_sdxl, tiny_dev):
    opened = {"sd": tiny_sd1, "sdxl": tiny_sdxl, "flux": tiny_dev}
    checkpoints = {name: open_checkpoint(folder) for name, folder in opened.items()}
    return {**checkpoints, "text": checkpoints["sd"], "text-2": checkpoints["sdxl"]}


def merge_with_lycoris(weight, parts):
    """The weight at strength 1, by LyCORIS' functions.

    Not by its modules: those of 4.1.3 count the scale of LoHa and LoKr twice where they merge.
    """
    given = {name: torch.tensor(each) for name, each in parts.items()}
    gamma, get = 2.0 / RANK, given.get
    if "diff" in given:
        difference = given["diff"]
    elif "lora_up.weight" in given:
        names = ("lora_down.weight", "lora_up.weight", "lora_mid.weight")
        difference = lycoris.locon.diff_weight(*map(get, names), gamma=gamma)
    elif "hada_w1_a" in given:
        names = ("hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a", "hada_t1", "hada_t2")
        difference = lycoris.loha.diff_weight(*map(get, names), gamma=gamma)
    else:
        names = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
        values = [get(f"lokr_{name}") for name in names]
        if "lokr_w2_b" in given and "lokr_t2" not in given:  # as its module does of convolutions
            values[5] = values[5].reshape(RANK, -1, *weight.shape[2:])
        # It divides by the second axis of a factor, which with a middle is not the rank.
        divisor = next((each.shape[1] for each in (values[1], values[4]) if each is not None), 1)
        difference = lycoris.lokr.diff_weight(*values, gamma=gamma * divisor)
    merged = torch.tensor(weight) + difference.reshape(weight.shape)
    if "dora_scale" in given:
        by_output = given["dora_scale"].shape[0] == len(weight)
        merged = lycoris.general.weight_decompose(
            merged, given["dora_scale"], wd_on_out=by_output, backend="torch"
        )
    return merged.numpy()


def read_joined(source, layers, tensor="weight"):
    return np.concatenate([source.read(f"{layer}.{tensor}") for layer in layers])


@pytest.mark.parametrize(("family", "kind", "table"), CASES)
def test_a_merged_weight_is_that_of_lycoris(models, tmp_path, family, kind, table):
    component, name, layers = table[family]
    checkpoint = models[family]
    source = checkpoint.tensors(component)
    weight = read_joined(source, layers)
    has_bias = f"{layers[0]}.bias" in source
    parts = draw_change(kind, weight.shape, seed=5)
    if not has_bias:
        parts.pop("diff_b", None)
    tensors = {f"{name}.{part}": each for part, each in parts.items()}
    adapter = open_written(checkpoint, tensors, tmp_path / "a.safetensors")

    whole = merge_with_lycoris(weight, parts)
    for strength in (-1.0, 0.5, 1.0, 2.0):
        expected = weight + strength * (whole - weight)
        merged = read_joined(merge(checkpoint, component, [(adapter, strength)]), layers)
        assert merged.shape == expected.shape
        np.testing.assert_allclose(merged, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(whole - weight).max() > 1e-3
    if "diff_b" in parts:
        bias = read_joined(merge(checkpoint, component, [(adapter, 2.0)]), layers, "bias")
        added = bias - read_joined(source, layers, "bias")
        np.testing.assert_allclose(added, 2 * parts["diff_b"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_norms_and_several_adapters_add_up(models, tmp_path, family):
    name, ours = "lora_unet_mid_block_resnets_0_norm1", "mid_block.resnets.0.norm1"
    source = models[family].tensors("unet")
    weight, bias = source.read(f"{ours}.weight"), source.read(f"{ours}.bias")
    tensors = {f"{name}.w_norm": draw(weight.shape), f"{name}.b_norm": draw(weight.shape, 1)}
    first = open_written(models[family], tensors, tmp_path / "a.safetensors")
    other = {f"{name}.w_norm": draw(weight.shape, 2)}
    second = open_written(models[family], other, tmp_path / "b.safetensors")
    merged = merge(models[family], "unet", [(first, 0.3), (second, -1.0)])
    expected = weight + 0.3 * tensors[f"{name}.w_norm"] - other[f"{name}.w_norm"]
    np.testing.assert_allclose(merged.read(f"{ours}.weight"), expected, rtol=0, atol=1e-6)
    expected = bias + 0.3 * tensors[f"{name}.b_norm"]
    np.testing.assert_allclose(merged.read(f"{ours}.bias"), expected, rtol=0, atol=1e-6)
