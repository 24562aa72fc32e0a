"""The prologue runs once for each conditioning, and gives what its rows take in any batch."""

import gc
import tracemalloc

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.runtime.session import Row, Session

ENGINES = ("paddle-eager", "paddle", "openvino", "onnxruntime")
REQUEST = {"seed": 5, "num_inference_steps": 3, "output_type": "np"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


def open_pipeline(
    model, engine="openvino", passes=("hoist-invariants",), opened=SDPipeline, **options
):
    choice = {"engine": engine, "passes": list(passes), "cpu_fallback": False, **options}
    return opened(DiffusionConfig(model_path=model, **choice))


def psnr(ours, reference):
    return -10 * np.log10(np.mean((ours - reference) ** 2) + 1e-20)


@pytest.fixture
def prologue_runs(monkeypatch):
    """The number of timesteps of each run of a prologue."""
    run, runs = Session.run, []

    def record(self, **feeds):
        if "sample" not in self.inputs and "timestep" in self.inputs:
            runs.append(len(feeds["timestep"]))
        return run(self, **feeds)

    monkeypatch.setattr(Session, "run", record)
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


def test_the_prologue_runs_once_a_text_of_a_request(model, prologue_runs):
    pipeline = open_pipeline(model)
    pipeline.build()
    prologue_runs.clear()
    for steps in (4, 7):
        result = pipeline.generate(
            GenerationRequest(prompt=["a", "b"], seed=0, num_inference_steps=steps)
        )
        assert result.timings.prologue > 0
    # PNDM calls the denoiser once more, at a timestep that it has seen.
    # The negative prompt is one for both pictures.
    assert prologue_runs == 2 * 3 * [64]


def make_feeds(timesteps, seed=0):
    random = np.random.default_rng(seed)
    sample = random.standard_normal((2, 4, 16, 16)).astype(np.float32)
    context = np.repeat(random.standard_normal((1, 77, 16)), 2, axis=0).astype(np.float32)
    return {
        "sample": sample,
        "timestep": np.array(timesteps, np.float32),
        "encoder_hidden_states": context,
    }


def test_a_callback_that_changes_the_conditioning_is_heeded(model, prologue_runs):
    def forget(pipeline, index, timestep, tensors):
        return {"prompt_embeds": 0 * tensors["prompt_embeds"]} if index == 1 else {}

    settings = {
        **REQUEST,
        "callback_on_step_end": forget,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
    }
    hoisted = open_pipeline(model)
    hoisted.build()
    prologue_runs.clear()
    given = hoisted.text_to_image("a cat", **settings)
    # The prompt, the negative prompt, and once the changed prompt, for all steps that may come.
    assert len(prologue_runs) == 3
    wanted = open_pipeline(model, "paddle-eager", passes=()).text_to_image("a cat", **settings)
    assert psnr(given, wanted) >= 50
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


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_the_time_of_sdxl_is_hoisted_with_its_text_and_sizes(engine, tiny_sdxl):
    """Two inputs more than SD's, each row with its own."""
    hoisted, plain = (
        open_denoiser(tiny_sdxl, engine, passes=passes, opened=SDXLPipeline)
        for passes in (["hoist-invariants"], [])
    )
    tensors = {"encoder_hidden_states": (1, 20, 56), "text_embeds": (1, 28), "time_ids": (1, 6)}
    given = []
    for session in (hoisted, plain):
        random = np.random.default_rng(0)
        rows = []
        for timestep in (999, 500, 0.5):
            arrays = {
                name: random.standard_normal(shape).astype(np.float32)
                for name, shape in tensors.items()
            }
            arrays["time_ids"] = np.round(100 * np.abs(arrays["time_ids"]))
            sample = random.standard_normal((4, 16, 16)).astype(np.float32)
            rows.append(Row(session.condition(arrays, [timestep]), sample, timestep))
        given.append(session.run_rows(rows))
    assert np.abs(given[0] - given[1]).max() <= 1e-5 * np.abs(given[1]).max()
    # Every input has its say.
    for name in tensors:
        changed = {**arrays, name: arrays[name] + 1}
        other = Row(hoisted.condition(changed, [timestep]), sample, timestep)
        difference = np.abs(hoisted.run_rows([other])[0] - given[0][-1]).max()
        assert difference > 1e-4 * np.abs(given[1]).max(), name


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
