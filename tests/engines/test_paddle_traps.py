"""Paddle's wrong defaults that the engine works around, as they are today.

A test that fails here is good news: Paddle has fixed something, and a workaround can go.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from engine_programs import CASES, draw_feeds

from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.export.pir import PROGRAM_FILE, WEIGHTS_FILE, export_program
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

ENGINE = "fastdeploy_diffusion/engines/paddle.py"
# The passes that were thought to be the only wrong ones.
THREE_PASSES = ("inplace_pass", "elementwise_act_onednn_fuse_pass", "onednn_placement_pass")


def fixed(workaround: str) -> str:
    return f"Paddle fixed this: remove the workaround in {workaround}"


def make_config(folder):
    inference = paddle.inference
    config = inference.Config(str(folder / PROGRAM_FILE), str(folder / WEIGHTS_FILE))
    config.disable_glog_info()
    config.enable_new_executor()
    config.enable_new_ir()
    config.set_cpu_math_library_num_threads(1)
    return config


def run_predictor(predictor, feeds):
    for name, array in feeds.items():
        handle = predictor.get_input_handle(name)
        handle.reshape(list(array.shape))
        handle.copy_from_cpu(array)
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()


def measure_error(program, feeds, folder, configure=lambda config: None):
    """Relative error of the first output, against the layer."""
    config = make_config(folder)
    configure(config)
    given = run_predictor(paddle.inference.create_predictor(config), feeds)
    wanted = run_layer(program, feeds)[program.outputs[0].name]
    return np.abs(given - wanted).max() / np.abs(wanted).max()


def delete_three_passes(config):
    config.enable_mkldnn()
    for name in THREE_PASSES:
        config.delete_pass(name)


def export_case(name, folder):
    program = CASES[name].program("component")
    export_program(program, folder)
    return program, draw_feeds(CASES[name], 0)


def test_sinusoids_are_wrong_by_default(tmp_path):
    program, feeds = export_case("timestep embedding", tmp_path)
    assert measure_error(program, feeds, tmp_path) > 0.1, fixed(f"{ENGINE}: inplace_pass")


def test_relative_positions_are_wrong_by_default(tmp_path):
    class Distances(paddle.nn.Layer):
        def forward(self, positions):
            return paddle.abs(positions.unsqueeze(1) - positions.unsqueeze(0)) + 0

    layer = Distances()
    layer.eval()
    spec = TensorSpec("positions", (6,), "int64")
    program = Program("bias", layer, (spec,), (TensorSpec("distances", (6, 6), "int64"),))
    export_program(program, tmp_path)
    feeds = {"positions": np.arange(6)}
    assert measure_error(program, feeds, tmp_path) > 0.1, fixed(f"{ENGINE}: ONEDNN_PASSES")


def test_nearest_upsampling_fails_by_default(tmp_path):
    program, feeds = export_case("upsampler", tmp_path)
    try:
        measure_error(program, feeds, tmp_path)
    except NotImplementedError:
        return
    pytest.fail(fixed(f"{ENGINE}: ONEDNN_PASSES (onednn_placement_pass)"))


def test_linear_after_convolution_is_wrong_without_the_three_passes(tmp_path):
    program, feeds = export_case("linear after conv", tmp_path)
    error = measure_error(program, feeds, tmp_path, delete_three_passes)
    assert error > 0.1, fixed(f"{ENGINE}: ONEDNN_PASSES (reshape_transpose_matmul_fuse_pass)")


def test_linear_over_pixels_fails_without_the_three_passes(tmp_path):
    program, feeds = export_case("linear over pixels", tmp_path)
    try:
        measure_error(program, feeds, tmp_path, delete_three_passes)
    except ValueError:
        return
    pytest.fail(fixed(f"{ENGINE}: ONEDNN_PASSES (the matmul and fc passes)"))


def test_outputs_of_the_list_form_are_overwritten(tmp_path):
    _, feeds = export_case("conv block", tmp_path)
    config = make_config(tmp_path)
    config.disable_mkldnn()
    predictor = paddle.inference.create_predictor(config)
    first = predictor.run([paddle.to_tensor(array) for array in feeds.values()])[0]
    before = first.numpy().copy()
    predictor.run([paddle.to_tensor(2 * array) for array in feeds.values()])
    assert not np.array_equal(first.numpy(), before), fixed(f"{ENGINE}: handles in _run")


def test_memory_optimisation_needs_the_new_executor(tmp_path):
    export_case("conv block", tmp_path)
    config = paddle.inference.Config(str(tmp_path / PROGRAM_FILE), str(tmp_path / WEIGHTS_FILE))
    config.disable_glog_info()
    config.enable_memory_optim()
    with pytest.raises(Exception, match="memory_optimize_pass"):
        paddle.inference.create_predictor(config)


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle has CUDA")
def test_asking_a_cpu_build_for_a_gpu_is_not_an_error(tmp_path):
    program, feeds = export_case("conv block", tmp_path)
    error = measure_error(program, feeds, tmp_path, lambda config: config.enable_use_gpu(64, 0))
    assert np.isfinite(error), fixed("fastdeploy_diffusion/engines/paddle_devices.py")


@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_lost_weights_are_not_noticed(damage, tmp_path):
    program, feeds = export_case("linear after conv", tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    content = weights.read_bytes()
    weights.unlink()
    if damage == "cut short":
        weights.write_bytes(content[:-8])
    try:
        measure_error(program, feeds, tmp_path, lambda config: config.disable_mkldnn())
    except Exception as error:
        pytest.fail(f"{fixed('fastdeploy_diffusion/runtime/manifest.py')} ({error})")


def test_importing_paddle_warns(tmp_path):
    for name in ("cat", "grep"):  # with which it looks at the processor
        (tmp_path / name).symlink_to(shutil.which(name))
    bare = "import warnings; warnings.simplefilter('error'); import paddle"
    for first in (
        "import fastdeploy_diffusion.paddle_runtime",
        "from fastdeploy_diffusion.passes import LayerPass",
        "import fastdeploy_diffusion.passes.layer.winograd",
    ):
        quiet = bare.replace("import paddle", f"{first}; import paddle")
        assert run_python(quiet, tmp_path) == (0, "")
    status, written = run_python(bare, tmp_path)
    assert (status, "No ccache found" in written) == (1, True), fixed("paddle_runtime.py")


def run_python(code, programs):
    """Run code where the only programs are those of a folder: no ccache, unless it is there."""
    environment = {**os.environ, "PATH": str(programs)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr
