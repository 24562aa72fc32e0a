"""The process of Paddle2ONNX: one for many graphs, none that fails twice, none left behind."""

import os
import subprocess
import sys
import time

import pytest
from test_onnx import make_layer, make_program

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export import onnx as onnx_export
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.export.onnx_converter import OnnxConverter
from fastdeploy_diffusion.paddle_runtime import paddle


@pytest.fixture
def converter(monkeypatch):
    made = OnnxConverter()
    monkeypatch.setattr(onnx_export, "CONVERTER", made)
    yield made
    made.close()


def test_one_process_converts_all_graphs_alike(tmp_path, converter):
    first, other, again = make_program(), make_program(make_layer(paddle.tanh)), make_program()
    graph = export_onnx(first, tmp_path).read_bytes()
    process = converter._process
    assert export_onnx(other, tmp_path).read_bytes() != graph
    assert export_onnx(again, tmp_path).read_bytes() == graph
    assert converter._process is process


def test_after_a_failure_there_is_another_process(tmp_path, converter):
    with pytest.raises(EngineError, match="code 1: ValueError: the network returns 1 tensors"):
        export_onnx(make_program(outputs=("result", "extra")), tmp_path)
    export_onnx(make_program(), tmp_path)


def test_an_answer_that_nobody_waits_for_is_not_the_next_ones(tmp_path, converter, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    converter.start()
    process = converter._process
    with monkeypatch.context() as patched:
        patched.setattr(OnnxConverter, "_ask", interrupt)
        with pytest.raises(KeyboardInterrupt):
            converter.convert("block", tmp_path / "job.json")
    assert process.poll() is not None
    assert converter._process is None


def test_a_process_that_ended_unasked_is_replaced():
    converter = OnnxConverter()
    converter.start()
    first = converter._process
    first.kill()
    first.wait()
    converter.start()
    assert converter._process.poll() is None
    converter.close()


def test_it_ends_when_no_graph_comes():
    converter = OnnxConverter(idle_seconds=0.01)
    converter.start()
    for _ in range(500):
        if converter._process is None:
            return
        time.sleep(0.01)
    raise AssertionError("it still waits")


def test_a_fork_leaves_its_parents_process_alone(monkeypatch):
    converter = OnnxConverter()
    converter.start()
    parents, owner = converter._process, os.getpid()
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: owner + 1)
        converter.close()
        assert parents.poll() is None
        converter.start()
        assert converter._process is not parents
        converter.close()
    parents.kill()
    parents.communicate()


def test_nothing_is_left_when_python_ends():
    code = (
        "from fastdeploy_diffusion.export.onnx_converter import CONVERTER\n"
        "CONVERTER.start(); print(CONVERTER._process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
