"""Stages of which one follows from the other; a list that does not chain is refused by name."""

from dataclasses import replace

import pytest
from engine_programs import float_spec

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.runtime.program import Signature
from fastdeploy_diffusion.runtime.stages import (
    Stage,
    check_chain,
    join_signatures,
    read_stages,
    write_stages,
)

# A network with four inputs, a list of blocks, and a tail.
WHOLE = Signature(
    (
        float_spec("sample", None, 4),
        float_spec("timestep", None),
        float_spec("text", None, 7, 5),
        float_spec("sizes", None, 6),
    ),
    (float_spec("prediction", None, 4),),
)
TOKENS = float_spec("tokens", None, 8)
PROLOGUE = Stage(
    "prologue",
    (float_spec("timestep", 16), float_spec("text", None, 7, 5), float_spec("sizes", 16, 6)),
    (float_spec("features", 16, 3), float_spec("context", None, 7, 8)),
    per_request=True,
)
HEAD = Stage("head", (WHOLE.inputs[0],), (TOKENS,))
BLOCK = Stage(
    "block",
    (TOKENS, float_spec("features", None, 3), float_spec("context", None, 7, 8)),
    (replace(TOKENS, name="next_tokens"),),
    repeats=5,
)
TAIL = Stage("tail", (TOKENS,), WHOLE.outputs)
STAGES = (PROLOGUE, HEAD, BLOCK, TAIL)


def test_stages_that_follow_from_one_another_are_right():
    check_chain("denoiser", STAGES, WHOLE)
    check_chain("denoiser", (PROLOGUE, HEAD, BLOCK, BLOCK, TAIL), WHOLE)


@pytest.mark.parametrize(
    ("stages", "problem", "allowed"),
    [
        (
            (PROLOGUE, BLOCK, TAIL),
            "the stage 'block' takes 'tokens', which nothing before gives",
            "timestep, text, sizes, features, context, sample",
        ),
        (
            (PROLOGUE, HEAD, replace(BLOCK, outputs=(float_spec("next_token", None, 8),)), TAIL),
            "the stage 'block' replaces 'next_token', which nothing before gives",
            "timestep, text, sizes, features, context, sample, tokens",
        ),
        (
            (PROLOGUE, HEAD, replace(BLOCK, outputs=(float_spec("next_tokens", None, 9),)), TAIL),
            "the stage 'block' replaces 'next_tokens' as float32 (any, 9)",
            "float32 (any, 8), as it is given",
        ),
        (
            (PROLOGUE, replace(HEAD, outputs=(float_spec("tokens", None, 9),)), BLOCK, TAIL),
            "the stage 'block' takes 'tokens' as float32 (any, 8)",
            "float32 (any, 9), as it is given",
        ),
        (
            (PROLOGUE, HEAD, BLOCK),
            "the network gives 'prediction', which nothing before gives",
            "timestep, text, sizes, features, context, sample, tokens",
        ),
        (
            (replace(PROLOGUE, inputs=(*PROLOGUE.inputs, WHOLE.inputs[0])), HEAD, BLOCK, TAIL),
            "the stage 'prologue' takes 'sample', which nothing before gives",
            "timestep, text, sizes",
        ),
        (
            (HEAD, PROLOGUE, BLOCK, TAIL),
            "of the stages head, prologue, block, tail, 1 run once a request",
            "the first one, before one or more that run at every step",
        ),
        (
            (HEAD, TAIL),
            "of the stages head, tail, 0 run once a request",
            "the first one, before one or more that run at every step",
        ),
        (
            (PROLOGUE,),
            "of the stages prologue, 1 run once a request",
            "the first one, before one or more that run at every step",
        ),
    ],
)
def test_stages_that_do_not_are_refused(stages, problem, allowed):
    with pytest.raises(EngineError) as caught:
        check_chain("denoiser", stages, WHOLE)
    assert caught.value.problem == f"denoiser: {problem}"
    assert caught.value.allowed == allowed


def test_neighbours_that_are_one_program_take_what_comes_from_outside():
    inputs, outputs = join_signatures(STAGES[1:], WHOLE.outputs)
    assert [spec.name for spec in inputs] == ["sample", "features", "context"]
    assert outputs == WHOLE.outputs
    inputs, outputs = join_signatures(STAGES[:3], TAIL.inputs)
    assert [spec.name for spec in inputs] == ["timestep", "text", "sizes", "sample"]
    assert outputs == (TOKENS,)  # the blocks', under the name that the tail takes it by


def test_a_build_says_what_it_consists_of(tmp_path):
    assert read_stages(tmp_path) == []
    write_stages(STAGES, tmp_path)
    assert tuple(read_stages(tmp_path)) == STAGES


@pytest.mark.parametrize("text", ["", "[1]", '[{"name": "head"}]', "{}x"])
def test_damaged_stages_are_no_single_program(text, tmp_path):
    write_stages(STAGES, tmp_path)
    (tmp_path / "stages.json").write_text(text)
    with pytest.raises(EngineError, match=r"stages\.json cannot be read") as caught:
        read_stages(tmp_path)
    assert caught.value.fix == "build it again"
