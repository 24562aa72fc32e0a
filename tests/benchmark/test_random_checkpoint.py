import json

import numpy as np
import pytest
from tiny_flux import shrink

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.benchmark import needs, random_checkpoint
from fastdeploy_diffusion.benchmark.architectures import ARCHITECTURES, Architecture
from fastdeploy_diffusion.benchmark.random_checkpoint import (
    draw_weights,
    make_random_checkpoint,
    write_random_checkpoint,
)
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.errors import ConfigError, ResourceError
from fastdeploy_diffusion.families.published.flux import FLUX_SCHNELL
from fastdeploy_diffusion.families.sd import SD1
from fastdeploy_diffusion.tokenizers import CLIPTokenizer, T5Tokenizer

PARAMETERS = {
    "sd15": 1.066e9,
    "sd21": 1.290e9,
    "sdxl": 3.469e9,
    "flux-dev": 16.871e9,
    "flux-schnell": 16.860e9,
}


@pytest.fixture(scope="module")
def written(tiny_sd1, tmp_path_factory):
    checkpoint = open_checkpoint(tiny_sd1)
    names = ("text_encoder", "unet", "vae", "scheduler")
    configs = {name: checkpoint.config(name) for name in names}
    folder = tmp_path_factory.mktemp("random") / "written"
    write_random_checkpoint(folder, Architecture(SD1, configs, "F16"))
    return folder


def test_our_pipeline_draws_with_it(written):
    config = DiffusionConfig(model_path=written, engine="paddle-eager", cache=False)
    pixels = SDPipeline(config).text_to_image("x", seed=1, num_inference_steps=2, output_type="np")
    assert pixels.std() > 0.01


def test_diffusers_reads_every_weight(written):
    from diffusers import StableDiffusionPipeline

    compare_weights(StableDiffusionPipeline.from_pretrained(written), open_checkpoint(written))


def test_the_text_encoder_has_the_published_names(written):
    """Older transformers and other programs know no others."""
    names = SafetensorsFile(written / "text_encoder/model.safetensors").tensors
    assert "text_model.embeddings.token_embedding.weight" in names
    assert all(name.startswith("text_model.") for name in names)


def test_diffusers_reads_flux_and_its_tokenizers(tiny_schnell):
    from diffusers import FluxPipeline

    pipeline, ours = FluxPipeline.from_pretrained(tiny_schnell), open_checkpoint(tiny_schnell)
    compare_weights(pipeline, ours)
    prompts = ["a large red star on a blue background", "Two  cats, 50% off!", ""]
    theirs = pipeline.tokenizer_2(prompts, padding="max_length", max_length=64).input_ids
    tokenizer = T5Tokenizer.from_folder(ours.folder("tokenizer_2"))
    np.testing.assert_array_equal(tokenizer.encode(prompts, 64).input_ids, theirs)


def test_diffusers_reads_sdxl_and_its_tokenizers(tiny_sdxl):
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, add_watermarker=False)
    ours = open_checkpoint(tiny_sdxl)
    assert pipeline.config.force_zeros_for_empty_prompt
    compare_weights(pipeline, ours)
    prompts = ["a large red star on a blue background", "Hello!!", ""]
    for name in ("tokenizer", "tokenizer_2"):
        theirs = getattr(pipeline, name)(prompts, padding="max_length").input_ids
        tokenizer = CLIPTokenizer.from_folder(ours.folder(name))
        np.testing.assert_array_equal(tokenizer.encode(prompts).input_ids, theirs)
    assert tokenizer.pad_id == 0


def compare_weights(pipeline, ours):
    for name in ours.family.networks:
        theirs = {
            key.removeprefix("text_model."): value
            for key, value in getattr(pipeline, name).state_dict().items()
            if key != "encoder.embed_tokens.weight"  # the shared embedding under another name
        }
        assert set(theirs) == set(ours.tensors(name))
        for key in (min(theirs), max(theirs)):
            values = theirs[key].float().numpy()
            np.testing.assert_array_equal(values, ours.tensors(name).read(key))


def test_the_same_seed_draws_the_same(tiny_schnell):
    source = open_checkpoint(tiny_schnell)
    for name, shapes, read in draw_weights(shrink(FLUX_SCHNELL)):
        for key in shapes:
            values = read(key)
            assert np.isfinite(values).all()
            np.testing.assert_allclose(source.tensors(name).read(key), values, rtol=2**-8)


@pytest.mark.parametrize("name", PARAMETERS)
def test_architectures_have_the_published_sizes(name):
    assert ARCHITECTURES[name].parameters == pytest.approx(PARAMETERS[name], rel=1e-3)


def test_an_architecture_that_is_not_there():
    with pytest.raises(ConfigError, match="did you mean 'sd15'"):
        make_random_checkpoint("sd-15")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(random_checkpoint, "default_cache_folder", lambda: tmp_path / "cache")
    return tmp_path


def pretend_to_have(monkeypatch, *, memory=10**12, disk=10**12):
    found = {"memory": {"total": memory, "available": memory}}
    monkeypatch.setattr(needs, "describe_machine", lambda: found)
    monkeypatch.setattr(needs, "find_free_space", lambda folder: disk)


@pytest.mark.parametrize(
    ("there", "message", "fix"),
    [
        (
            {"memory": 24 * 2**30},
            r"at least 62\.8 GiB of memory, and 24\.0 GiB of 24\.0 GiB are available",
            "take one that fits: sd15, sd21, sdxl",
        ),
        (
            {"disk": 30 * 2**30},
            r"takes 31\.4 GiB of disk space, and 30\.0 GiB are free for .*flux-dev-seed0",
            "XDG_CACHE_HOME",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_it_is_written(there, message, fix, cache, monkeypatch):
    pretend_to_have(monkeypatch, **there)
    with pytest.raises(ResourceError, match=message) as caught:
        make_random_checkpoint("flux-dev")
    assert "--random-weights flux-dev" in caught.value.problem
    assert fix in caught.value.fix
    assert list(cache.iterdir()) == []


def test_what_is_half_written_is_removed(cache, monkeypatch):
    pretend_to_have(monkeypatch)
    monkeypatch.setitem(random_checkpoint.ARCHITECTURES, "tiny", shrink(FLUX_SCHNELL))

    def run_out(folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(random_checkpoint, "write_character_tokenizer", run_out)
        with pytest.raises(ResourceError, match="tiny-seed0 cannot be written: No space left"):
            make_random_checkpoint("tiny")
    assert list((cache / "cache-random-weights").iterdir()) == []
    index = make_random_checkpoint("tiny") / "model_index.json"
    assert json.loads(index.read_text())["_class_name"] == "FluxPipeline"
    first = index.stat().st_mtime_ns
    make_random_checkpoint("tiny")
    assert index.stat().st_mtime_ns == first


def test_a_checkpoint_that_does_not_fit_is_refused(tiny_schnell, monkeypatch):
    checkpoint = open_checkpoint(tiny_schnell)
    needs.check_model(checkpoint)
    pretend_to_have(monkeypatch, memory=2**16)
    with pytest.raises(ResourceError, match="billion parameters") as caught:
        needs.check_model(checkpoint)
    assert str(tiny_schnell) in caught.value.problem
    monkeypatch.setattr(needs, "describe_machine", lambda: {"memory": None})
    needs.check_model(checkpoint)  # an unknown amount of memory is not refused
