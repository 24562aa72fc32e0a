"""The passes that made a build fail are told from those that did not, and from other reasons."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
from toy_session import ToySession

from fastdeploy_diffusion.compiler.pass_blame import find_guilty_passes
from fastdeploy_diffusion.errors import EngineError, PassError, ResourceError
from fastdeploy_diffusion.passes.registry import choose_passes

NAMES = ("merge-qkv", "merge-kv", "fuse-silu")
FAILURE = EngineError("the numbers are wrong")


@dataclass(frozen=True)
class ToyBuild:
    """Fails by what it is told for the names of its passes; notes what was tried."""

    fail: dict
    passes: tuple
    tried: list = field(default_factory=list)
    name = "denoiser"
    reference = SimpleNamespace(passes=tuple(choose_passes(["downsample-tokens"])))
    placement = SimpleNamespace(spec=SimpleNamespace(precision="fp32"))

    def with_passes(self, passes):
        return replace(self, passes=passes)

    def open(self, cache):
        changing, *names = (each.name for each in self.passes)
        assert (cache, changing) == (None, "downsample-tokens")  # that is always applied
        self.tried.append(tuple(names))
        if error := self.fail.get(tuple(names)):
            raise error
        return SimpleNamespace(session=ToySession(None, ((), ())))


def plan(names, fail):
    return ToyBuild(fail, tuple(choose_passes(["downsample-tokens", *names])))


def test_each_that_fails_alone_is_guilty():
    broken = PassError("the pass merge-kv failed on a network")
    build = plan(NAMES, {("merge-kv",): broken, ("fuse-silu",): ValueError("a cast")})
    found = find_guilty_passes(build, FAILURE)
    assert found.keys() == {"merge-kv", "fuse-silu"}
    assert found["merge-kv"] is broken
    problem = "the pass fuse-silu fails its check on denoiser: ValueError: a cast"
    assert found["fuse-silu"].problem == problem


def test_the_only_one_is_guilty_if_the_network_is_right_without_it():
    build = plan(["merge-kv"], {})
    found = find_guilty_passes(build, FAILURE)
    assert found["merge-kv"].problem == (
        "the pass merge-kv fails its check on denoiser: the numbers are wrong"
    )
    assert build.tried == [()]


def test_where_none_fails_alone_all_are_guilty():
    found = find_guilty_passes(plan(NAMES, {}), FAILURE)
    assert found.keys() == set(NAMES)
    assert {each.problem for each in found.values()} == {
        "the passes merge-qkv, merge-kv, fuse-silu fail their check on denoiser: "
        "the numbers are wrong"
    }


def test_none_is_guilty_of_what_happens_without_them():
    build = plan(NAMES, {(): FAILURE, ("merge-kv",): FAILURE})
    assert find_guilty_passes(build, FAILURE) == {}
    assert build.tried == [()]


def test_without_passes_nothing_is_tried():
    build = plan([], {})
    assert find_guilty_passes(build, FAILURE) == {}
    assert build.tried == []


@pytest.mark.parametrize("moment", [(), ("merge-kv",)])
@pytest.mark.parametrize(
    "cause",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("(ResourceExhausted) Fail to alloc memory"),
        ResourceError("too little of it"),
    ],
)
def test_none_is_guilty_of_too_little_memory(cause, moment):
    error = EngineError("paddle could not load denoiser")
    error.__cause__ = cause
    failure = cause if isinstance(cause, ResourceError) else error
    assert find_guilty_passes(plan(NAMES, {moment: failure}), FAILURE) == {}
