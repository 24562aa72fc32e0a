import subprocess
import sys

import pytest

from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import ConfigError


def test_engines_are_created_by_name():
    for name in engine_names():
        assert create_engine(name).name == name


@pytest.mark.parametrize(
    ("given", "meant"), [("padle", "paddle"), ("trt", "tensorrt"), ("eager", "paddle-eager")]
)
def test_an_unknown_name_is_explained(given, meant):
    with pytest.raises(ConfigError, match="allowed: paddle, paddle-eager, cinn") as caught:
        create_engine(given)
    assert caught.value.fix == f"did you mean {meant!r}?"


def test_engines_import_no_runtime():
    code = (
        "import sys\n"
        "from fastdeploy_diffusion.engines import accuracy, placement\n"
        "from fastdeploy_diffusion.engines.registry import create_engine, engine_names\n"
        "[create_engine(name) for name in engine_names()]\n"
        "runtimes = {'paddle', 'openvino', 'onnxruntime', 'onnx', 'paddle2onnx', 'cuda',\n"
        "'tensorrt', 'tensorrt_rtx'}\n"
        "assert not runtimes & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_link_at_the_root_cannot_be_imported(request):
    done = subprocess.run(
        [sys.executable, "-c", "import engines"],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "import fastdeploy_diffusion.engines instead" in done.stderr
