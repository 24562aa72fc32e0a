"""Requests with control: what runs when, what is refused, and what a picture says of it."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_controlnet import write_tiny_controlnet

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, GenerationRequest, SDPipeline
from fastdeploy_diffusion.control_pictures import detect_edges
from fastdeploy_diffusion.errors import ConfigError, RequestError, UnsupportedModelError
from fastdeploy_diffusion.images import METADATA_KEY
from fastdeploy_diffusion.runtime.session import Session

REQUEST = {"seed": 5, "num_inference_steps": 3, "output_type": "np"}


def draw_edges(seed=0, width=32, height=32):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


EDGES = draw_edges()
CORNERS = [Image.new("L", (32, 32)) for _ in range(2)]
for corner, place in zip(CORNERS, ((0, 0, 8, 8), (20, 20, 30, 30)), strict=True):
    corner.paste(255, place)


@pytest.fixture(scope="module")
def nets(tiny_sd1, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    return [write_tiny_controlnet(folder / f"n{seed}", tiny_sd1, seed=seed) for seed in (1, 2)]


def open_pipeline(model, nets, engine="openvino", **options):
    choice = {"engine": engine, "cpu_fallback": False, "cache": False, **options}
    return SDPipeline(DiffusionConfig(model_path=model, controlnets=nets, **choice))


def psnr(ours, reference):
    return -10 * np.log10(np.mean((ours - reference) ** 2) + 1e-20)


@pytest.fixture
def runs(monkeypatch):
    """Number of rows of each ControlNet's run, and of pictures in each run of a prologue."""
    found = {"rows": [], "pictures": []}
    run, run_all = Session.run, Session.run_all

    def record(self, **feeds):
        if "controlnet_cond" in feeds and "sample" not in self.inputs:
            found["pictures"].append(len(feeds["controlnet_cond"]))
        return run(self, **feeds)

    def record_all(self, rows):
        if "controlnet_cond" in self.inputs and type(self).__name__ == "RecoveringSession":
            found["rows"].append(len(rows))
        return run_all(self, rows)

    monkeypatch.setattr(Session, "run", record)
    monkeypatch.setattr(Session, "run_all", record_all)
    return found


def test_an_engine_with_its_passes_draws_what_the_layers_draw(tiny_sd1, nets, runs):
    with open_pipeline(tiny_sd1, nets, "paddle-eager", passes=[]) as layers:
        wanted = layers.text_to_image("a cat", control_image=[EDGES, draw_edges(1)], **REQUEST)
        without = layers.text_to_image("a cat", **REQUEST)
    assert psnr(without, wanted) < 40
    with open_pipeline(tiny_sd1, nets, passes=["hoist-invariants", "merge-qkv"]) as pipeline:
        for found in runs.values():
            found.clear()
        given = pipeline.text_to_image("a cat", control_image=[EDGES, draw_edges(1)], **REQUEST)
        # Both ControlNets embed their pictures once for the prompt and once for the negative one,
        # beside the run that proves each build; and run at PNDM's four calls on both rows.
        assert runs["rows"] == [2] * 8
        assert runs["pictures"][-4:] == [1] * 4
        passes = {each.name: each.passes for each in pipeline.report.components}
        assert passes["controlnet_0"]["hoist-invariants"] > 0
        assert psnr(pipeline.text_to_image("a cat", **REQUEST), without) >= 50
    assert psnr(given, wanted) >= 50


def test_a_controlnet_runs_where_it_has_a_say_alone(tiny_sd1, nets, runs):
    with open_pipeline(tiny_sd1, nets[:1], "paddle-eager", scheduler="ddim") as pipeline:
        settings = {**REQUEST, "num_inference_steps": 4, "control_image": EDGES}
        pipeline.text_to_image("a cat", control_guidance_end=0.5, **settings)
        assert runs["rows"] == [2, 2]
        runs["rows"].clear()
        pipeline.text_to_image("a cat", guess_mode=True, **settings)
        assert runs["rows"] == [1] * 4
        runs["rows"].clear()
        none = pipeline.text_to_image("a cat", controlnet_conditioning_scale=0, **settings)
        assert runs["rows"] == []
        without = pipeline.text_to_image("a cat", **{**settings, "control_image": None})
    assert psnr(none, without) >= 100


