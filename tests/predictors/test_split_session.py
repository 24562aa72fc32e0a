"""A request runs the prologue once; whatever changes in between is noticed."""

import gc
import tracemalloc

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline
from fastdeploy_diffusion.engines.session import Row, Session
from fastdeploy_diffusion.errors import EngineError

ENGINES = ("paddle-eager", "paddle", "openvino", "onnxruntime")
REQUEST = {"seed": 5, "num_inference_steps": 3, "output_type": "np"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


def open_pipeline(model, engine="openvino", passes=("hoist-invariants",), **options):
    choice = {"engine": engine, "passes": list(passes), "cpu_fallback": False, **options}
    return SDPipeline(DiffusionConfig(model_path=model, **choice))


def psnr(ours, reference):
    return -10 * np.log10(np.mean((ours - reference) ** 2) + 1e-20)


def count_runs(pipeline, monkeypatch):
    """Record the number of timesteps of each run of the prologue."""
    pipeline.build()
    prologue = pipeline.component("denoiser").pool.sessions[-1].running.session._prologue
    run, runs = prologue.run, []

    def record(**feeds):
        runs.append(len(feeds["timestep"]))
        return run(**feeds)

    monkeypatch.setattr(prologue, "run", record)
    return runs


@pytest.mark.parametrize("engine", ENGINES)
def test_the_picture_is_the_same(engine, model, tmp_path):
    wanted = open_pipeline(model, "paddle-eager", passes=()).text_to_image("a cat", **REQUEST)
    for cached in (False, True):
        pipeline = open_pipeline(model, engine, cache_dir=tmp_path)
        given = pipeline.text_to_image("a cat", **REQUEST)
        assert psnr(given, wanted) >= 50
        report = pipeline.report.components[1]
        assert report.passes["hoist-invariants"] > 0
        assert report.cached is (cached and engine != "paddle-eager")


def test_the_prologue_runs_once_a_text_of_a_request(model, monkeypatch):
    pipeline = open_pipeline(model)
    runs = count_runs(pipeline, monkeypatch)
    for steps in (4, 7):
        result = pipeline.generate(
            GenerationRequest(prompt=["a", "b"], seed=0, num_inference_steps=steps)
        )
        assert result.timings.prologue > 0
    # PNDM calls the denoiser once more, at a timestep that it has seen.
    # The negative prompt is one for both pictures.
    assert runs == 2 * 3 * [64]


def make_feeds(timesteps, seed=0):
    random = np.random.default_rng(seed)
    sample = random.standard_normal((2, 4, 16, 16)).astype(np.float32)
    context = np.repeat(random.standard_normal((1, 77, 16)), 2, axis=0).astype(np.float32)
    return {
        "sample": sample,
        "timestep": np.array(timesteps, np.float32),
        "encoder_hidden_states": context,
    }


def test_what_is_new_runs_the_prologue_and_what_is_known_does_not(model, monkeypatch):
    pipeline = open_pipeline(model, "paddle-eager")
    plain = open_pipeline(model, "paddle-eager", passes=())
    for each in (pipeline, plain):
        each.build(32, 32)
    runs = count_runs(pipeline, monkeypatch)
    session, wanted = (each.component("denoiser").pool.sessions[-1] for each in (pipeline, plain))
    for feeds, more in (
        (make_feeds([801, 801]), 1),
        (make_feeds([801, 801]), 0),
        (make_feeds([401, 801]), 1),  # a new timestep, in the first row alone
        (make_feeds([801, 201]), 1),
        (make_feeds([201, 801]), 0),  # in another order
        (make_feeds([401, 401]), 1),  # not since the prologue ran with others
        (make_feeds([201, 801]), 1),
        (make_feeds([801, 801], seed=1), 1),  # a new prompt
        (make_feeds([201, 801]), 0),  # the one before, as under true guidance
        (make_feeds([801, 801], seed=1), 0),
        (make_feeds([801, 801], seed=2), 1),
        (make_feeds([801, 801], seed=1), 0),
        (make_feeds([201, 801]), 1),  # two are kept
    ):
        before = len(runs)
        given, reference = session.run(**feeds), wanted.run(**feeds)
        assert len(runs) - before == more, feeds["timestep"]
        for name, array in given.items():
            error = np.abs(array - reference[name]).max() / np.abs(reference[name]).max()
            assert error <= 1e-5


def test_a_callback_that_changes_the_conditioning_is_heeded(model, monkeypatch):
    def forget(pipeline, index, timestep, tensors):
        return {"prompt_embeds": 0 * tensors["prompt_embeds"]} if index == 1 else {}

    settings = {
        **REQUEST,
        "callback_on_step_end": forget,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
    }
    hoisted = open_pipeline(model)
    runs = count_runs(hoisted, monkeypatch)
    given = hoisted.text_to_image("a cat", **settings)
    wanted = open_pipeline(model, "paddle-eager", passes=()).text_to_image("a cat", **settings)
    assert psnr(given, wanted) >= 50
    assert len(runs) > 1
    assert psnr(hoisted.text_to_image("a cat", **REQUEST), wanted) < 40


def open_denoiser(model, engine="openvino", **options):
    """The session of a denoiser for pictures of 32 x 32 pixels."""
    builds = open_pipeline(model, engine, **options).plan_builds(32, 32)
    return next(build for build in builds if build.name == "denoiser").open(None).session


def make_row(session, seed, timestep, timesteps):
    feeds = make_feeds([timestep, timestep], seed)
    text = feeds["encoder_hidden_states"][:1]
    handle = session.condition({"encoder_hidden_states": text}, timesteps)
    return Row(handle, feeds["sample"][0], timestep)


@pytest.fixture
def prologue_runs(monkeypatch):
    """The timesteps of each run of a prologue."""
    run, runs = Session.run, []

    def record(self, **feeds):
        if "sample" not in self.inputs:
            runs.append(len(feeds["timestep"]))
        return run(self, **feeds)

    monkeypatch.setattr(Session, "run", record)
    return runs


@pytest.mark.parametrize("engine", ENGINES)
def test_many_conditionings_run_in_one_batch_each_at_its_own_timestep(engine, model, prologue_runs):
    hoisted, plain = open_denoiser(model, engine), open_denoiser(model, "paddle-eager", passes=())
    steps = ((801, 401), (901, 601, 301), tuple(range(100)))
    prologue_runs.clear()
    rows = [make_row(hoisted, seed, own[0], own) for seed, own in enumerate(steps)]
    assert prologue_runs == [64] * 4  # no more timesteps go through it at once
    wanted = [make_row(plain, seed, own[0], own) for seed, own in enumerate(steps)]
    for chosen in ([0, 1, 2], [2], [1, 0], [0, 1, 2]):
        given, reference = (
            session.run_rows([each[index]._replace(timestep=steps[index][-1]) for index in chosen])
            for session, each in ((hoisted, rows), (plain, wanted))
        )
        assert np.abs(given - reference).max() <= 1e-5 * np.abs(reference).max()
    # Nothing is computed anew, whoever runs with whom.
    assert len(prologue_runs) == 4
    with pytest.raises(EngineError, match="which it was not conditioned for"):
        hoisted.run_rows([rows[0]._replace(timestep=402)])


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_row_does_not_depend_on_the_others(engine, model):
    session = open_denoiser(model, engine)
    rows = [make_row(session, seed, 10 * seed, [10 * seed, 999]) for seed in range(5)]
    together = session.run_rows(rows)
    for row, given in zip(rows, together, strict=True):
        np.testing.assert_array_equal(session.run_rows([row])[0], given)
    # Nor on whether it runs by rows or as a whole batch.
    feeds = make_feeds([30, 30], seed=3)
    whole = session.run(**{name: array[:1] for name, array in feeds.items()})["prediction"]
    np.testing.assert_array_equal(whole[0], together[3])


def test_handles_that_go_free_their_memory(model):
    session = open_denoiser(model, "paddle-eager")
    timesteps = list(range(50))
    for seed in range(2):  # what is made once, is made now
        session.run_rows([make_row(session, seed, 1, timesteps)])
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    rows = [make_row(session, seed, 1, timesteps) for seed in range(20)]
    session.run_rows(rows)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    del rows
    session.condition({"encoder_hidden_states": np.zeros((1, 77, 16), np.float32)}, timesteps)
    gc.collect()
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held - before > 20 * 100_000
    assert left - before < (held - before) / 20


def test_a_build_within_bounds_conditions_one_row_and_runs_many(model):
    shapes = {"batch": [2, 3, 4], "height": [16, 32, 48], "width": [16, 32, 64]}
    options = {"enable_dynamic_shape": True, "shapes": shapes}
    hoisted = open_denoiser(model, **options)
    plain = open_denoiser(model, "paddle-eager", passes=(), **options)
    given, wanted = (
        session.run_rows([make_row(session, seed, 5, [5]) for seed in range(3)])
        for session in (hoisted, plain)
    )
    assert np.abs(given - wanted).max() <= 1e-5 * np.abs(wanted).max()
