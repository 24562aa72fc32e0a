"""What blocks cost in int8 is measured once for the same recordings, and kept."""

from types import SimpleNamespace

import pytest

from fastdeploy_diffusion.compiler import int8_costs
from fastdeploy_diffusion.compiler.calibration import Calibration
from fastdeploy_diffusion.compiler.int8_costs import find_costs, find_ranges
from fastdeploy_diffusion.compiler.int8_part import Part
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.int8_report import BlockCost
from fastdeploy_diffusion.quantization import Range
from fastdeploy_diffusion.runtime.cache import ArtifactCache

RANGES = {"a.0.conv": Range(-1.5, 0.1), "conv_in": Range(0.0, 3.0)}
BLOCKS = [BlockCost("a.0", 1, 0.25), BlockCost("conv_in", 1, 0.125)]


class MeasuredPart(Part):
    """Its ranges and costs are those above; counts how often each is measured."""

    observed = measured = 0

    def measure_costs(self, show):
        self.measured += 1
        self.blocks = list(BLOCKS)


def make_part(weights="w"):
    network = SimpleNamespace(identify=lambda root: {"weights": weights}, model="/models/sd")
    spec = BuildSpec(Device("cpu"), "int8")
    placement = SimpleNamespace(engine=create_engine("onnxruntime"), spec=spec)
    build = SimpleNamespace(network=network, placement=placement, passes=())

    def observe(feeds, symmetric):
        part.observed += 1
        return dict(RANGES)

    trials = SimpleNamespace(build=build, observe=observe)
    component = SimpleNamespace(name="denoiser", network=network)
    part = MeasuredPart(component, trials, SimpleNamespace(digest="h"), 2)
    return part


@pytest.fixture
def find(tmp_path):
    cache = ArtifactCache(tmp_path, 1 << 30)

    def find_of(part, recorded="r", *, symmetric=False):
        def show(*_):
            return None

        recording = Calibration(tmp_path / recorded, recorded)
        find_ranges(part, recording, cache, show, symmetric=symmetric)
        assert part.ranges == RANGES
        assert [each.error for each in part.blocks] == [None]  # of those that are not sensitive
        find_costs(part, cache, show)
        assert part.blocks == BLOCKS
        return part.observed, part.measured

    return find_of


def test_the_same_costs_are_measured_once(find):
    assert [find(make_part()) for _ in range(3)] == [(1, 1), (0, 0), (0, 0)]


def test_what_they_depend_on_is_measured_anew(find, monkeypatch):
    assert find(make_part()) == (1, 1)
    assert find(make_part("other")) == (1, 1)
    # Costs depend on ranges, however these were found.
    assert find(make_part(), "others") == (1, 0)
    assert find(make_part(), symmetric=True) == (1, 0)
    monkeypatch.setattr(int8_costs, "_MEASURES", "fastdeploy_diffusion.compiler.turns")
    assert find(make_part()) == (1, 1), "other code"
    monkeypatch.undo()
    assert find(make_part()) == (0, 0)


def test_an_interruption_keeps_nothing(find, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MeasuredPart, "measure_costs", interrupt)
        with pytest.raises(KeyboardInterrupt):
            find(make_part())
    assert find(make_part()) == (0, 1), "ranges are kept by themselves"
