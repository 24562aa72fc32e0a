"""Bundles with ControlNets and IP-Adapters draw what their pipelines drew, without what builds."""

import json

import numpy as np
import pytest
from behind_the_wall import draw_behind_the_wall
from PIL import Image
from tiny_controlnet import write_tiny_controlnet
from tiny_ip_adapter import write_tiny_image_encoder, write_tiny_ip_adapter

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.images import METADATA_KEY
from fastdeploy_diffusion.pipelines.opening import open_pipeline

ONE_STEP = {"seed": 3, "num_inference_steps": 1, "width": 16, "height": 16}
REQUEST = {**ONE_STEP, "num_inference_steps": 2, "output_type": "np"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundled")


def write_picture(folder, seed):
    path, random = folder / f"picture-{seed}.png", np.random.default_rng(seed)
    Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def picture(folder):
    return write_picture(folder, 0)


@pytest.fixture(scope="module")
def made(tiny_sd1, folder, picture):
    """Bundles by name; of each, the settings of requests, the pictures, and what one says."""
    nets = [write_tiny_controlnet(folder / f"n{seed}", tiny_sd1, seed=seed) for seed in (1, 2)]
    write_tiny_image_encoder(folder / "image_encoder")
    base, plus = (
        write_tiny_ip_adapter(folder / f"{kind}.safetensors", tiny_sd1, kind)
        for kind in ("base", "plus")
    )
    other = write_picture(folder, 1)
    adapters = [{"path": base, "scale": 0.5}, plus]
    one = {"ip_adapter_image": picture}
    cases = {
        "one": (
            "openvino",
            {"controlnets": nets[:1], "ip_adapters": [plus]},
            [{**one, "control_image": picture}, one],
        ),
        "two": (
            "onnxruntime",
            {"controlnets": nets, "ip_adapters": adapters},
            [
                {"ip_adapter_image": [picture] * 2, "control_image": [picture] * 2},
                {"ip_adapter_image": [[picture, other]] * 2, "control_image": [picture] * 2},
            ],
        ),
    }
    found = {}
    for name, (engine, options, requests) in cases.items():
        config = DiffusionConfig(model_path=tiny_sd1, engine=engine, **options)
        with open_pipeline(config) as pipeline:
            shown = [1, 2] if name == "two" else [None]
            written = write_bundle(pipeline, [(16, 16)], folder / name, shown=shown)
            drawn = [pipeline.text_to_image("a cat", **REQUEST, **each) for each in requests]
            image = pipeline.text_to_image("a cat", **ONE_STEP, **requests[0])
        found[name] = (written, requests, drawn, image.info[METADATA_KEY])
    return found


def test_the_pictures_are_the_same_without_what_builds(made, folder):
    asked = {}
    for name, (_, requests, *_) in made.items():
        for index, settings in enumerate(requests):
            asked[str(folder / f"{name}-{index}.npy")] = (
                {"model_path": str(folder / name)},
                {**REQUEST, **settings},
            )
    modules = draw_behind_the_wall(asked, installed=False)["modules"]
    for name, (_, _, drawn, _) in made.items():
        for index, wanted in enumerate(drawn):
            given = np.load(folder / f"{name}-{index}.npy")
            np.testing.assert_array_equal(given, wanted, name)
        pictures = {each.tobytes() for each in drawn}
        assert len(pictures) == len(drawn)
    below = {"models", "passes", "compiler"}
    assert [each for each in modules if each.split(".")[1] in below] == []


def test_what_lies_in_it_and_what_a_picture_says(made, folder):
    written, requests, _, wanted = made["one"]
    names = ["text_encoder", "image_encoder", "ip_adapter", "controlnet", "denoiser"]
    assert list(written.components) == [*names, "vae_decoder"]
    assert [len(each.builds) for each in written.components.values()] == [1, 1, 1, 1, 2, 1]
    # Of both networks for control and without, and for one and two pictures.
    assert len(made["two"][0].components["denoiser"].builds) == 4
    several = {"image_encoder_0", "ip_adapter_0", "ip_adapter_1", "controlnet_0", "controlnet_1"}
    assert several < made["two"][0].components.keys()
    with open_pipeline(DiffusionConfig(model_path=folder / "one")) as pipeline:
        given = pipeline.text_to_image("a cat", **ONE_STEP, **requests[0])
    noted, expected = json.loads(given.info[METADATA_KEY]), json.loads(wanted)
    for each in (noted, expected):
        del each["run"]["embeddings"]  # there, the text had been read before
    assert noted == expected


def test_what_it_was_not_made_for_is_refused(made, folder, picture):
    with open_pipeline(DiffusionConfig(model_path=folder / "one")) as pipeline:
        with pytest.raises(RequestError, match=r"(?s)given 2 pictures.*built for 1.*images 2"):
            pipeline.text_to_image("a cat", ip_adapter_image=[[picture, picture]])
        with pytest.raises(RequestError, match="24x16 is no size that the bundle was built for"):
            pipeline.text_to_image("a cat", ip_adapter_image=picture, width=24, height=16)
    both = DiffusionConfig(model_path=folder / "two")
    with open_pipeline(both) as pipeline, pytest.raises(RequestError, match="given 1, 2 pictures"):
        pipeline.text_to_image("a cat", ip_adapter_image=[picture, [picture] * 2])
    with pytest.raises(ConfigError, match="is a bundle, whose controlnets was decided"):
        open_pipeline(DiffusionConfig(model_path=folder / "one", controlnets=[folder / "n1"]))
