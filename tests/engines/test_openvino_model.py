"""OpenVINO on mapped weights: the numbers of the layer, and pages that are given back."""

import re
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_programs import Case, draw_feeds, float_spec
from runnable import spec_for
from safetensors.numpy import save_file

from fastdeploy_diffusion.checkpoints import TensorSource
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorView
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.weight_store import WeightStore

WIDTH = 1024
SIDE = 4 * WIDTH * WIDTH  # bytes of a layer's weights


def make_wide() -> paddle.nn.Layer:
    linear = paddle.nn.Linear
    return paddle.nn.Sequential(linear(WIDTH, WIDTH), paddle.nn.GELU(), linear(WIDTH, WIDTH))


CASE = Case(
    make_wide, (float_spec("tokens", None, 8, WIDTH),), (float_spec("out", None, 8, WIDTH),)
)


@pytest.fixture(scope="module", params=["float32", "float16"])
def kept(request, tmp_path_factory):
    """A build, its program with a checkpoint in a type, what it is for, and where weights lie."""
    folder = tmp_path_factory.mktemp("kept")
    spec = replace(spec_for("openvino", threads=2), notes=folder)
    program = CASE.program("wide")
    weights = {
        name: np.ascontiguousarray(value.numpy().T.astype(request.param))
        for name, value in program.layer.state_dict().items()
    }
    save_file(weights, folder / "checkpoint.safetensors")
    file = SafetensorsFile(folder / "checkpoint.safetensors")
    source = TensorSource("checkpoint", {name: TensorView(file, name) for name in weights})
    for name, value in program.layer.state_dict().items():
        value.set_value(np.ascontiguousarray(source.read(name).T))
    store = WeightStore(folder / "weights", "build", nullcontext)
    program = replace(program, tensors=source, store=store)
    create_engine("openvino").build(program, spec, folder / "artifact")
    # Those of a checkpoint in float32 are read where they are.
    place = file.path if request.param == "float32" else folder / "weights"
    return folder / "artifact", program, spec, place


def read_resident(place: Path) -> int:
    """Bytes of mapped files, one or those in a folder, that this process holds in memory."""
    text = Path("/proc/self/smaps").read_text(encoding="utf-8")
    found = re.findall(rf"{re.escape(str(place))}[^\n]*\n(?:\w+:.*\n)*?Rss:\s+(\d+) kB", text)
    assert len(found) >= 2
    return 1024 * sum(map(int, found))


@pytest.mark.skipif(sys.platform != "linux", reason="resident pages are read as Linux tells them")
def test_what_is_packed_is_given_back(kept):
    artifact, program, spec, place = kept
    with create_engine("openvino").load(program, spec, artifact) as session:
        for seed, batch in enumerate((1, 3)):
            feeds = draw_feeds(CASE, seed, free=batch)
            wanted, given = run_layer(program, feeds)["out"], session.run(**feeds)["out"]
            np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
        assert read_resident(place) < SIDE
    files = place.parent.glob("weights/*.npy")
    assert sum(file.stat().st_size > SIDE for file in files) == (2 if place.is_dir() else 0)


def test_two_sessions_of_one_build_do_not_disturb_each_other(kept):
    artifact, program, spec, _ = kept
    engine, feeds = create_engine("openvino"), draw_feeds(CASE, 5, free=2)
    wanted = run_layer(program, feeds)["out"]
    with engine.load(program, spec, artifact) as first:
        before = first.run(**feeds)["out"].copy()
        with engine.load(program, spec, artifact) as second:
            np.testing.assert_array_equal(second.run(**feeds)["out"], before)
        np.testing.assert_array_equal(first.run(**feeds)["out"], before)
    np.testing.assert_allclose(before, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
