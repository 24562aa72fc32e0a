"""Flux's checkpoints: full-size names and shapes, values, and files that are something else."""

from functools import partial
from math import prod

import numpy as np
import pytest
from checkpoint_writers import write_json, write_sparse, write_tensors
from flux_reference import FluxShape, T5Shape, flux_single_file, flux_transformer, t5_encoder

from fastdeploy_diffusion.checkpoints import build_skeleton, open_checkpoint
from fastdeploy_diffusion.checkpoints.layer_weights import list_shapes
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import collect_tensors
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.keys.diffusers import T5_RULES
from fastdeploy_diffusion.families.keys.flux import FLUX_RULES
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.families.published import flux as published
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.t5 import T5EncoderModel

torch = pytest.importorskip("torch")
converters = pytest.importorskip("diffusers.loaders.single_file_utils")
reference_shapes = pytest.importorskip("published_reference").reference_shapes

MODELS = {
    "text_encoder": (CLIPTextModel, CLIPTextConfig),
    "text_encoder_2": (T5EncoderModel, T5Config),
    "transformer": (FluxTransformer2DModel, FluxTransformer2DConfig),
    "vae": (AutoencoderKL, AutoencoderKLConfig),
}
CLASSES = {
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "T5EncoderModel",
    "transformer": "FluxTransformer2DModel",
    "vae": "AutoencoderKL",
}
INDEX = {
    "_class_name": "FluxPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "image_encoder": [None, None],
    **{name: ["diffusers", each] for name, each in CLASSES.items()},
}
VARIANTS = {"dev": published.FLUX_DEV, "schnell": published.FLUX_SCHNELL}
# Parameters of the published models, as their tensors add up.
SIZES = {"dev": 11_901_408_320, "schnell": 11_891_178_560}


def reference_names(config):
    shapes = reference_shapes(config)
    shapes.pop("encoder.embed_tokens.weight", None)  # the shared embedding under another name
    return shapes


def write_folder(root, configs, transformer=None):
    """Write a full-size folder of holes."""
    write_json(root / "model_index.json", INDEX)
    write_json(root / "scheduler/scheduler_config.json", configs["scheduler"])
    for name in CLASSES:
        write_json(root / name / "config.json", configs[name])
        stem = "model" if name.startswith("text") else "diffusion_pytorch_model"
        shapes = reference_names(configs[name])
        if name == "transformer" and transformer:
            shapes = transformer
        write_sparse(root / name / f"{stem}.safetensors", shapes, "BF16")
    return root


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layout", ["folder", "original transformer", "single file"])
def test_full_size_names_and_shapes(variant, layout, tmp_path):
    configs, shape = VARIANTS[variant], FluxShape(guidance=variant == "dev")
    if layout == "single file":
        path = write_sparse(tmp_path / "flux.safetensors", flux_single_file(shape), "BF16")
    else:
        original = flux_transformer(shape) if layout == "original transformer" else None
        path = write_folder(tmp_path, configs, original)
    checkpoint = open_checkpoint(path)
    assert checkpoint.family.name == "flux"
    assert checkpoint.config("scheduler") == configs["scheduler"]
    for name, (make, read) in MODELS.items():
        config = checkpoint.config(name)
        assert config == configs[name]
        source = checkpoint.tensors(name)
        stored = {each: source.shape(each) for each in source}
        assert stored == reference_names(config), name
        skeleton = build_skeleton(partial(make, read.from_dict(config)))
        assert stored == list_shapes(skeleton), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_config_has_the_published_size(variant):
    shapes = reference_shapes(VARIANTS[variant]["transformer"])
    assert sum(prod(shape) for shape in shapes.values()) == SIZES[variant]


def random_values(shapes):
    rng = np.random.default_rng(7)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("guidance", [True, False])
def test_transformer_values_equal_those_of_diffusers(guidance, tmp_path):
    shapes = flux_transformer(FluxShape(12, 6, 2, 3, 10, 5, 16, guidance))
    # diffusers' converter cuts these at multiples of the published width, whatever the others are.
    fused = {name: 7 * FluxShape.width for name in shapes if ".linear1." in name}
    values = random_values(
        {name: (fused.get(name, shape[0]), *shape[1:]) for name, shape in shapes.items()}
    )
    tensors = {name: torch.from_numpy(value) for name, value in values.items()}
    wanted = converters.convert_flux_transformer_checkpoint_to_diffusers(tensors)
    file = SafetensorsFile(write_tensors(tmp_path / "model.safetensors", values))
    source = collect_tensors(file.path, [file], FLUX_RULES)
    assert len(fused) == 6
    assert set(source.names) == set(wanted)
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(source.read(name), tensor.numpy(), err_msg=name)
        assert source.shape(name) == tuple(tensor.shape)


def test_names_of_t5_are_kept(tmp_path):
    values = random_values(t5_encoder(T5Shape(6, 8, 4, 2, 2, 9)))
    file = SafetensorsFile(write_tensors(tmp_path / "model.safetensors", values))
    source = collect_tensors(file.path, [file], T5_RULES)
    assert set(source.names) == values.keys() - {"encoder.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_encoder_2": None}, "names no text_encoder_2"),
        ({"text_encoder_2": ["transformers", "UMT5EncoderModel"]}, "'UMT5EncoderModel'"),
        ({"transformer": ["diffusers", "SD3Transformer2DModel"]}, "'SD3Transformer2DModel'"),
        ({"image_encoder": ["transformers", "CLIPVisionModel"]}, "'image_encoder'"),
        ({"_class_name": "FluxControlPipeline"}, "'FluxControlPipeline'"),
    ],
)
def test_folders_that_are_something_else(change, message, tmp_path):
    index = {name: value for name, value in (INDEX | change).items() if value is not None}
    write_json(tmp_path / "model_index.json", index)
    with pytest.raises((CheckpointError, UnsupportedModelError), match=message) as caught:
        open_checkpoint(tmp_path)
    assert "model_index.json" in str(caught.value)


def test_a_missing_text_encoder_2_is_named(tmp_path):
    write_folder(tmp_path, VARIANTS["schnell"])
    (tmp_path / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="text_encoder_2"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("double_blocks.0.img_attn.qkv.weight", "transformer of Flux, without"),
        ("single_transformer_blocks.0.attn.to_q.weight", "transformer of Flux, without"),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "T5 text enc"),
        ("transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight", "a LoRA"),
        ("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", "a LoRA"),
    ],
)
def test_files_that_are_no_checkpoint(name, message, tmp_path):
    path = write_sparse(tmp_path / "file.safetensors", {name: (2, 2)})
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert "give " in str(caught.value)


def test_a_flux_model_of_another_shape_is_refused(tmp_path):
    shapes = flux_single_file(FluxShape(channels=128))
    path = write_sparse(tmp_path / "flux1-depth.safetensors", shapes, "BF16")
    with pytest.raises(UnsupportedModelError, match="input channels of the transformer = 128"):
        open_checkpoint(path)


def test_a_single_file_of_flux_fill_has_its_channels(tmp_path):
    shapes = flux_single_file(FluxShape(channels=384))
    path = write_sparse(tmp_path / "flux1-fill.safetensors", shapes, "BF16")
    config = open_checkpoint(path).config("transformer")
    assert (config["in_channels"], config["out_channels"]) == (384, 64)
