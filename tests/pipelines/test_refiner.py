"""SDXL with its refiner: what it refuses, what it runs and reports, what it writes beside."""

import json
import shutil

import numpy as np
import pytest

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.cli.passes import try_passes
from fastdeploy_diffusion.compiler.built_component import BuiltComponent
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.engines.plan import ComponentPlan
from fastdeploy_diffusion.errors import (
    CheckpointError,
    ConfigError,
    RequestError,
    ResourceError,
    UnsupportedModelError,
)
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.memory_room import MemoryRoom
from fastdeploy_diffusion.predictors import memory_budget

QUICK = {"seed": 5, "num_inference_steps": 4, "height": 24, "width": 32}
OF_BOTH = ["text_encoder", "text_encoder_2", "denoiser", "vae_decoder"]
OF_REFINER = ["refiner_text_encoder_2", "refiner_denoiser", "refiner_vae_decoder"]


def open_both(base, refiner, **options):
    options = {"engine": "paddle-eager", **options}
    return SDXLPipeline(DiffusionConfig(model_path=base, refiner=refiner, **options))


@pytest.fixture(scope="module")
def both(tiny_sdxl, tiny_refiner):
    with open_both(tiny_sdxl, tiny_refiner) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def refiner(tiny_refiner):
    with SDXLPipeline(tiny_refiner, engine="paddle-eager") as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def base(tiny_sdxl):
    with SDXLPipeline(tiny_sdxl, engine="paddle-eager") as pipeline:
        yield pipeline


def test_the_file_makes_the_picture_again(both):
    settings = {**QUICK, "aesthetic_score": 8.0, "scheduler": "euler-ancestral"}
    image = both.text_to_image("a dog", **settings)
    written = read_settings(image)
    assert written["denoising_end"] == 0.8
    again = both.text_to_image(**written)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))
    other = both.text_to_image(**{**written, "aesthetic_score": 2.0})
    assert (np.asarray(other) != np.asarray(image)).any()


def test_the_base_model_alone_draws_with_one(both, base):
    alone = both.text_to_image("a dog", denoising_end=1.0, **QUICK)
    assert read_settings(alone)["denoising_end"] == 1
    np.testing.assert_array_equal(alone, base.text_to_image("a dog", **QUICK))
    assert (np.asarray(both.text_to_image("a dog", **QUICK)) != np.asarray(alone)).any()


def test_steps_are_those_of_both(both):
    events = list(both.stream("a dog", **QUICK))
    assert [(each.step, each.total) for each in events] == [(n, 4) for n in range(1, 5)]
    result = events[-1].result
    assert [each.name for each in result.report.components] == [*OF_BOTH, *OF_REFINER]
    assert len(result.timings.steps) == 4
    assert [each.component for each in result.embeddings] == [*OF_BOTH[:2], OF_REFINER[0]]


def test_a_callback_sees_the_steps_of_both(both):
    seen = []

    def note(pipeline, step, timestep, tensors):
        seen.append(step)
        return tensors

    both.text_to_image("a dog", callback_on_step_end=note, **QUICK)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("memory", ["resident", "staged"])
def test_kept_builds_of_another_engine_draw_the_same(tiny_sdxl, tiny_refiner, both, memory):
    options = {"engine": "onnxruntime", "memory": memory}
    with open_both(tiny_sdxl, {"path": tiny_refiner, "engine": "openvino"}, **options) as mixed:
        image = mixed.text_to_image("a dog", output_type="np", **QUICK)
        engines = {each.name: each.engine for each in mixed.report.components}
    assert engines == {
        **dict.fromkeys(OF_BOTH, "onnxruntime"),
        **dict.fromkeys(OF_REFINER, "openvino"),
    }
    wanted = both.text_to_image("a dog", output_type="np", **QUICK)
    assert np.abs(image - wanted).max() < 1e-3


