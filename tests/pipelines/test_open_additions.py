"""With open sizes, one build of UNet, ControlNet and IP-Adapter serves every size in a range."""

import numpy as np
import pytest
from PIL import Image
from tiny_controlnet import write_tiny_controlnet
from tiny_ip_adapter import write_tiny_image_encoder, write_tiny_ip_adapter

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.errors import RequestError

OPEN = {
    "enable_dynamic_shape": True,
    "shapes": {"batch": [1, 2, 6], "height": [16, 32, 48], "width": [16, 32, 64]},
}


def draw_picture(seed):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (21, 27, 3), np.uint8))


PICTURE, OTHER = draw_picture(0), draw_picture(1)
_REQUEST = {"seed": 5, "num_inference_steps": 2, "output_type": "np", "ip_adapter_image": PICTURE}
# Latents of even and odd sizes, upright and across.
REQUESTS = [
    {**_REQUEST, "control_image": OTHER, "height": 18, "width": 44},
    {**_REQUEST, "control_image": PICTURE, "height": 38, "width": 16},
    {**_REQUEST, "control_image": PICTURE, "height": 18, "width": 44, "guess_mode": True},
]


@pytest.fixture(scope="module")
def added(tiny_sd1, tmp_path_factory):
    folder = tmp_path_factory.mktemp("added")
    write_tiny_image_encoder(folder / "image_encoder")
    adapter = write_tiny_ip_adapter(folder / "plus.safetensors", tiny_sd1, "plus")
    net = write_tiny_controlnet(folder / "net", tiny_sd1)
    return {"controlnets": [net], "ip_adapters": [adapter]}


def open_pipeline(model, **options):
    return SDPipeline(DiffusionConfig(model_path=model, cpu_fallback=False, **options))


@pytest.fixture(scope="module")
def wanted(tiny_sd1, added):
    """What the layers draw, built for each size."""
    with open_pipeline(tiny_sd1, engine="paddle-eager", passes=[], **added) as layers:
        return [layers.text_to_image("a cat", **each) for each in REQUESTS]


@pytest.fixture
def built(monkeypatch):
    """The names of the components that were built or loaded."""
    names, open_build = [], ComponentBuild.open

    def record(build, cache):
        names.append(build.name)
        return open_build(build, cache)

    monkeypatch.setattr(ComponentBuild, "open", record)
    return names


def psnr(ours, reference):
    return -10 * np.log10(np.mean((ours - reference) ** 2) + 1e-20)


def test_one_build_draws_what_the_layers_draw_alone_and_in_a_batch(
    tiny_sd1, added, wanted, built, tmp_path
):
    with open_pipeline(tiny_sd1, engine="openvino", **added, **OPEN) as pipeline:
        alone = [pipeline.text_to_image("a cat", **each) for each in REQUESTS]
        assert sorted(built) == sorted(each.name for each in pipeline.report.components)
        with pytest.raises(RequestError, match="height is 64"):
            pipeline.text_to_image("a cat", **{**REQUESTS[0], "height": 64})
        with pipeline.batch(8) as batch:
            together = [batch.submit("a cat", **each) for each in REQUESTS]
        write_bundle(pipeline, [(None, None)], tmp_path / "bundle")
    for own, reference, each in zip(alone, wanted, together, strict=True):
        assert psnr(own, reference) >= 50
        np.testing.assert_array_equal(each.result().images, own)
    with open_pipeline(tmp_path / "bundle") as pipeline:
        np.testing.assert_array_equal(pipeline.text_to_image("a cat", **REQUESTS[0]), alone[0])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "paddle"])
def test_other_engines_draw_what_the_layers_draw(tiny_sd1, added, wanted, engine):
    with open_pipeline(tiny_sd1, engine=engine, cache=False, **added, **OPEN) as pipeline:
        for each, reference in zip(REQUESTS, wanted, strict=True):
            assert psnr(pipeline.text_to_image("a cat", **each), reference) >= 50


def test_over_a_picture(tiny_sd1, added):
    asked = {**REQUESTS[0], "height": None, "width": None, "strength": 0.5}
    picture, pictures = OTHER.resize((26, 20)), []
    for options in ({"engine": "paddle-eager"}, {"engine": "openvino", **OPEN}):
        with open_pipeline(tiny_sd1, **added, **options) as pipeline:
            pictures.append(pipeline.image_to_image("a cat", picture, **asked))
    assert psnr(*pictures) >= 50
