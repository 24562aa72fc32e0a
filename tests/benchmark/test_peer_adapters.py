"""What adapters of peers refuse, and how they translate settings: no peer is needed for that."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmark.peer_adapters import load_adapter, make_task
from diffusers import EulerDiscreteScheduler
from safetensors import safe_open

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.benchmark.child_process import ChildError, ChildProcess
from fastdeploy_diffusion.benchmark.peers import find_peers
from fastdeploy_diffusion.compiler.calibration import record_calibration
from fastdeploy_diffusion.picture_quality import measure_psnr
from fastdeploy_diffusion.schedulers import SCHEDULERS

EULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
PYTHONS = "FASTDEPLOY_DIFFUSION_TEST_PEERS"
GIVEN = dict(each.split("=", 1) for each in os.environ.get(PYTHONS, "").split(",") if each)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("diffusers", {"precision": "int8"}, "diffusers: int8, not fp32, fp16, bf16"),
        ("diffusers", {"model_path": "x/model.safetensors"}, "a diffusers folder, not model.safet"),
        ("onnxruntime", {"precision": "bf16"}, "onnxruntime: bf16, not fp32"),
        ("onnxruntime", {"device": "gpu"}, "on the cpu, not on gpu"),
        ("openvino-genai", {"precision": "int4"}, "int4, not fp32, bf16, fp16, int8, int8-hybrid"),
        ("openvino-genai", {"precision": "int8"}, "int8 without inputs to calibrate with"),
        ("openvino-genai", {"device": "gpu:1"}, "on the cpu, not on gpu:1"),
        ("openvino-genai", {"scheduler": "HeunDiscreteScheduler"}, "HeunDiscreteScheduler, not DD"),
        ("openvino-genai", {"family": "sdxl"}, "openvino-genai: sdxl, only tried with .*sd1"),
        ("onnxruntime", {"family": "flux"}, "onnxruntime: flux, only tried with .*sd1"),
        ("sdcpp", {"family": "flux"}, "stable-diffusion.cpp: flux, only tried with .*sd1"),
        ("sdcpp", {"precision": "int8"}, "stable-diffusion.cpp: int8, not fp32, fp16, bf16"),
        ("sdcpp", {"device": "gpu"}, "on the cpu, not on gpu"),
        ("sdcpp", {}, "no PNDMScheduler as diffusers has, only EulerDiscreteScheduler"),
        ("sdcpp", {"scheduler": "DDIMScheduler"}, "no DDIMScheduler as diffusers has"),
        ("sdcpp", {"model_path": "x/model.safetensors"}, "a diffusers folder, not model.safet"),
    ],
)
def test_what_a_peer_cannot_do_is_refused(tiny_sd1, name, changes, message):
    with pytest.raises(ValueError, match=message):
        load_adapter(name).Painter(make_task(tiny_sd1, **changes))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino-genai", "sdcpp"])
def test_a_peer_that_is_missing_names_the_command(tiny_sd1, name):
    adapter = load_adapter(name)
    if not adapter.MISSING:
        pytest.skip(f"{name} is installed here")
    with pytest.raises(ModuleNotFoundError, match=r"No module named .*: pip install "):
        adapter.Painter(make_task(tiny_sd1, scheduler="EulerDiscreteScheduler"))


def test_openvino_genai_is_asked_only_for_schedulers_that_we_have():
    known = {each.diffusers_name for each in SCHEDULERS.values()}
    assert set(load_adapter("openvino-genai").SCHEDULERS) < known


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 61])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_noise_levels_for_sdcpp_are_those_of_diffusers(spacing, steps):
    scheduler = EulerDiscreteScheduler.from_config({**EULER, "timestep_spacing": spacing})
    scheduler.set_timesteps(steps)
    found = load_adapter("sdcpp").list_sigmas(spacing, steps)
    np.testing.assert_allclose(found, [*scheduler.sigmas[:steps], 0], rtol=1e-4)
    assert float(scheduler.init_noise_sigma) == pytest.approx(found[0], rel=1e-4)


def write_schedule(folder, config):
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("epsilon", "linspace")),
        (
            {"prediction_type": "v_prediction", "timestep_spacing": "trailing"},
            ("v_prediction", "trailing"),
        ),
        (
            {"timestep_spacing": "leading", "_use_default_values": ["timestep_spacing"]},
            ("epsilon", "linspace"),
        ),
        # What other schedulers left in the file; diffusers' Euler passes over it, too.
        (
            {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1},
            ("epsilon", "linspace"),
        ),
    ],
)
def test_sdcpp_follows_the_folder(tmp_path, changes, expected):
    folder = write_schedule(tmp_path, {**EULER, **changes})
    found = load_adapter("sdcpp").read_schedule(folder, "EulerDiscreteScheduler")
    assert (found["prediction_type"], found["timestep_spacing"]) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta_end": 0.02}, "beta_end=0.012, not 0.02"),
        ({"beta_schedule": "linear"}, "beta_schedule=scaled_linear, not linear"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas=False, not True"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=False, not True"),
        ({"prediction_type": "sample"}, "prediction_type=sample, not epsilon, v_prediction"),
        ({"timestep_spacing": "leading"}, "timestep_spacing=leading, not linspace, trailing"),
    ],
)
def test_sdcpp_refuses_another_schedule(tmp_path, changes, message):
    folder = write_schedule(tmp_path, {**EULER, **changes})
    with pytest.raises(ValueError, match=message):
        load_adapter("sdcpp").read_schedule(folder, None)


@pytest.fixture(scope="module")
def recorded(tiny_sd1, tmp_path_factory):
    """Inputs of the denoiser, as our networks were given them."""
    config = DiffusionConfig(
        model_path=tiny_sd1,
        engine="openvino",
        cache_dir=tmp_path_factory.mktemp("recorded"),
        defaults={"num_inference_steps": 3},
    )
    prompts = ["a cat", "a dog", "a house", "two trees", "the sea"]
    with SDPipeline(config) as pipeline:
        pipeline.build(32, 32)
        root = Path(config.cache_dir)
        return record_calibration(pipeline, prompts, (32, 32), root, lambda *told: None).folder


def test_openvino_genai_is_calibrated_with_what_was_recorded(recorded, monkeypatch):
    adapter = load_adapter("openvino-genai")
    every = adapter.choose_calls(recorded)
    assert len(every) == 5 * 4  # PNDM calls once more than it has steps
    monkeypatch.setattr(adapter, "CALIBRATION_CALLS", 4)
    chosen = adapter.choose_calls(recorded)
    assert [every.index(each) for each in chosen] == [0, 5, 10, 15]
    path, keys = chosen[0]
    with safe_open(path, "np") as file:
        shapes = {name: file.get_tensor(key).shape for name, key in keys.items()}
    assert shapes["sample"] == (2, 4, 16, 16)
    assert set(shapes) == {"sample", "timestep", "encoder_hidden_states"}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "int8-hybrid"])
def test_openvino_genai_quantises_with_its_own_tools(tmp_path, tiny_sd1, recorded, precision):
    name = "openvino-genai"
    if name not in GIVEN:
        pytest.skip(f"{PYTHONS} names no Python that has {name}")
    (peer,) = find_peers([name], [f"{name}={GIVEN[name]}"])
    told = {"precision": precision, "calibration": str(recorded), "cache_dir": str(tmp_path)}
    with ChildProcess(peer.python, peer.adapter, os.environ, 600) as child:
        child.open(make_task(tiny_sd1, **told))
        child.draw(["a cat"], [5], 3, tmp_path / "pictures.npy")
        described = child.ask("describe")["described"]
    config = DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager")
    settings = {"num_inference_steps": 3, "guidance_scale": 5.0, "height": 32, "width": 32}
    ours = SDPipeline(config).text_to_image("a cat", seed=5, **settings)
    psnr = measure_psnr(np.load(tmp_path / "pictures.npy"), np.asarray(ours)[None])
    assert 20 < psnr < 60  # near, and not float32
    assert described["calls to calibrate with"] == 20
    quantized = (tmp_path / "exported" / "unet" / "openvino_model.xml").read_text()
    assert 'type="FakeQuantize"' in quantized


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [None, "euler"])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino-genai"])
def test_a_peer_draws_the_same_pictures_as_we_do(tmp_path, tiny_sd1, name, scheduler):
    """In the Python that the variable names, as ``NAME=/path/python,NAME=…``."""
    if name not in GIVEN:
        pytest.skip(f"{PYTHONS} names no Python that has {name}")
    (peer,) = find_peers([name], [f"{name}={GIVEN[name]}"])
    theirs = {"euler": "EulerDiscreteScheduler"}.get(scheduler)
    task = make_task(tiny_sd1, scheduler=theirs, cache_dir=str(tmp_path), config={})
    with ChildProcess(peer.python, peer.adapter, os.environ, 600) as child:
        child.open(task)
        drawn = child.draw(["a cat", "a cat"], [5, 6], 3, tmp_path / "pictures.npy")
        described = child.ask("describe")["described"]
    config = DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", scheduler=scheduler)
    settings = {"num_inference_steps": 3, "guidance_scale": 5.0, "height": 32, "width": 32}
    ours = SDPipeline(config).text_to_image(["a cat", "a cat"], seed=[5, 6], **settings)
    psnr = measure_psnr(np.load(tmp_path / "pictures.npy"), np.stack(list(map(np.asarray, ours))))
    assert psnr is None or psnr > 50
    assert set(drawn["stages"]) == {"text_encoder", "step", "vae_decoder"}
    assert described["threads"] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="another end of a crash")
def test_sdcpp_says_why_it_cannot_load_a_network_that_it_does_not_know(tiny_sd1):
    if "sdcpp" not in GIVEN:
        pytest.skip(f"{PYTHONS} names no Python that has sdcpp")
    (peer,) = find_peers(["sdcpp"], [f"sdcpp={GIVEN['sdcpp']}"])
    with (
        ChildProcess(peer.python, peer.adapter, os.environ, 600) as child,
        pytest.raises(ChildError, match=r"tensor|version"),
    ):
        child.open(make_task(tiny_sd1, scheduler="EulerDiscreteScheduler"))