def test_both_are_tuned(both, monkeypatch):
    def measure(component, signature, *, runs, sizes, show):
        assert runs == 3
        show("trying")
        return ComponentPlan(component.name, {}, ())

    told = []
    monkeypatch.setattr(BuiltComponent, "tune", measure)
    plans = both.tune(24, 32, runs=3, show=lambda *what: told.append(what))
    assert [each.component for each in plans] == [*OF_BOTH, *OF_REFINER]
    assert told == [("trying", done, of) for of in (4, 3) for done in range(of)]
    monkeypatch.setattr(BuiltComponent, "find_plan", lambda self: ComponentPlan(self.name, {}, ()))
    assert both.find_plans() == tuple(plans)


def test_passes_are_tried_on_both(tiny_sdxl, tiny_refiner):
    config = DiffusionConfig(
        model_path=tiny_sdxl, refiner=tiny_refiner, engine="paddle-eager", passes=["merge-kv"]
    )
    _, trials = try_passes(config, measure=False)
    assert [each.component for each in trials] == [*OF_BOTH, *OF_REFINER]
    assert {each.component for each in trials if each.matched} == {"denoiser", "refiner_denoiser"}


def test_memory_is_asked_for_both(both, monkeypatch):
    running = [both.component(name) for name in OF_BOTH[:-1]]  # the refiner's decoder decodes
    running += [both.refiner.component(name.removeprefix("refiner_")) for name in OF_REFINER]
    weights = sum(4 * each.network.count_weights() for each in running)
    monkeypatch.setattr(memory_budget, "measure_own_memory", lambda: 0)

    def give(size):
        room = MemoryRoom(size, "this machine")
        monkeypatch.setattr(memory_budget, "find_memory_room", lambda: room)

    give(weights - 1)
    with SDXLPipeline(both.config) as other:
        with pytest.raises(ResourceError, match="1 picture of 32 x 24") as caught:
            other.stream("a dog", **QUICK)
        assert "memory='staged'" in caught.value.fix
        other.stream("a dog", **{**QUICK, "denoising_end": 1.0}).close()
        give(weights + 2**20)
        other.stream("a dog", **QUICK).close()


def test_requests_of_a_batch_draw_what_they_draw_alone(both):
    # With this engine, the requests take turns.
    with pytest.warns(UserWarning, match="take turns"), both.batch() as batch:
        drawn = [batch.submit(text, **QUICK) for text in ("a dog", "a cat")]
    for text, each in zip(("a dog", "a cat"), drawn, strict=True):
        alone = both.text_to_image(text, **QUICK)
        np.testing.assert_array_equal(np.asarray(each.result().images[0]), np.asarray(alone))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"denoising_end": 0.0}, "denoising_end is 0"),
        ({"denoising_end": 0.01}, "of 4 calls of the denoiser, none is left"),
        ({"denoising_end": "late"}, "denoising_end is 'late'"),
        ({"denoising_start": 0.5}, "denoising_start is given without a picture"),
        ({"aesthetic_score": 11}, "aesthetic_score is 11"),
    ],
)
def test_settings_that_are_refused(both, settings, words):
    with pytest.raises(RequestError, match=words):
        both.text_to_image("a dog", **{**QUICK, **settings})


def test_what_belongs_to_others_is_refused(base, refiner, both):
    picture = base.text_to_image("a dog", **QUICK)
    with pytest.raises(RequestError, match="no effect without a refiner"):
        base.text_to_image("a dog", aesthetic_score=6.0, **QUICK)
    with pytest.raises(RequestError, match="there is no picture to refine"):
        refiner.text_to_image("a dog", **QUICK)
    with pytest.raises(RequestError, match="strength has no effect"):
        refiner.image_to_image("a dog", picture, strength=0.5, denoising_start=0.5)
    with pytest.raises(RequestError, match="a denoising_start below denoising_end"):
        refiner.image_to_image("a dog", picture, denoising_start=0.5, denoising_end=0.4)
    with pytest.raises(RequestError, match="and a mask"):
        both.inpaint("a dog", picture, np.ones((24, 32), bool), denoising_end=0.5)
    latents = np.zeros((1, 4, 12, 16), np.float32)
    with pytest.raises(RequestError, match="array of latents"):
        refiner.image_to_image("a dog", latents)