def test_requests_of_a_batch_get_what_they_get_alone(tiny_sd1, nets):
    requests = [
        {"control_image": EDGES, "controlnet_conditioning_scale": 0.5},
        {"control_image": draw_edges(3), "guess_mode": True},
        {"control_image": EDGES, "control_guidance_start": 0.5},
        {"control_image": None},
    ]
    with open_pipeline(tiny_sd1, nets[:1]) as pipeline:
        alone = [pipeline.generate("a cat", **REQUEST, **each).images for each in requests]
        with pipeline.batch(8) as batch:
            together = [batch.submit("a cat", **REQUEST, **each) for each in requests]
        for wanted, each in zip(alone, together, strict=True):
            np.testing.assert_array_equal(each.result().images, wanted)


def test_a_picture_says_what_controlled_it(tiny_sd1, nets):
    with open_pipeline(tiny_sd1, nets[:1], "paddle-eager") as pipeline:
        image = pipeline.text_to_image(
            "a cat",
            control_image=draw_edges(width=50, height=41),
            controlnet_conditioning_scale=0.25,
            num_inference_steps=1,
            seed=1,
        )
    assert image.size == (50, 40)  # as the control picture, cut to a multiple
    noted = json.loads(image.info[METADATA_KEY])
    assert noted["settings"]["controlnet_conditioning_scale"] == 0.25
    (control,) = noted["run"]["control"]
    assert control["model"] == "n1"
    assert (control["scale"], control["start"], control["end"]) == (0.25, 0, 1)
    assert len(control["image_sha256"]) == len(control["model_digest"]) == 64


def test_edges_are_found_where_a_request_asks_for_it(tiny_sd1, nets):
    photo = Image.new("RGB", (32, 32), "white")
    photo.paste("red", (8, 8, 24, 24))
    with open_pipeline(tiny_sd1, nets, "paddle-eager") as pipeline:
        by_hand = [detect_edges(photo), photo]
        wanted = pipeline.text_to_image("a cat", control_image=by_hand, **REQUEST)
        plan = pipeline._plan(
            GenerationRequest(
                prompt="a cat", control_image=[photo] * 2, control_preprocess=["canny", None]
            )
        )
        settings = {**REQUEST, "control_image": [photo] * 2}
        given = pipeline.text_to_image("a cat", control_preprocess=["canny", None], **settings)
        np.testing.assert_array_equal(given, wanted)
        both = pipeline.generate(
            "a cat", control_preprocess="canny", **{**settings, "output_type": "pil"}
        )
    first, second = plan.control.digests
    assert first == second
    noted = json.loads(both.images[0].info[METADATA_KEY])
    assert noted["settings"]["control_preprocess"] == "canny"
    assert [each["preprocess"] for each in noted["run"]["control"]] == ["canny"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"control_image": [EDGES, EDGES]}, "2 control images for 1 ControlNets"),
        ({"control_image": "nowhere.png"}, "no file that exists"),
        ({"control_image": 7}, "control_image is 7"),
        ({"guess_mode": True}, "there is no control_image"),
        ({"control_preprocess": "canny"}, "there is no control_image"),
        ({"control_image": EDGES, "control_preprocess": "cany"}, "did you mean 'canny'?"),
        ({"control_image": EDGES, "control_preprocess": "depth"}, "of other kinds, as depth"),
        ({"control_image": EDGES, "control_preprocess": ["canny"] * 2}, "2 names for 1 Contr"),
        ({"controlnet_conditioning_scale": 1.0}, "there is no control_image"),
        ({"control_image": EDGES, "controlnet_conditioning_scale": -1}, "scale is -1"),
        ({"control_image": EDGES, "controlnet_conditioning_scale": [1, 1]}, "2 numbers for 1"),
        ({"control_image": EDGES, "control_guidance_end": 1.5}, "end is 1.5"),
        ({"control_image": EDGES, "control_guidance_start": 1.0}, "start is 1, and"),
        ({"control_image": EDGES, "guess_mode": "yes"}, "guess_mode is 'yes'"),
        (
            {"control_image": EDGES, "image": [EDGES] * 2, "mask": CORNERS, "padding_mask_crop": 1},
            "another part of the picture for each mask",
        ),
    ],
)
def test_requests_that_are_refused(tiny_sd1, nets, settings, message):
    pipeline = open_pipeline(tiny_sd1, nets[:1], "paddle-eager")
    with pytest.raises(RequestError, match=message):
        pipeline.describe_request(
            GenerationRequest(prompt=["a cat"] * 2 if "mask" in settings else "a cat", **settings)
        )


