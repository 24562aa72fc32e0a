"""A kept OpenVINO model: the numbers of the layer, from weights whose pages are given back."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_programs import Case, draw_feeds, float_spec
from runnable import spec_for

from fastdeploy_diffusion.engines.openvino_model import WEIGHTS_FILE
from fastdeploy_diffusion.engines.paddle_eager import run_layer
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.paddle_runtime import paddle

WIDTH = 1024
SIDE = 4 * WIDTH * WIDTH  # bytes of a layer's weights


def make_wide() -> paddle.nn.Layer:
    linear = paddle.nn.Linear
    return paddle.nn.Sequential(linear(WIDTH, WIDTH), paddle.nn.GELU(), linear(WIDTH, WIDTH))


CASE = Case(
    make_wide, (float_spec("tokens", None, 8, WIDTH),), (float_spec("out", None, 8, WIDTH),)
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A build with its weights beside it, its program, and what it is for."""
    folder = tmp_path_factory.mktemp("kept")
    spec = replace(spec_for("openvino", threads=2), notes=folder)
    program = CASE.program("wide")
    create_engine("openvino").build(program, spec, folder / "artifact")
    return folder / "artifact", program, spec


def read_resident(file: Path) -> int:
    """Bytes of a mapped file that this process holds in memory."""
    text = Path("/proc/self/smaps").read_text(encoding="utf-8")
    found = re.search(rf"{re.escape(str(file))}\n(?:\w+:.*\n)*?Rss:\s+(\d+) kB", text)
    assert found
    return 1024 * int(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="resident pages are read as Linux tells them")
def test_what_is_packed_is_given_back(kept):
    artifact, program, spec = kept
    assert (artifact / WEIGHTS_FILE).stat().st_size > 2 * SIDE
    with create_engine("openvino").load(program, spec, artifact) as session:
        for seed, batch in enumerate((1, 3)):
            feeds = draw_feeds(CASE, seed, free=batch)
            wanted, given = run_layer(program, feeds)["out"], session.run(**feeds)["out"]
            np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
        assert read_resident(artifact / WEIGHTS_FILE) < SIDE


def test_two_sessions_of_one_build_do_not_disturb_each_other(kept):
    artifact, program, spec = kept
    engine, feeds = create_engine("openvino"), draw_feeds(CASE, 5, free=2)
    wanted = run_layer(program, feeds)["out"]
    with engine.load(program, spec, artifact) as first:
        before = first.run(**feeds)["out"].copy()
        with engine.load(program, spec, artifact) as second:
            np.testing.assert_array_equal(second.run(**feeds)["out"], before)
        np.testing.assert_array_equal(first.run(**feeds)["out"], before)
    np.testing.assert_allclose(before, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
