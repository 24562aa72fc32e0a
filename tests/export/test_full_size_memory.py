"""The export takes no memory for weights: SDXL's UNet has 2.6 billion parameters."""

import json
import subprocess
import sys

import pytest

MEASURE = """
import json, resource, sys
from pathlib import Path
from fastdeploy_diffusion.checkpoints import build_skeleton
from fastdeploy_diffusion.families.published.sd import SDXL_BASE
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.export.onnx_converter import CONVERTER
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

def peak(who):  # kilobytes, on Linux
    return resource.getrusage(who).ru_maxrss * 1024

{network}
layer = build_skeleton(make)
layer.eval()
parameters = sum(int(each.size) for each in layer.parameters())
inputs = tuple(TensorSpec(name, shape, "float32") for name, shape in shapes.items())
outputs = (TensorSpec("output", output, "float32"),)
before = peak(resource.RUSAGE_SELF)
graph = export_onnx(Program("network", layer, inputs, outputs), Path(sys.argv[1]))
CONVERTER.close()  # a child counts when it has ended
print(json.dumps({
    "parameters": parameters,
    "own": peak(resource.RUSAGE_SELF) - before,
    "child": peak(resource.RUSAGE_CHILDREN),
    "graph": graph.stat().st_size,
}))
"""
SDXL = """
config = UNet2DConditionConfig.from_dict(SDXL_BASE["unet"])
make = lambda: UNet2DConditionModel(config)
shapes = {
    "sample": (None, 4, 128, 128),
    "timestep": (None,),
    "encoder_hidden_states": (None, 77, 2048),
    "text_embeds": (None, 1280),
    "time_ids": (None, 6),
}
output = (None, 4, 128, 128)
"""
# As many parameters, in ten matrices, whose graph is made in no time.
WIDE = """
make = lambda: paddle.nn.Sequential(*(paddle.nn.Linear(16384, 16384) for _ in range(10)))
shapes = {"sample": (None, 16384)}
output = (None, 16384)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
@pytest.mark.parametrize(
    "network",
    [pytest.param(WIDE, id="wide"), pytest.param(SDXL, id="sdxl", marks=pytest.mark.figures)],
)
def test_a_large_network_is_exported_in_less_than_a_gigabyte(network, tmp_path):
    code = MEASURE.replace("{network}", network)
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["parameters"] > 2.5e9  # in float32, ten gigabytes
    assert found["own"] + found["child"] <= 1e9
    assert found["graph"] <= 20e6
