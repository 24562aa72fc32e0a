"""Programs of stages behind one signature: the prologue runs once for each conditioning."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from checkpoint_writers import write_tensors
from engine_programs import float_spec
from toy_session import ToySession

from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.predictors.stage_session import StageSession
from fastdeploy_diffusion.predictors.weight_stream import BlockWeights, WeightStream
from fastdeploy_diffusion.runtime.program import Program, Signature
from fastdeploy_diffusion.runtime.session import Row
from fastdeploy_diffusion.runtime.stages import Stage, check_chain

ROWS, BLOCKS = 4, 3
# Sizes are a fourth input that the prologue combines with timesteps; places have no batch.
WHOLE = Signature(
    (
        float_spec("sample", None, 3),
        float_spec("timestep", None),
        float_spec("text", None, 2),
        float_spec("sizes", None, 2),
        float_spec("places", ROWS),  # as many as the prologue has rows, by chance
    ),
    (float_spec("prediction", None, 3),),
)
SAMPLE, _, TEXT, _, PLACES = WHOLE.inputs
TOKENS, CONTEXT = float_spec("tokens", None, 3), float_spec("context", None, 3)
FEATURES, ANGLES = float_spec("features", None, 3), float_spec("angles", ROWS)
PROLOGUE = Stage(
    "prologue",
    (float_spec("timestep", ROWS), TEXT, float_spec("sizes", ROWS, 2), PLACES),
    (float_spec("features", ROWS, 3), CONTEXT, ANGLES),
    per_request=True,
)
HEAD = Stage("head", (SAMPLE,), (TOKENS,))
BLOCK = Stage(
    "block",
    (TOKENS, CONTEXT, FEATURES, ANGLES),
    (replace(TOKENS, name="next_tokens"), replace(CONTEXT, name="next_context")),
    repeats=BLOCKS,
)
TAIL = Stage("tail", (TOKENS, CONTEXT), WHOLE.outputs)
STEP = Stage("step", (SAMPLE, FEATURES, CONTEXT, ANGLES), WHOLE.outputs)
WEIGHTS = np.random.default_rng(9).standard_normal((BLOCKS, 3)).astype(np.float32)


def run_prologue(timestep, text, sizes, places):
    features = np.stack([timestep, *sizes.T], axis=1)
    context = text @ np.array([[1, 2, 0], [0, 1, 3]], np.float32)
    return {"features": features, "context": context, "angles": np.cos(places)}


def run_block(tokens, context, features, angles, weight):
    tokens = np.tanh(tokens * weight + features + context * angles.sum())
    return {"next_tokens": tokens, "next_context": context + tokens}


def run_step(sample, features, context, angles):
    tokens = 2 * sample
    for weight in WEIGHTS:
        tokens, context = run_block(tokens, context, features, angles, weight).values()
    return {"prediction": tokens - context}


def run_whole(sample, timestep, text, sizes, places):
    given = run_prologue(timestep, text, sizes, places)
    return run_step(sample, *given.values())["prediction"]


def open_part(stage, compute, weights=()):
    return ToySession(compute, Signature((*stage.inputs, *weights), stage.outputs))


def open_resident():
    stages = [(PROLOGUE, open_part(PROLOGUE, run_prologue)), (STEP, open_part(STEP, run_step))]
    return StageSession(Program("denoiser", None, *WHOLE), stages), stages


def open_streamed(folder):
    views = {}
    for index, values in enumerate(WEIGHTS):
        tensors = {f"blocks.{index}.weight": values}
        file = SafetensorsFile(write_tensors(folder / f"{index}.safetensors", tensors, "F32"))
        views |= {name: TensorView(file, name) for name in tensors}
    shapes = {"blocks.0.weight": (3,)}
    weights = BlockWeights(TensorSource("weights", views), "blocks", BLOCKS, shapes, {})

    def run_on_inputs(**feeds):
        return run_block(weight=feeds.pop("blocks.0.weight"), **feeds)

    stages = [
        (PROLOGUE, open_part(PROLOGUE, run_prologue)),
        (HEAD, open_part(HEAD, lambda sample: {"tokens": 2 * sample})),
        (BLOCK, open_part(BLOCK, run_on_inputs, weights.specs)),
        (TAIL, open_part(TAIL, lambda tokens, context: {"prediction": tokens - context})),
    ]
    session = StageSession(Program("denoiser", None, *WHOLE), stages, WeightStream([weights]))
    return session, stages


@pytest.fixture(params=["resident", "streamed"])
def opened(request, tmp_path):
    session, stages = open_resident() if request.param == "resident" else open_streamed(tmp_path)
    check_chain("denoiser", [stage for stage, _ in stages], WHOLE)
    yield session, [each for _, each in stages]
    session.close()


def draw(seed, places=0):
    """The conditioning of one row."""
    random = np.random.default_rng(seed)
    arrays = {
        "text": random.standard_normal((1, 2)),
        "sizes": random.standard_normal((1, 2)),
        "places": np.arange(ROWS) + places,
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def make_row(session, seed, timesteps, places=0):
    sample = np.random.default_rng(50 + seed).standard_normal(3).astype(np.float32)
    return Row(session.condition(draw(seed, places), timesteps), sample, timesteps[0])


def expect(row, seed, timestep, places=0):
    timesteps = np.array([timestep], np.float32)
    return run_whole(row.sample[None], timesteps, **draw(seed, places))[0]


def test_rows_of_many_conditionings_run_together_each_at_its_own_timestep(opened):
    session, parts = opened
    steps = [(3.0,), (0.25, 2.0), tuple(np.linspace(0, 1, 9))]
    rows = [make_row(session, seed, own) for seed, own in enumerate(steps)]
    # So many timesteps at once, however many there are; and never again.
    assert len(parts[0].runs) == 1 + 1 + 3
    assert {feeds["timestep"].shape for feeds in parts[0].runs} == {(ROWS,)}
    for chosen in ([0, 1, 2], [1], [2, 0], [0, 0], [0, 1, 2]):
        last = [rows[index]._replace(timestep=steps[index][-1]) for index in chosen]
        given = session.run_rows(last)
        wanted = [expect(row, each, row.timestep) for row, each in zip(last, chosen, strict=True)]
        np.testing.assert_allclose(given, wanted, rtol=1e-5)
    assert len(parts[0].runs) == 5


def test_a_whole_batch_runs_as_its_rows(opened):
    session, _ = opened
    rows = [draw(seed) for seed in range(2)]
    feeds = {
        "sample": np.ones((2, 3), np.float32),
        "timestep": np.array([1, 0.5], np.float32),
        "text": np.concatenate([row["text"] for row in rows]),
        "sizes": np.concatenate([row["sizes"] for row in rows]),
        "places": rows[0]["places"],
    }
    given = session.run(**feeds)["prediction"]
    np.testing.assert_allclose(given, run_whole(**feeds), rtol=1e-5)
    np.testing.assert_array_equal(session.prepare(**feeds)(), given)


def test_what_rows_share_must_be_the_same(opened):
    session, _ = opened
    rows = [make_row(session, 0, [1.0], places) for places in (0, 1)]
    with pytest.raises(EngineError, match="denoiser: 'angles' differs between the rows"):
        session.run_rows(rows)
    for places, row in enumerate(rows):
        given = session.run_rows([row])[0]
        np.testing.assert_allclose(given, expect(row, 0, 1.0, places), rtol=1e-5)


def test_a_handle_that_goes_frees_what_the_prologue_gave(opened):
    session, parts = opened
    given, run = [], parts[0].run

    def run_and_tell(**feeds):
        outputs = run(**feeds)
        given.append(weakref.ref(outputs["context"]))
        return outputs

    parts[0].run = run_and_tell
    rows = [make_row(session, seed, [1.0]) for seed in range(3)]
    session.run_rows(rows)
    handle = weakref.ref(rows[1].handle)
    del rows[1]
    gc.collect()
    assert handle() is None
    assert [each() is None for each in given] == [False, True, False]
    session.run_rows(rows)
    assert len(given) == 3


def test_a_step_gets_what_stays_the_same_once(opened):
    """Bound arrays stay on the device: the same memory run after run, until other rows come."""
    session, parts = opened
    rows = [make_row(session, seed, [1.0, 0.5]) for seed in range(2)]
    step = next(each for each in parts if "angles" in each.inputs and each is not parts[0])
    for chosen in (rows, rows, rows[:1]):
        for timestep in (1.0, 0.5):
            session.run_rows([row._replace(timestep=timestep) for row in chosen])
    angles = [id(feeds["angles"]) for feeds in step.runs]
    per_run = len(angles) // 6
    assert len(set(angles[: 4 * per_run])) == 1
    assert len(set(angles[4 * per_run :])) == 1


def test_what_the_prologue_does_not_take_goes_to_the_step_as_it_is():
    extra = float_spec("extra", None, 3)
    whole = Signature((*WHOLE.inputs, extra), WHOLE.outputs)
    step = replace(STEP, inputs=(*STEP.inputs, extra))

    def run_with_extra(extra, **feeds):
        return {"prediction": run_step(**feeds)["prediction"] + extra}

    check_chain("denoiser", [PROLOGUE, step], whole)
    parts = [open_part(PROLOGUE, run_prologue), open_part(step, run_with_extra)]
    stages = list(zip((PROLOGUE, step), parts, strict=True))
    with StageSession(Program("denoiser", None, *whole), stages) as session:
        rows = []
        for seed in range(2):
            given = np.full((1, 3), 10 * seed + 1, np.float32)
            handle = session.condition({**draw(seed), "extra": given}, [1.0, 0.5])
            rows.append(Row(handle, np.full(3, seed, np.float32), 1.0))
            given[:] = 99  # the caller's own
        wanted = [expect(row, seed, 1.0) + 10 * seed + 1 for seed, row in enumerate(rows)]
        for chosen in ([0, 1], [1], [1, 0]):
            given = session.run_rows([rows[index] for index in chosen])
            np.testing.assert_allclose(given, [wanted[index] for index in chosen], rtol=1e-5)
        # Bound once, as long as the same rows run.
        session.run_rows([row._replace(timestep=0.5) for row in rows])
        session.run_rows(rows)
    bound = [id(feeds["extra"]) for feeds in parts[1].runs]
    assert bound[-1] == bound[-2] != bound[0]


def test_closing_closes_every_part(opened):
    session, parts = opened
    row = make_row(session, 0, [1.0])
    session.close()
    assert [part.closed for part in parts] == [1] * len(parts)
    with pytest.raises(EngineError, match="denoiser: the toy session is closed"):
        session.run_rows([row])


def test_a_step_of_one_program_is_profiled_without_its_prologue():
    session, (_, (_, step)) = open_resident()
    row = draw(0)
    feeds = {"sample": np.ones((1, 3), np.float32), "timestep": np.ones(1, np.float32), **row}
    step._compute = lambda **feeds: {"output": np.float32([len(feeds)])}
    (operator,) = session.profile(**feeds)
    assert operator.seconds == len(STEP.inputs)
