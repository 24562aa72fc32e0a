"""Components from files of their own, and single files that lack components."""

from functools import partial
from shutil import copytree

import numpy as np
import pytest
from checkpoint_writers import write_json, write_sparse
from flux_reference import FluxShape, flux_single_file, flux_transformer
from ldm_reference import single_file
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.checkpoints import open_checkpoint, open_configured
from fastdeploy_diffusion.errors import CheckpointError, ConfigError, UnsupportedModelError
from fastdeploy_diffusion.families.keys.gguf import GGUF_T5_RULES
from fastdeploy_diffusion.families.keys.reversed_rules import reverse_rules
from fastdeploy_diffusion.images import read_metadata
from fastdeploy_diffusion.json_object import read_json_object

gguf = pytest.importorskip("gguf")

FILES = {
    "text_encoder": "text_encoder/model.safetensors",
    "denoiser": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}
NAMES = {"denoiser": "unet"}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("other") / "sd", seed=5)


def write_gguf(path, tensors, kind=None):
    writer = gguf.GGUFWriter(path, "sd1")
    for name, value in tensors.items():
        blocks = kind is not None and value.ndim == 2 and value.shape[1] % 32 == 0
        stored = gguf.quants.quantize(value, kind) if blocks else value
        writer.add_tensor(name, stored, raw_dtype=kind if blocks else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("key", FILES)
@pytest.mark.parametrize("form", ["file", "folder", "checkpoint", "gguf"])
def test_a_part_replaces_that_of_the_checkpoint(key, form, tiny_sd1, other, tmp_path):
    path = {
        "file": other / FILES[key],
        "folder": (other / FILES[key]).parent,
        "checkpoint": other,
        "gguf": tmp_path / "a.gguf",
    }[form]
    if form == "gguf":
        write_gguf(path, load_file(other / FILES[key]))
    opened = open_checkpoint(tiny_sd1, parts={key: path})
    own, others = open_checkpoint(tiny_sd1), open_checkpoint(other)
    for component in ("text_encoder", "unet", "vae"):
        wanted = others if component == NAMES.get(key, key) else own
        assert opened.tensors(component).digest() == wanted.tensors(component).digest(), component
        assert opened.config(component) == wanted.config(component)
    assert opened.digest() not in (own.digest(), others.digest())
    assert opened.folder("tokenizer") == tiny_sd1 / "tokenizer"


def test_a_picture_is_that_of_the_parts(tiny_sd1, other, tmp_path):
    file = tmp_path / "config.yaml"
    (tmp_path / "parts").mkdir()
    unet = load_file(other / FILES["denoiser"])
    write_gguf(tmp_path / "parts" / "unet.gguf", unet, gguf.GGMLQuantizationType.Q8_0)
    file.write_text(
        f"model_path: {tiny_sd1}\nengine: paddle-eager\n"
        "denoiser: {model_path: parts/unet.gguf}\n"
        f"vae: {{model_path: {other}}}\n"
        f"text_encoder: {{model_path: {other / FILES['text_encoder']}}}\n"
    )
    settings = {"seed": 3, "num_inference_steps": 2, "width": 16, "height": 16}

    def draw(config):
        with SDPipeline(config) as pipeline:
            (image,) = pipeline.generate("a cat", **settings).images
            parts.append(read_metadata(image)["run"].get("parts"))
            (numbers,) = pipeline.generate("a cat", **settings, output_type="np").images
            return numbers

    parts = []
    drawn = draw(DiffusionConfig.from_yaml(file))
    wanted = draw(DiffusionConfig(model_path=other, engine="paddle-eager"))
    foreign = draw(DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager"))
    # Eight bits are close, and another network is not.
    near, far = (np.square(drawn - each).mean() for each in (wanted, foreign))
    assert 0 < near < far / 20
    names = {"unet": "unet.gguf", "vae": "vae", "text_encoder": "model.safetensors"}
    assert parts == [names, None, None]


def test_the_scaling_factor_is_that_of_the_vae(tiny_sd1, tmp_path):
    folder = copytree(tiny_sd1 / "vae", tmp_path / "vae")
    config = read_json_object(folder / "config.json")
    write_json(folder / "config.json", {**config, "scaling_factor": 0.25})
    opened = open_checkpoint(tiny_sd1, parts={"vae": folder})
    assert opened.config("vae")["scaling_factor"] == 0.25
    assert open_checkpoint(tiny_sd1).config("vae").get("scaling_factor") != 0.25


def test_names_of_llama_cpp_for_t5(tiny_schnell, tmp_path):
    tensors = open_checkpoint(tiny_schnell).tensors("text_encoder_2")
    rules = reverse_rules(GGUF_T5_RULES)
    foreign = {
        name: tensors.read(own) for own in tensors for rule in rules for name in rule.apply(own)
    }
    assert "enc.blk.1.attn_q.weight" in foreign
    path = write_gguf(tmp_path / "t5.gguf", foreign)
    opened = open_checkpoint(tiny_schnell, parts={"text_encoder_2": path}).tensors("text_encoder_2")
    assert set(opened) == set(tensors)
    for name in tensors:
        np.testing.assert_array_equal(opened.read(name), tensors.read(name))


FLUX = flux_single_file(FluxShape())
BARE = flux_transformer(FluxShape())
SD = {family: single_file(family) for family in ("sd1", "sd2", "sdxl")}


def without(shapes, *prefixes):
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefixes)}


