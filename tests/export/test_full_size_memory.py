"""The export takes no memory for weights: SDXL's UNet has 2.6 billion parameters."""

import json
import subprocess
import sys

import pytest

EXPORT = """
import json, resource, sys
from pathlib import Path
from fastdeploy_diffusion.checkpoints import build_skeleton
from fastdeploy_diffusion.checkpoints.published_configs import SDXL_BASE
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.export.onnx_converter import CONVERTER
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.models.unet_config import UNet2DConditionConfig
from fastdeploy_diffusion.program import Program, TensorSpec

def peak(who):  # kilobytes, on Linux
    return resource.getrusage(who).ru_maxrss * 1024

config = UNet2DConditionConfig.from_dict(SDXL_BASE["unet"])
layer = build_skeleton(lambda: UNet2DConditionModel(config))
layer.eval()
parameters = sum(int(each.size) for each in layer.parameters())
shapes = {
    "sample": (None, 4, 128, 128),
    "timestep": (None,),
    "encoder_hidden_states": (None, 77, 2048),
    "text_embeds": (None, 1280),
    "time_ids": (None, 6),
}
inputs = tuple(TensorSpec(name, shape, "float32") for name, shape in shapes.items())
outputs = (TensorSpec("prediction", (None, 4, 128, 128), "float32"),)
before = peak(resource.RUSAGE_SELF)
graph = export_onnx(Program("denoiser", layer, inputs, outputs), Path(sys.argv[1]))
CONVERTER.close()  # a child counts when it has ended
print(json.dumps({
    "parameters": parameters,
    "own": peak(resource.RUSAGE_SELF) - before,
    "child": peak(resource.RUSAGE_CHILDREN),
    "graph": graph.stat().st_size,
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
def test_sdxl_is_exported_in_less_than_a_gigabyte(tmp_path):
    command = [sys.executable, "-c", EXPORT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["parameters"] > 2.5e9  # in float32, ten gigabytes
    assert found["own"] + found["child"] <= 1e9
    assert found["graph"] <= 20e6
