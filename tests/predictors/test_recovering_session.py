"""An engine that fails in the middle of a generation is replaced; no number is invented."""

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import EngineError

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
    session = component._session._session
    run, calls = session._run, []

    def run_or_fail(feeds):
        calls.append(feeds)
        return make_result(run(feeds)) if len(calls) >= call else run(feeds)

    monkeypatch.setattr(session, "_run", run_or_fail)
    return calls


def psnr(given, wanted):
    return -10 * np.log10(np.mean((given - wanted) ** 2) + 1e-20)


def fail(outputs):
    raise MemoryError("std::bad_alloc")


def spoil(outputs):
    return {name: np.full_like(array, np.nan) for name, array in outputs.items()}


@pytest.mark.parametrize(("result", "problem"), [(fail, "std::bad_alloc"), (spoil, "holds NaN")])
@pytest.mark.parametrize("part", ["_text_encoder", "_denoiser", "_vae"])
def test_the_fallback_goes_on_from_the_last_latents(
    part, result, problem, model, wanted, monkeypatch
):
    pipeline = open_pipeline(model)
    component = getattr(pipeline, part).component
    calls = break_at(monkeypatch, component, 3 if part == "_denoiser" else 1, result)
    with pytest.warns(FallbackWarning, match=problem):
        given = pipeline.text_to_image("a cat", **REQUEST)
    assert len(calls) == (3 if part == "_denoiser" else 1)
    assert psnr(given, wanted) >= 50
    engines = {each.name: each.engine for each in pipeline.report.components}
    assert engines.pop(component.name) == "paddle"
    assert set(engines.values()) == {"openvino"}
    assert [problem in each for each in pipeline.report.fallbacks] == [True]
    # The next request stays on what works, without another word.
    pipeline.text_to_image("a cat", **REQUEST)
    assert len(calls) == (3 if part == "_denoiser" else 1)
    pipeline.close()


def test_a_prologue_that_fails_is_replaced_with_its_step(model, wanted, monkeypatch):
    pipeline = open_pipeline(model, passes=["hoist-invariants"])
    split = pipeline._denoiser.component._session._session
    monkeypatch.setattr(split._prologue, "_run", fail)
    with pytest.warns(FallbackWarning, match="denoiser_prologue"):
        given = pipeline.text_to_image("a cat", **REQUEST)
    assert psnr(given, wanted) >= 50


def test_without_the_fallback_it_is_an_error(model, wanted, monkeypatch):
    pipeline = open_pipeline(model, cpu_fallback=False)
    with monkeypatch.context() as broken:
        break_at(broken, pipeline._denoiser.component, 2, fail)
        with pytest.raises(
            EngineError, match="openvino failed to run denoiser: MemoryError: std::bad_alloc"
        ):
            pipeline.text_to_image("a cat", **REQUEST)
    # What failed once may work again.
    assert psnr(pipeline.text_to_image("a cat", **REQUEST), wanted) >= 50


def test_a_fallback_that_cannot_be_built_is_tried_again(model, wanted, monkeypatch):
    pipeline = open_pipeline(model)
    component = pipeline._denoiser.component
    break_at(monkeypatch, component, 2, fail)
    with monkeypatch.context() as broken:

        def refuse(signature):
            raise EngineError("no memory for the fallback")

        broken.setattr(component, "_build", refuse)
        with (
            pytest.warns(FallbackWarning, match="std::bad_alloc"),
            pytest.raises(EngineError, match="no memory for the fallback"),
        ):
            pipeline.text_to_image("a cat", **REQUEST)
    assert psnr(pipeline.text_to_image("a cat", **REQUEST), wanted) >= 50


def test_what_is_no_number_is_not_run_again(model):
    def spoil_latents(pipeline, index, timestep, tensors):
        return {"latents": np.full_like(tensors["latents"], np.nan)}

    pipeline = open_pipeline(model)
    with pytest.raises(EngineError, match="openvino returned output 'prediction', which holds NaN"):
        pipeline.text_to_image("a cat", **REQUEST, callback_on_step_end=spoil_latents)
    assert pipeline.report.fallbacks == ()


def test_the_fallback_has_no_other(model, monkeypatch):
    pipeline = SDPipeline(DiffusionConfig(model_path=model, engine="paddle"))
    pipeline.build()
    break_at(monkeypatch, pipeline._vae.component, 1, fail)
    with pytest.raises(
        EngineError, match="paddle failed to run vae_decoder: MemoryError: std::bad_alloc"
    ):
        pipeline.text_to_image("a cat", **REQUEST)
