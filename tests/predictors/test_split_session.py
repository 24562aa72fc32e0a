"""A request runs the prologue once; whatever changes in between is noticed."""

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline

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
    prologue = pipeline._denoiser.component._session._session._prologue
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


def test_the_prologue_runs_once_a_request(model, monkeypatch):
    pipeline = open_pipeline(model)
    runs = count_runs(pipeline, monkeypatch)
    for steps in (4, 7):
        result = pipeline.generate(
            GenerationRequest(prompt=["a", "b"], seed=0, num_inference_steps=steps)
        )
        assert result.timings.prologue > 0
    # PNDM calls the denoiser once more, at a timestep that it has seen.
    assert runs == [64, 64]


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
    session, wanted = (each._denoiser.component._session for each in (pipeline, plain))
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