def test_pipelines_that_are_refused(tiny_sd1, tiny_dev, nets, tmp_path):
    with pytest.raises(RequestError, match="there is no ControlNet that takes it"):
        SDPipeline(tiny_sd1).describe_request(GenerationRequest(prompt="", control_image=EDGES))
    other = write_tiny_controlnet(tmp_path / "wide", tiny_sd1, block_out_channels=[16, 48])
    with pytest.raises(UnsupportedModelError, match=r"block_out_channels is \(16, 48\)"):
        open_pipeline(tiny_sd1, [other])
    other = write_tiny_controlnet(tmp_path / "text", tiny_sd1, cross_attention_dim=20)
    with pytest.raises(UnsupportedModelError, match="cross_attention_dim is 20"):
        open_pipeline(tiny_sd1, [other])
    with pytest.raises(ConfigError, match="precision of a ControlNet is 'int8'"):
        open_pipeline(tiny_sd1, [{"path": nets[0], "precision": "int8"}])
    with pytest.raises(ConfigError, match=r"controlnets\.0\.path"):
        open_pipeline(tiny_sd1, [{"scale": 0.5}])
    with pytest.raises(ConfigError, match="Flux does not have"):
        FluxPipeline(DiffusionConfig(model_path=tiny_dev, controlnets=nets))
    with pytest.raises(RequestError, match="there is no ControlNet that takes it"):
        FluxPipeline(tiny_dev).describe_request(GenerationRequest(prompt="", control_image=EDGES))


def test_components_stand_in_the_order_in_which_they_run(tiny_sd1, nets):
    with open_pipeline(tiny_sd1, nets, "paddle-eager") as pipeline:
        settings = {**REQUEST, "strength": 0.5, "control_image": [EDGES, EDGES]}
        pipeline.image_to_image("a cat", draw_edges(2), **settings)
        names = [each.name for each in pipeline.report.components]
    assert names[1:] == ["vae_encoder", "controlnet_0", "controlnet_1", "denoiser", "vae_decoder"]


def test_each_controlnet_has_its_own_engine_and_scale(tiny_sd1, nets, tmp_path):
    (tmp_path / "c.yaml").write_text(
        f"model_path: {tiny_sd1}\nengine: paddle-eager\ncache: false\n"
        f"controlnets:\n  - path: {nets[0]}\n    engine: openvino\n    scale: 0.5\n  - {nets[1]}\n"
    )
    pipeline = SDPipeline(DiffusionConfig.from_yaml(tmp_path / "c.yaml"))
    engines = {each.name: each.engine for each in pipeline.report.components}
    assert (engines["controlnet_0"], engines["controlnet_1"]) == ("openvino", "paddle-eager")
    request = GenerationRequest(prompt="", control_image=[EDGES, EDGES])
    assert pipeline._plan(request).control.scales == (0.5, 1.0)
