"""An engine that fails in the middle of a generation is replaced; no number is invented."""

import gc
import threading
import weakref

import numpy as np
import pytest
from runnable import CPU_ENGINES
from tiny_checkpoint import write_tiny_sd
from toy_session import DENOISER, SIGNATURE, ToySession, denoise, draw, draw_conditioning

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import (
    CacheError,
    EngineError,
    NonFiniteError,
    RequestError,
    ResourceError,
)
from fastdeploy_diffusion.predictors.recovering_session import RecoveringSession, Running
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Row

REQUEST = {"seed": 5, "num_inference_steps": 4, "output_type": "np"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture(scope="module")
def wanted(model):
    config = DiffusionConfig(model_path=model, engine="paddle-eager")
    return SDPipeline(config).text_to_image("a cat", **REQUEST)


def open_pipeline(model, **options):
    pipeline = SDPipeline(DiffusionConfig(model_path=model, engine="openvino", **options))
    pipeline.build()
    return pipeline


def break_at(monkeypatch, component, call, make_result):
    """Let the engine's own run fail from a call on; count the calls."""
    session = component.pool.sessions[-1].running.session
    name = "_run_rows" if "timestep" in session.inputs else "_run"
    run, calls = getattr(session, name), []

    def run_or_fail(given):
        calls.append(given)
        return make_result(run(given)) if len(calls) >= call else run(given)

    monkeypatch.setattr(session, name, run_or_fail)
    return calls


def psnr(given, wanted):
    return -10 * np.log10(np.mean((given - wanted) ** 2) + 1e-20)


def fail(outputs):
    raise MemoryError("std::bad_alloc")


def spoil(outputs):
    return {name: np.full_like(array, np.nan) for name, array in outputs.items()}


@pytest.mark.parametrize(("result", "problem"), [(fail, "std::bad_alloc"), (spoil, "holds NaN")])
@pytest.mark.parametrize("part", ["text_encoder", "denoiser", "vae_decoder"])
def test_the_fallback_goes_on_from_the_last_latents(
    part, result, problem, model, wanted, monkeypatch
):
    pipeline = open_pipeline(model)
    component = pipeline.component(part)
    calls = break_at(monkeypatch, component, 3 if part == "denoiser" else 1, result)
    with pytest.warns(FallbackWarning, match=problem):
        given = pipeline.text_to_image("a cat", **REQUEST)
    assert len(calls) == (3 if part == "denoiser" else 1)
    assert psnr(given, wanted) >= 50
    engines = {each.name: each.engine for each in pipeline.report.components}
    assert engines.pop(component.name) == "paddle"
    assert set(engines.values()) == {"openvino"}
    assert [problem in each for each in pipeline.report.fallbacks] == [True]
    # The next request stays on what works, without another word.
    pipeline.text_to_image("a cat", **REQUEST)
    assert len(calls) == (3 if part == "denoiser" else 1)
    pipeline.close()


def test_a_prologue_that_fails_is_replaced_with_its_step(model, wanted, monkeypatch):
    loaded, load = {}, Engine.load

    def load_and_keep(engine, program, spec, artifact):
        loaded[program.name] = load(engine, program, spec, artifact)
        return loaded[program.name]

    monkeypatch.setattr(Engine, "load", load_and_keep)
    pipeline = open_pipeline(model, passes=["hoist-invariants"])
    monkeypatch.setattr(loaded["denoiser_prologue"], "_run", fail)
    with pytest.warns(FallbackWarning, match="denoiser_prologue"):
        given = pipeline.text_to_image("a cat", **REQUEST)
    assert psnr(given, wanted) >= 50


def test_without_the_fallback_it_is_an_error(model, wanted, monkeypatch):
    pipeline = open_pipeline(model, cpu_fallback=False)
    with monkeypatch.context() as broken:
        break_at(broken, pipeline.component("denoiser"), 2, fail)
        with pytest.raises(
            ResourceError, match="openvino failed to run denoiser: MemoryError: std::bad_alloc"
        ):
            pipeline.text_to_image("a cat", **REQUEST)
    # What failed once may work again.
    assert psnr(pipeline.text_to_image("a cat", **REQUEST), wanted) >= 50


def test_a_fallback_that_cannot_be_built_is_tried_again(model, wanted, monkeypatch):
    pipeline = open_pipeline(model)
    component = pipeline.component("denoiser")
    break_at(monkeypatch, component, 2, fail)
    with monkeypatch.context() as broken:

        def refuse(signature):
            raise EngineError("no room for the fallback")

        broken.setattr(component, "_build", refuse)
        with (
            pytest.warns(FallbackWarning, match="std::bad_alloc"),
            pytest.raises(ResourceError, match="no room for the fallback"),
        ):
            pipeline.text_to_image("a cat", **REQUEST)
    assert psnr(pipeline.text_to_image("a cat", **REQUEST), wanted) >= 50


def spoil_tensor(name, value):
    def spoil(pipeline, index, timestep, tensors):
        return {name: np.full_like(tensors[name], value)}

    return spoil


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_request_of_no_numbers_is_to_blame_on_every_engine_alike(engine, model):
    pipeline = SDPipeline(DiffusionConfig(model_path=model, engine=engine))
    before = pipeline.text_to_image("a cat", **REQUEST)
    for name, value, found in (
        ("latents", np.nan, "NaN or infinity"),
        ("latents", 1e30, r"values of up to 1.0e\+30"),
        ("prompt_embeds", 1e30, r"values of up to 1.0e\+30"),
    ):
        with pytest.raises(
            NonFiniteError, match=f"^callback_on_step_end returned '{name}' with {found}\n"
        ):
            pipeline.text_to_image(
                "a cat",
                **REQUEST,
                callback_on_step_end=spoil_tensor(name, value),
                callback_on_step_end_tensor_inputs=[name],
            )
    # Also beyond what a callback can be blamed for.
    latents = np.full((1, 4, 16, 16), 1e30, np.float32)
    for settings in ({"guidance_scale": 1e30}, {"guidance_scale": 1001}, {"latents": latents}):
        with pytest.raises(RequestError, match=next(iter(settings))):
            pipeline.text_to_image("a cat", **{**REQUEST, **settings})
    assert pipeline.report.fallbacks == ()
    assert {each.engine for each in pipeline.report.components} == {engine}
    np.testing.assert_array_equal(pipeline.text_to_image("a cat", **REQUEST), before)
    pipeline.close()


def test_the_fallback_has_no_other(model, monkeypatch):
    pipeline = SDPipeline(DiffusionConfig(model_path=model, engine="paddle"))
    pipeline.build()
    break_at(monkeypatch, pipeline.component("vae_decoder"), 1, fail)
    with pytest.raises(
        ResourceError, match="paddle failed to run vae_decoder: MemoryError: std::bad_alloc"
    ):
        pipeline.text_to_image("a cat", **REQUEST)


class Recovery:
    """Gives the sessions that take the place of others, one after the other."""

    def __init__(self, *instead):
        self.instead = list(instead)
        self.calls = []

    def __call__(self, error, failed):
        self.calls.append((error.problem, failed.session))
        return Running(self.instead.pop(0), None, None) if self.instead else None


def raise_error(sample, ids):
    raise MemoryError("std::bad_alloc")


def wrap(session, recovery, signature=SIGNATURE):
    return RecoveringSession(
        Program("part", None, *signature), Running(session, None, None), recovery
    )


def test_a_run_is_repeated_until_a_session_runs_it():
    failing, other, right = ToySession(raise_error), ToySession(raise_error), ToySession()
    other.engine, right.engine = "second", "third"
    recovery = Recovery(other, right)
    session = wrap(failing, recovery)
    assert session.engine == "toy"
    feeds = draw()
    np.testing.assert_array_equal(session.run(**feeds)["output"], 2 * feeds["sample"])
    assert [failed for _, failed in recovery.calls] == [failing, other]
    assert recovery.calls[0][0] == "toy failed to run part: MemoryError: std::bad_alloc"
    assert session.engine == "third"
    session.run(**feeds)
    assert [len(each.runs) for each in (failing, other, right)] == [1, 1, 2]
    session.close()
    assert [each.closed for each in (failing, other, right)] == [0, 0, 1]


def test_the_first_error_is_raised_where_nothing_takes_its_place():
    session = wrap(ToySession(raise_error), Recovery())
    with pytest.raises(EngineError, match="std::bad_alloc"):
        session.run(**draw())


def open_denoiser(compute=denoise):
    return ToySession(compute, DENOISER)


def wrap_denoiser(session, recovery):
    return wrap(session, recovery, DENOISER)


def make_rows(session, count=3):
    """Rows with a conditioning and a timestep each."""
    samples = np.random.default_rng(0).standard_normal((count, 3)).astype("float32")
    return [
        Row(session.condition(draw_conditioning(seed), [seed, 801]), sample, seed)
        for seed, sample in enumerate(samples)
    ]


def test_handles_live_on_when_another_session_takes_the_place():
    def fail_late(sample, text, timestep, ids):
        if 801 in timestep:
            raise MemoryError("std::bad_alloc")
        return denoise(sample, text, timestep, ids)

    failing, right = open_denoiser(fail_late), open_denoiser()
    recovery = Recovery(right)
    session = wrap_denoiser(failing, recovery)
    rows = make_rows(session)
    plain = open_denoiser()
    wanted = plain.run_rows(make_rows(plain))
    np.testing.assert_array_equal(session.run_rows(rows), wanted)
    assert recovery.calls == []
    late = [row._replace(timestep=801) for row in rows]
    wanted_late = plain.run_rows([row._replace(timestep=801) for row in make_rows(plain)])
    np.testing.assert_array_equal(session.run_rows(late), wanted_late)
    assert [failed for _, failed in recovery.calls] == [failing]
    # Those that had no part in the run that failed, too, and without another failure.
    np.testing.assert_array_equal(session.run_rows(rows[1:]), wanted[1:])
    assert len(recovery.calls) == 1


def test_a_conditioning_that_fails_is_repeated():
    class Unable(ToySession):
        def condition(self, arrays, timesteps):
            raise EngineError("no room to condition")

    recovery = Recovery(open_denoiser())
    session = wrap_denoiser(Unable(denoise, DENOISER), recovery)
    plain = open_denoiser()
    given, wanted = (each.run_rows(make_rows(each)) for each in (session, plain))
    np.testing.assert_array_equal(given, wanted)
    assert [problem for problem, _ in recovery.calls] == ["no room to condition"]


@pytest.mark.parametrize("task", ["condition", "run_rows"])
def test_conditioning_and_rows_wait_for_a_run_to_end(task):
    inner = open_denoiser()
    session = wrap_denoiser(inner, Recovery())
    rows = make_rows(session, 2)
    following = threading.Thread(
        target=getattr(session, task),
        args=(rows,) if task == "run_rows" else (draw_conditioning(5), [3]),
    )
    # Inside, nothing waits by itself.
    inner.condition = inner.run_rows = lambda *_: np.zeros((2, 3), np.float32)
    inner.may_leave.clear()
    given = draw_conditioning()
    feeds = {"sample": rows[0].sample[None], "timestep": np.ones(1, np.float32), **given}
    running = threading.Thread(target=session.run, kwargs=feeds)
    running.start()
    assert inner.entered.wait(20)
    following.start()
    following.join(0.1)
    assert following.is_alive()
    inner.may_leave.set()
    for thread in (running, following):
        thread.join()


def test_a_closed_session_conditions_nothing():
    session = wrap_denoiser(open_denoiser(), Recovery())
    (row,) = make_rows(session, 1)
    session.close()
    for task in (lambda: session.run_rows([row]), lambda: make_rows(session, 1)):
        with pytest.raises(EngineError, match="is closed"):
            task()


@pytest.mark.parametrize("place", ["sample", "text"])
def test_rows_that_no_network_can_work_with_are_not_run_again(place):
    def fail(sample, text, timestep, ids):
        raise MemoryError("std::bad_alloc")

    recovery = Recovery(open_denoiser())
    session = wrap_denoiser(open_denoiser(fail), recovery)
    (row,) = make_rows(session, 1)
    conditioning = draw_conditioning()
    if place == "sample":
        row.sample[1] = np.nan
    else:
        conditioning["text"][0, 1] = 1e30
    with pytest.raises(EngineError, match="std::bad_alloc"):
        session.run_rows([row._replace(handle=session.condition(conditioning, [0]))])
    assert recovery.calls == []


def test_a_handle_that_goes_is_forgotten_by_both_sessions():
    inner = open_denoiser()
    session = wrap_denoiser(inner, Recovery())
    kept, condition = [], inner.condition

    def condition_and_tell(arrays, timesteps):
        handle = condition(arrays, timesteps)
        kept.append(weakref.ref(handle))
        return handle

    inner.condition = condition_and_tell
    rows = make_rows(session)
    del rows[1]
    gc.collect()
    assert [each() is None for each in kept] == [False, True, False]
    session.run_rows(rows)
    assert len(kept) == 3


def test_profiles_are_those_of_the_session():
    (operator,) = wrap(ToySession(), Recovery()).profile(**draw())
    assert operator.kind == "Toy"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e7])
def test_inputs_that_no_network_can_work_with_are_not_run_again(value):
    recovery, feeds = Recovery(ToySession()), draw()
    feeds["sample"][1, 2] = value
    session = wrap(ToySession(raise_error), recovery)
    for run in (session.run, session.profile):
        with pytest.raises(EngineError, match="std::bad_alloc"):
            run(**feeds)
    assert recovery.calls == []
    # Large ones, of a schedule that begins with much noise, are.
    feeds["sample"][1, 2] = 1e6
    assert session.run(**feeds)
    assert len(recovery.calls) == 1


def test_other_errors_are_not_recovered_from():
    def fail_typed(sample, ids):
        raise CacheError("nothing is kept")

    recovery = Recovery(ToySession())
    with pytest.raises(CacheError):
        wrap(ToySession(fail_typed), recovery).run(**draw())
    assert recovery.calls == []
