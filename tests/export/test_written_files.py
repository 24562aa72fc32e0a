"""Files that Paddle has cut short are noticed when they are written, and called what they are."""

import numpy as np
import pytest
from file_powers import file_size_limit

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import DiskFullError, EngineError
from fastdeploy_diffusion.export.onnx_converter import CONVERTER
from fastdeploy_diffusion.export.pir import export_program
from fastdeploy_diffusion.export.written_files import read_graph, require_weights
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

WEIGHTS = "program.pdiparams"


class Layer(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.first = paddle.nn.Linear(64, 300)
        self.last = paddle.nn.Linear(300, 64)
        self.register_buffer("scale", paddle.full([1], 2.0))

    def forward(self, x):
        return self.scale * self.last(self.first(x))


@pytest.fixture(scope="module")
def program():
    layer = Layer()
    layer.eval()
    spec = TensorSpec("x", (None, 64), "float32")
    return Program("vae", layer, (spec,), (TensorSpec("y", (None, 64), "float32"),))


@pytest.fixture
def whole(program, tmp_path):
    export_program(program, tmp_path)
    return tmp_path


def test_a_file_of_weights_that_is_cut_anywhere_is_refused(whole):
    graph = read_graph("vae", whole / "program.json")
    content = (whole / WEIGHTS).read_bytes()
    require_weights("vae", graph, whole / WEIGHTS)
    # Among them, the ends of headers and of whole tensors.
    lengths = [0, 1, 19, 20, 23, 24, 25, 43, 44, *range(45, len(content), 997), len(content) - 1]
    last = content.rindex(np.uint32([0, 0, 0, 0]).tobytes(), 0, len(content) - 64 * 4)
    for length in (*lengths, last):
        (whole / WEIGHTS).write_bytes(content[:length])
        with pytest.raises(EngineError, match=r"vae: Paddle has not written all of .*pdiparams"):
            require_weights("vae", graph, whole / WEIGHTS)
    (whole / WEIGHTS).unlink()
    with pytest.raises(EngineError, match="has not written all"):
        require_weights("vae", graph, whole / WEIGHTS)


def test_another_format_of_weights_is_not_judged(whole):
    graph = read_graph("vae", whole / "program.json")
    (whole / WEIGHTS).write_bytes(b"\1" + (whole / WEIGHTS).read_bytes()[1:50])
    require_weights("vae", graph, whole / WEIGHTS)


@pytest.mark.parametrize("length", [0, 1, 500, -1])
def test_a_graph_that_is_cut_is_refused(whole, length):
    content = (whole / "program.json").read_text().rstrip()
    (whole / "program.json").write_text(content[:length])
    with pytest.raises(EngineError, match=r"has not written all of .*program\.json"):
        read_graph("vae", whole / "program.json")


def test_half_of_the_weights_are_no_export(program, tmp_path):
    # What Paddle writes before, it writes whole.
    with file_size_limit(60_000), pytest.raises(EngineError, match="has not written all of"):
        export_program(program, tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size == 60_000
    assert not (tmp_path / "manifest.json").exists()


@pytest.fixture
def own_converter():
    """A process that starts under a limit has it for as long as it lives."""
    yield
    CONVERTER.close()


@pytest.mark.usefixtures("own_converter")
@pytest.mark.parametrize("engine", ["paddle", "onnxruntime"])
@pytest.mark.parametrize("limit", [0, 2000])
def test_an_engine_blames_the_disk(program, engine, limit, tmp_path):
    with file_size_limit(limit), pytest.raises(DiskFullError, match="vae: no file may be as large"):
        create_engine(engine).build(program, BuildSpec(Device("cpu")), tmp_path / "out")
