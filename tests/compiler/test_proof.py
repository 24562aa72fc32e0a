"""A build is proven at the sizes that it serves, and one that is not right goes at once."""

from dataclasses import replace

import pytest
from toy_session import ToySession

from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability, BuildSpec, Engine, Support
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.errors import AccuracyError, EngineError
from fastdeploy_diffusion.predictors.stage_programs import StageProgram
from fastdeploy_diffusion.runtime.program import Program, Signature, TensorSpec
from fastdeploy_diffusion.size_range import SizeRange

BATCH = SizeRange("batch", 1, 2, 6)
HEIGHT, WIDTH = SizeRange("height", 2, 4, 8), SizeRange("width", 3, 5, 9)


def sign(*shape):
    return Signature(
        (TensorSpec("sample", shape, "float32"),), (TensorSpec("output", shape, "float32"),)
    )


class ToyReference:
    """The layer that sessions are compared with: it doubles."""

    def __init__(self, signature):
        self.program = Program("part", lambda sample: 2 * sample, *signature)
        self.seen = []
        self.released = 0

    def load(self):
        return self.program

    def knows(self, feeds, rounded_to):
        return False

    def require_room(self, shapes):
        pass

    def release(self):
        self.released += 1

    def expect(self, feeds, rounded_to):
        self.seen.append(feeds["sample"].shape)
        return {"output": 2 * feeds["sample"]}


class ToyEngine(Engine):
    """Loads toy sessions, which compute what it is told."""

    name = "toy"
    keeps_builds = False

    def __init__(self, compute):
        self.compute = compute
        self.sessions = []

    def _probe_run(self, device):
        return Availability(True)

    def supports(self, spec):
        return Support(True)

    def _build(self, program, spec, out):
        pass

    def _load(self, program, spec, artifact):
        self.sessions.append(ToySession(self.compute, (program.inputs, program.outputs)))
        return self.sessions[-1]


def plan(signature, compute):
    return ComponentBuild(
        "part",
        Placement(ToyEngine(compute), BuildSpec(Device("cpu"))),
        None,
        ToyReference(signature),
        (),
        {},
        *signature,
        sizes={"batch": 2},
    )


def double(sample):
    return {"output": 2 * sample}


def double_but_for(**wrong):
    """Doubles, but for a share, where a dimension has a size."""

    def compute(sample):
        sizes = dict(zip(("batch", "channels", "height", "width"), sample.shape, strict=True))
        is_wrong = all(sizes[name] == size for name, (size, _) in wrong.items())
        share = max(share for _, share in wrong.values()) if is_wrong else 0
        return {"output": (2 * sample * (1 + share)).astype("float32")}

    return compute


FREE = sign(BATCH, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("wrong", [{"height": (2, 0.1)}, {"height": (4, 0.1)}])
def test_a_session_that_is_wrong_at_one_size_only_fails(wrong):
    build = plan(FREE, double_but_for(**wrong))
    with pytest.raises(AccuracyError):
        build.open(None)
    (session,) = build.placement.engine.sessions
    assert session.closed == 1


@pytest.mark.parametrize(("size", "share"), [(2, 5e-5), (4, 5e-5)])
def test_the_larger_error_of_both_sizes_is_told(size, share):
    build = plan(FREE, double_but_for(height=(size, share)))
    built = build.open(None)
    assert built.relative_error == pytest.approx(share, rel=0.01)
    assert not built.session.closed


def test_the_smallest_of_one_size_and_then_the_usual_ones_are_proven():
    build = plan(FREE, double)
    session = build.open(None).session
    assert [feeds["sample"].shape for feeds in session.runs] == [(2, 3, 2, 5), (2, 3, 4, 5)]
    # The layer sees one row of each, before the session is loaded, and again from what is kept.
    assert set(build.reference.seen) == {(1, 3, 2, 5), (1, 3, 4, 5)}
    assert build.reference.released


@pytest.mark.parametrize(
    "signature", [sign(None, 3, 4, 5), sign(None, 3, SizeRange("height", 4, 4, 4), 5)]
)
def test_where_no_other_size_is_served_one_is_enough(signature):
    build = plan(signature, double)
    session = build.open(None).session
    assert [feeds["sample"].shape for feeds in session.runs] == [(2, 3, 4, 5)]


def test_where_the_usual_size_is_the_smallest_one_more_is_proven_first():
    build = plan(sign(None, 3, SizeRange("height", 4, 4, 8), 5), double)
    session = build.open(None).session
    assert [feeds["sample"].shape for feeds in session.runs] == [(2, 3, 5, 5), (2, 3, 4, 5)]


def test_a_session_that_fails_to_run_is_closed():
    def fail(sample):
        raise MemoryError("std::bad_alloc")

    build = plan(FREE, fail)
    with pytest.raises(EngineError, match="std::bad_alloc"):
        build.open(None)
    assert [session.closed for session in build.placement.engine.sessions] == [1]


def test_the_layer_is_freed_where_it_fails():
    build = plan(FREE, double)

    def fail(feeds, rounded_to):
        raise EngineError("the layer returns nothing")

    build.reference.expect = fail
    with pytest.raises(EngineError, match="the layer returns nothing"):
        build.open(None)
    assert build.reference.released
    assert build.placement.engine.sessions == []


@pytest.mark.parametrize("failing", [0, 1])
def test_where_a_part_does_not_load_the_others_are_closed(failing, tmp_path):
    build = plan(FREE, double)
    engine = build.placement.engine
    program = Program("part", None, *FREE)
    parts = [
        StageProgram(None, replace(program, name=f"part_{index}"), tmp_path) for index in range(2)
    ]
    load = engine._load

    def load_or_fail(program, spec, artifact):
        if program.name == f"part_{failing}":
            raise EngineError("damaged")
        return load(program, spec, artifact)

    engine._load = load_or_fail
    with pytest.raises(EngineError, match="damaged"):
        build._start(program, parts, None, None, None)
    assert [session.closed for session in engine.sessions] == [1] * failing
