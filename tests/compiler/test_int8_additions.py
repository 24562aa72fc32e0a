"""int8 with ControlNets and IP-Adapters: they run in calibration, and beside what is in int8."""

import numpy as np
import pytest
from PIL import Image
from tiny_controlnet import write_tiny_controlnet
from tiny_ip_adapter import write_tiny_image_encoder, write_tiny_ip_adapter

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine

ADDED = ("controlnet", "image_encoder", "ip_adapter")
needs_int8 = pytest.mark.skipif(
    not create_engine("openvino").supports(BuildSpec(Device("cpu"), "int8")).ok,
    reason="OpenVINO does not run int8 here",
)


def draw_picture(seed):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8))


REQUEST = {"seed": 4, "output_type": "np", "ip_adapter_image": draw_picture(0)}
CONTROLLED = {**REQUEST, "control_image": draw_picture(1)}


@pytest.fixture(scope="module")
def config(tiny_sd1, tmp_path_factory):
    folder = tmp_path_factory.mktemp("added")
    write_tiny_image_encoder(folder / "image_encoder")
    (folder / "prompts.txt").write_text("a red circle\na dog\na cat\na tree\na square\n")
    options = {
        "model_path": tiny_sd1,
        "engine": "openvino",
        "cache_dir": str(folder / "cache"),
        "controlnets": [write_tiny_controlnet(folder / "net", tiny_sd1)],
        "ip_adapters": [write_tiny_ip_adapter(folder / "plus.safetensors", tiny_sd1, "plus")],
        "calibration_prompts": str(folder / "prompts.txt"),
        "defaults": {"num_inference_steps": 3, "height": 32, "width": 32},
    }
    return lambda **more: DiffusionConfig(**{**options, **more})


@pytest.fixture(scope="module")
def exact(config):
    with SDPipeline(config(calibration_prompts=None)) as pipeline:
        return [pipeline.text_to_image("a cat", **each) for each in (CONTROLLED, REQUEST)]


def psnr(ours, reference):
    return -10 * np.log10(np.mean((ours - reference) ** 2) + 1e-20)


@needs_int8
def test_the_denoiser_in_int8_takes_what_is_added_in_floating_point(config, exact, tmp_path):
    options = {"denoiser": {"precision": "int8"}, "int8_quality": 20.0}
    with SDPipeline(config(**options)) as pipeline:
        drawn = [pipeline.text_to_image("a cat", **each) for each in (CONTROLLED, REQUEST)]
        reports = {each.name: each for each in pipeline.report.components}
        write_bundle(pipeline, [(32, 32)], tmp_path / "bundle")
    assert reports["denoiser"].precision == "int8"
    assert reports["denoiser"].int8.quality.psnr >= 20
    assert any(not block.is_kept for block in reports["denoiser"].int8.blocks)
    assert {reports[name].precision for name in ADDED} == {"fp32"}
    for given, wanted in zip(drawn, exact, strict=True):
        assert 20 <= psnr(given, wanted) < 80
    with SDPipeline(DiffusionConfig(model_path=tmp_path / "bundle")) as pipeline:
        np.testing.assert_array_equal(pipeline.text_to_image("a cat", **CONTROLLED), drawn[0])


@needs_int8
def test_beside_a_model_in_int8_they_run_in_floating_point(config):
    pipeline = SDPipeline(config(precision="int8"))
    reports = {each.name: each.precision for each in pipeline.report.components}
    assert reports["denoiser"] == "int8"
    assert not {"int8", "int8-weights"} & {reports[name] for name in ADDED}


def test_weights_of_all_in_int8(config, exact):
    with SDPipeline(config(precision="int8-weights", int8_quality=20.0)) as pipeline:
        drawn = [pipeline.text_to_image("a cat", **each) for each in (CONTROLLED, REQUEST)]
        reports = {each.name: each for each in pipeline.report.components}
    assert reports["ip_adapter"].precision in ("bf16", "fp32")  # which is small
    for name in ("controlnet", "image_encoder", "denoiser"):
        assert (reports[name].precision, reports[name].fallback) == ("int8-weights", None)
        assert reports[name].int8.quality.psnr >= 20
    for given, wanted in zip(drawn, exact, strict=True):
        assert 20 <= psnr(given, wanted) < 80
