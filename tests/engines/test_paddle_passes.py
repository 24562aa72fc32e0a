"""Paddle's own GPU passes: chosen by name, all known to the installed Paddle."""

import numpy as np
import pytest
from engine_programs import CASES, draw_feeds

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.config.option_sections import PADDLE_GPU_PASSES
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.paddle import choose_gpu_passes
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.manifest import PROGRAM_FILE, WEIGHTS_FILE


@pytest.fixture
def load(tmp_path):
    """Build a case, and load it on the CPU with a choice of GPU passes."""

    def load_(case_name, chosen):
        program = CASES[case_name].program("network")
        engine, spec = create_engine("paddle"), BuildSpec(Device("cpu"))
        engine.build(program, spec, tmp_path)
        config = paddle.inference.Config(str(tmp_path / PROGRAM_FILE), str(tmp_path / WEIGHTS_FILE))
        config.disable_glog_info()
        config.enable_new_executor()
        config.enable_new_ir()
        config.disable_mkldnn()
        config.delete_pass("inplace_pass")
        choose_gpu_passes(config, chosen)
        return program, paddle.inference.create_predictor(config)

    return load_


def run(predictor, feeds):
    for name, array in feeds.items():
        handle = predictor.get_input_handle(name)
        handle.reshape(list(array.shape))
        handle.copy_from_cpu(array)
    predictor.run()
    (name,) = predictor.get_output_names()
    return predictor.get_output_handle(name).copy_to_cpu()


def test_the_installed_paddle_has_all_of_them(load):
    # Nothing in this network becomes an operator that only GPUs have.
    program, predictor = load("timestep embedding", PADDLE_GPU_PASSES)
    feeds = draw_feeds(CASES["timestep embedding"], 0)
    wanted = run_layer(program, feeds)["output"]
    np.testing.assert_allclose(run(predictor, feeds), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="no_such_pass has not been registered"):
        load("timestep embedding", ("no_such_pass",))


def test_just_those_run_that_are_chosen(load):
    feeds = draw_feeds(CASES["conv block"], 0)
    program, predictor = load("conv block", ())
    wanted = run_layer(program, feeds)["output"]
    np.testing.assert_allclose(run(predictor, feeds), wanted, atol=1e-5)
    # It fuses, and CPUs have no kernel for the result.
    with pytest.raises(RuntimeError, match="`fused_conv2d_add_act` is not registered"):
        load("conv block", ("conv2d_add_fuse_pass",))


def test_the_choice_goes_to_what_runs_on_a_gpu():
    config = DiffusionConfig(
        model_path="m",
        device="gpu",
        paddle={"gpu_passes": ["transfer_layout_pass", "silu_fuse_pass"]},
        vae={"device": "cpu"},
    )
    chosen = {"gpu_passes": ("silu_fuse_pass", "transfer_layout_pass")}  # in Paddle's order
    assert config.component("denoiser").options == {"paddle": chosen}
    assert config.component("vae").options == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu", "paddle": {"gpu_passes": ["silu_fuse"]}}, "mean 'silu_fuse_pass'"),
        ({"paddle": {"gpu_passes": []}}, "no component runs on it on a GPU"),
        (
            {"device": "gpu", "engine": "tensorrt", "paddle": {"gpu_passes": []}},
            "no component runs on it on a GPU",
        ),
    ],
)
def test_a_choice_without_effect_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DiffusionConfig(model_path="m", **options)