def test_checkpoints_that_are_refused(tiny_sdxl, tiny_refiner, tmp_path):
    with pytest.raises(UnsupportedModelError, match="SDXL's refiner, which has text_encoder_2"):
        open_both(tiny_sdxl, tiny_sdxl)
    with pytest.raises(ConfigError, match="which SDXL's refiner does not have"):
        open_both(tiny_refiner, tiny_refiner)
    copied = shutil.copytree(tiny_refiner, tmp_path / "refiner")
    index = copied / "model_index.json"
    changed = {**read_json_object(index), "requires_aesthetics_score": False}
    index.write_text(json.dumps(changed))
    with pytest.raises(UnsupportedModelError, match="requires_aesthetics_score is false"):
        SDXLPipeline(copied, engine="paddle-eager")


def test_other_families_have_none(tiny_refiner):
    for name, kind in (("shapes", SDPipeline), ("flux-shapes", FluxPipeline)):
        with pytest.raises(ConfigError, match="refiner is given, which"):
            kind(DiffusionConfig.from_preset(name, refiner=tiny_refiner))


def test_int8_is_for_the_base_model_alone(tiny_sdxl, tiny_refiner):
    with pytest.raises(ConfigError, match="is a refiner: int8 is calibrated"):
        SDXLPipeline(tiny_refiner, engine="openvino", precision="int8-weights")
    with pytest.raises(ConfigError, match="precision of the refiner"):
        DiffusionConfig(model_path="x", refiner={"path": "y", "precision": "int8"})
    with open_both(tiny_sdxl, tiny_refiner, engine="openvino", precision="int8-weights") as both:
        precisions = {each.name: each.precision for each in both.report.components}
    assert precisions["denoiser"] == "int8-weights"
    assert not any("int8" in precisions[name] for name in OF_REFINER)


def test_a_bundle_of_the_refiner_alone(base, tiny_refiner, tmp_path):
    picture = base.text_to_image("a dog", **QUICK)
    with SDXLPipeline(tiny_refiner, engine="onnxruntime") as alone:
        wanted = alone.image_to_image("a dog", picture, seed=3, num_inference_steps=4)
        write_bundle(alone, [(32, 24)], tmp_path / "refiner", encoder=True)
    with SDXLPipeline(tmp_path / "refiner") as bundled:
        given = bundled.image_to_image("a dog", picture, seed=3, num_inference_steps=4)
    np.testing.assert_array_equal(np.asarray(given), np.asarray(wanted))


def test_a_bundle_of_both(tiny_sdxl, tiny_refiner, tmp_path):
    refiner = {"path": tiny_refiner, "engine": "openvino", "denoising_end": 0.6}
    with open_both(tiny_sdxl, refiner, engine="onnxruntime") as both:
        wanted = both.text_to_image("a dog", **QUICK)
        bundle = write_bundle(both, [(32, 24)], tmp_path / "made")
    assert bundle.config["refiner"] == {"path": "refiner", "denoising_end": 0.6}
    assert str(tiny_refiner) not in (tmp_path / "made" / "bundle.yaml").read_text()
    copied = (tmp_path / "made").rename(tmp_path / "copied")
    with SDXLPipeline(copied) as bundled:
        given = bundled.text_to_image("a dog", **QUICK)
        engines = {each.name: each.engine for each in bundled.report.components}
    np.testing.assert_array_equal(np.asarray(given), np.asarray(wanted))
    assert read_settings(given) == read_settings(wanted)
    assert engines == {
        **dict.fromkeys(OF_BOTH, "onnxruntime"),
        **dict.fromkeys(OF_REFINER, "openvino"),
    }
    with pytest.raises(ConfigError, match=r"refiner is .*, and .* is a bundle, whose refiner was"):
        SDXLPipeline(copied, refiner=tiny_refiner)
    (copied / "refiner" / "bundle.yaml").unlink()
    with pytest.raises(CheckpointError, match="was not copied whole"):
        SDXLPipeline(copied)
