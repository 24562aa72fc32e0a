"""What is not a pass's doing is not laid at its door."""

from types import SimpleNamespace

import pytest

from fastdeploy_diffusion.compiler import pass_blame
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.passes.registry import choose_passes


@pytest.mark.parametrize(
    ("cause", "is_guilty"),
    [
        (MemoryError(), False),
        (RuntimeError("std::bad_alloc"), False),
        (RuntimeError("(ResourceExhausted) Fail to alloc memory"), False),
        (ValueError(), True),
    ],
)
def test_a_pass_is_not_guilty_of_too_little_memory(cause, is_guilty, monkeypatch):
    def prove(build, passes):
        if passes:
            raise EngineError("paddle-eager could not load denoiser") from cause

    monkeypatch.setattr(pass_blame, "_prove", prove)
    reference = SimpleNamespace(layer_passes=())
    build = SimpleNamespace(
        name="denoiser", passes=choose_passes(["merge-qkv"]), reference=reference
    )
    found = pass_blame.find_guilty_pass(build)
    assert (found is not None) is is_guilty
    assert found is None or "the pass merge-qkv fails its check on denoiser" in found.problem
