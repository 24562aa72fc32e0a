import json

import numpy as np
import pytest
from tiny_checkpoint import tiny_sd1  # noqa: F401  (a fixture)

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.benchmark.random_checkpoint import draw_weights, make_random_checkpoint
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.checkpoints.diffusers_writer import write_diffusers_folder
from fastdeploy_diffusion.errors import ConfigError


@pytest.fixture(scope="module")
def written(tiny_sd1, tmp_path_factory):  # noqa: F811
    names = ("text_encoder", "unet", "vae", "scheduler")
    checkpoint = open_checkpoint(tiny_sd1)
    configs = {name: checkpoint.config(name) for name in names}
    folder = tmp_path_factory.mktemp("random") / "written"
    write_diffusers_folder(folder, configs, draw_weights(configs), tiny_sd1 / "tokenizer")
    return folder


def test_our_pipeline_draws_with_it(written):
    config = DiffusionConfig(model_path=written, engine="paddle-eager", cache=False)
    pixels = SDPipeline(config).text_to_image("x", seed=1, num_inference_steps=2, output_type="np")
    assert pixels.std() > 0.01


def test_diffusers_reads_every_weight(written):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(written)
    ours = open_checkpoint(written)
    for name in ("text_encoder", "unet", "vae"):
        theirs = {
            key.removeprefix("text_model."): value
            for key, value in getattr(pipeline, name).state_dict().items()
        }
        assert set(theirs) == set(ours.tensors(name))
        key = min(theirs)
        np.testing.assert_array_equal(theirs[key].numpy(), ours.tensors(name).read(key))


def test_the_same_seed_draws_the_same(written):
    configs = {
        name: json.loads((written / name / "config.json").read_text())
        for name in ("text_encoder", "unet", "vae")
    }
    again = dict(draw_weights(configs))
    for name in configs:
        source = open_checkpoint(written).tensors(name)
        for key, values in again[name].items():
            np.testing.assert_array_equal(source.read(key), values.astype(np.float32))
            assert np.isfinite(values).all()


def test_an_architecture_that_is_not_there():
    with pytest.raises(ConfigError, match="did you mean 'sd15'"):
        make_random_checkpoint("sd-15")
