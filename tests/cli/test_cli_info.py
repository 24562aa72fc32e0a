"""What ``info`` says about this machine."""

import json
import re
from pathlib import Path

import numpy as np
from command_line import run

import fastdeploy_diffusion
from fastdeploy_diffusion.registry import ENGINES

ROOT = Path(__file__).parents[2]


def test_info_tells_what_can_run_here():
    found = json.loads(run("info", "--json").stdout)
    assert found["version"] == fastdeploy_diffusion.__version__
    assert found["packages"]["numpy"] == np.__version__
    assert set(found["engines"]) == set(ENGINES)
    runtimes = {
        "paddlepaddle",
        "paddle2onnx",
        "openvino",
        "onnxruntime",
        "tensorrt",
        "tensorrt_rtx",
    }
    assert found["packages"].keys() >= runtimes
    assert set(found["presets"]) == {file.stem for file in (ROOT / "configs").glob("*.yaml")}
    paddle = found["engines"]["paddle"]
    assert paddle["cpu"] == {
        "available": True, "precisions": ["fp32"], "reason": "", "install": "",
        "build": {"available": True, "reason": "", "install": ""},
    }  # fmt: skip
    for device in ("gpu", "xpu"):
        assert paddle[device]["available"] or paddle[device]["reason"]
    assert found["machine"]["usable_cores"] <= found["machine"]["cores"]

    text = run("info").stdout
    for name, devices in found["engines"].items():
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
        assert all(each["reason"] in text for each in devices.values())