def unet_alone(family):
    begin = "model.diffusion_model."
    found = {name: shape for name, shape in SD[family].items() if name.startswith(begin)}
    return {name.removeprefix(begin): shape for name, shape in found.items()}


PARTIAL = {
    "flux transformer": (BARE, "flux", ["text_encoder", "text_encoder_2", "vae"]),
    "flux without vae": (without(FLUX, "vae."), "flux", ["vae"]),
    "sd1 unet": (unet_alone("sd1"), "sd1", ["text_encoder", "vae"]),
    "sd2 unet": (unet_alone("sd2"), "sd2", ["text_encoder", "vae"]),
    "sdxl unet": (unet_alone("sdxl"), "sdxl", ["text_encoder", "text_encoder_2", "vae"]),
    "sdxl without vae": (without(SD["sdxl"], "first_stage_model."), "sdxl", ["vae"]),
    "sd1 without text": (without(SD["sd1"], "cond_stage_model."), "sd1", ["text_encoder"]),
}
WHOLE = {"flux": FLUX, **SD}


@pytest.mark.parametrize("case", PARTIAL)
def test_a_file_that_lacks_components_names_their_keys(case, tmp_path):
    shapes, family, keys = PARTIAL[case]
    path = write_sparse(tmp_path / "model.safetensors", shapes)
    with pytest.raises(CheckpointError, match=f"without {', '.join(keys)}") as refused:
        open_checkpoint(path)
    assert all(f"{key}: {{model_path: …}}" in refused.value.fix for key in keys)
    whole = write_sparse(tmp_path / "whole.safetensors", WHOLE[family])
    opened = open_checkpoint(path, parts=dict.fromkeys(keys, whole))
    wanted = open_checkpoint(whole)
    assert opened.family == wanted.family
    assert opened.family.name == family
    for name in opened.family.networks:
        assert set(opened.tensors(name)) == set(wanted.tensors(name)), name
        assert opened.config(name) == wanted.config(name)
    if len(keys) > 1:
        with pytest.raises(CheckpointError, match="without"):
            open_checkpoint(path, parts={keys[0]: whole})


def test_a_variant_is_taken_where_there_is_one(tiny_sd1, tmp_path):
    model = copytree(tiny_sd1, tmp_path / "model")
    for file in model.rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    vae = copytree(tiny_sd1 / "vae", tmp_path / "vae")
    opened = open_checkpoint(model, variant="fp16", parts={"vae": vae})
    assert opened.tensors("vae").digest() == open_checkpoint(tiny_sd1).tensors("vae").digest()
    (vae / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"fp16\.safetensors is not a readable"):
        open_checkpoint(model, variant="fp16", parts={"vae": vae})


def test_wrong_parts_are_refused(tiny_sd1, other, tmp_path):
    fits = partial(open_checkpoint, tiny_sd1)
    with pytest.raises(ConfigError, match="text_encoder_2 has a model_path") as refused:
        fits(parts={"text_encoder_2": other})
    assert refused.value.allowed == "text_encoder, denoiser, vae"
    with pytest.raises(CheckpointError, match=r"vae\.model_path: .* does not exist"):
        fits(parts={"vae": tmp_path / "nothing.safetensors"})
    with pytest.raises(CheckpointError, match="holds no vae of SD 1"):
        fits(parts={"vae": other / FILES["denoiser"]})
    with pytest.raises(UnsupportedModelError, match="CLIPTextModel"):
        fits(parts={"vae": other / "text_encoder"})
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        fits(parts={"vae": tmp_path})
    save_file({"x": np.zeros((2, 2), np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="begin with x"):
        fits(parts={"denoiser": tmp_path / "x.safetensors"})
    options = {"vae": {"model_path": other / FILES["vae"]}}
    config = DiffusionConfig(model_path=tiny_sd1, **options)
    assert open_configured(config).digest() != open_checkpoint(tiny_sd1).digest()
    with pytest.raises(ConfigError, match="model_path"):
        DiffusionConfig(model_path=tiny_sd1, vae={"model_path": ""})
