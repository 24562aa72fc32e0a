"""OpenVINO in half precision, where the CPU has the instructions: rounded, and near the layer."""

import numpy as np
import pytest
from component_programs import COMPONENTS
from engine_programs import draw_feeds

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.registry import create_engine

# Of what is rounded: no fewer bits are lost than half precision has.
LEAST = {"fp16": 2**-13, "bf16": 2**-10}


@pytest.mark.slow
@pytest.mark.parametrize("precision", LEAST)
@pytest.mark.parametrize(
    "name", ["sd1 text encoder", "sd2 unet", "sdxl unet", "vae decoder", "flux transformer"]
)
def test_numbers_are_rounded_and_near(name, precision, tmp_path):
    engine, spec = create_engine("openvino"), BuildSpec(Device("cpu"), precision)
    if reason := engine.supports(spec).reason:
        pytest.skip(reason)
    case = COMPONENTS[name]
    program = case.program(name.replace(" ", "_"))
    engine.build(program, spec, tmp_path)
    feeds = draw_feeds(case, 0, free=2)
    wanted = run_layer(program, feeds)
    with engine.load(program, spec, tmp_path) as session:
        for output, array in session.run(**feeds).items():
            error = np.abs(array - wanted[output]).max() / np.abs(wanted[output]).max()
            assert LEAST[precision] <= error <= 2e-2, output
