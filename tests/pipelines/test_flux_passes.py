"""Passes on the whole of Flux: the same latents; a prologue runs once for each conditioning."""

import numpy as np
import pytest
from flux_folder import write_flux_folder

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.compiler.pass_tester import PassTester
from fastdeploy_diffusion.passes.base import LayerPass
from fastdeploy_diffusion.passes.registry import make_all_passes, pass_names
from fastdeploy_diffusion.pipelines.flux import FluxPipeline
from fastdeploy_diffusion.runtime.session import Session

PASSES = ("hoist-invariants", "merge-qkv", "merge-qkv-mlp", "rotate-halves")
SMALL = {
    "height": 16,
    "width": 24,
    "max_sequence_length": 12,
    "seed": 5,
    "num_inference_steps": 3,
    "output_type": "latent",
}
GUIDED = {"negative_prompt": "ugly", "true_cfg_scale": 3.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By whether it is like dev: the folder of a checkpoint."""
    found = {}
    for is_dev in (True, False):
        folder = tmp_path_factory.mktemp("dev" if is_dev else "schnell")
        write_flux_folder(folder, is_dev=is_dev, seed=9)
        found[is_dev] = folder / "model"
    return found


def open_flux(folder, engine="paddle-eager", passes=PASSES, **options):
    return FluxPipeline(
        DiffusionConfig(
            model_path=folder, engine=engine, passes=list(passes), cpu_fallback=False, **options
        )
    )


def draw(pipeline, prompts=("a cat",), **settings):
    return pipeline.text_to_image(list(prompts), **{**SMALL, **settings})


def assert_close(given, wanted):
    assert np.abs(given - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.fixture
def prologue_runs(monkeypatch):
    """The rows of each run of a prologue, and the sigmas in it."""
    run, runs = Session.run, []

    def record(self, **feeds):
        if "timestep" in self.inputs and "hidden_states" not in self.inputs:
            runs.append((len(feeds["timestep"]), len(set(feeds["timestep"].tolist()))))
        return run(self, **feeds)

    monkeypatch.setattr(Session, "run", record)
    return runs


@pytest.mark.parametrize("is_dev", [True, False])
def test_the_latents_are_the_same(is_dev, folders):
    settings = {"prompts": ["a cat", "a dog"], "num_images_per_prompt": 2, "seed": [1, 2, 3, 4]}
    plain, rewritten = (open_flux(folders[is_dev], passes=each) for each in ((), PASSES))
    assert_close(draw(rewritten, **settings, **GUIDED), draw(plain, **settings, **GUIDED))
    assert_close(draw(rewritten), draw(plain))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*reads no ONNX graph:UserWarning")
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_all_passes_together_keep_the_latents(engine, folders, tmp_path):
    """Each fires as often as the config promises of both programs, or the build is refused."""
    wanted = draw(open_flux(folders[True], passes=()), **GUIDED)
    for cached in (False, True):
        options = {"denoiser": {"engine": engine}, "cache_dir": tmp_path}
        left_out = {"native-attention", "downsample-tokens"}
        passes = [name for name in pass_names() if name not in left_out]
        pipeline = open_flux(folders[True], passes=passes, **options)
        assert_close(draw(pipeline, **GUIDED), wanted)
        (report,) = (each for each in pipeline.report.components if each.name == "denoiser")
        assert report.cached is cached
        # Of one double and two single blocks.
        assert [report.passes[name] for name in PASSES] == [6, 2, 2, 3]
        assert [report.passes[name] for name in ("fuse-attention", "fuse-rotary")] == [3, 6]


def test_the_prologue_runs_once_for_each_conditioning(folders, prologue_runs):
    pipeline = open_flux(folders[True])
    draw(pipeline)
    prologue_runs.clear()
    draw(pipeline, ["a dog"], num_inference_steps=5)
    assert prologue_runs == [(32, 5)]
    draw(pipeline, ["a cow"], **GUIDED)
    assert prologue_runs[1:] == [(32, 3)] * 2
    # Four pictures, but two conditionings; forty steps of each, 32 rows at once.
    draw(pipeline, ["a", "b"], num_images_per_prompt=2, seed=None, num_inference_steps=40)
    assert prologue_runs[3:] == [(32, 32), (32, 8)] * 2


def test_another_guidance_scale_is_another_conditioning(folders):
    plain, hoisted = (open_flux(folders[True], passes=each) for each in ((), PASSES))
    given = [draw(hoisted, guidance_scale=scale) for scale in (1.5, 6.0)]
    assert np.abs(given[0] - given[1]).max() > 1e-3 * np.abs(given[0]).max()
    assert_close(given[1], draw(plain, guidance_scale=6.0))


def test_a_callback_that_changes_the_conditioning_is_heeded(folders, prologue_runs):
    def forget(pipeline, index, timestep, tensors):
        return {"prompt_embeds": 0 * tensors["prompt_embeds"]} if index == 0 else {}

    settings = {
        **GUIDED,
        "num_inference_steps": 4,
        "callback_on_step_end": forget,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
    }
    hoisted = open_flux(folders[True])
    draw(hoisted)
    prologue_runs.clear()
    given = draw(hoisted, **settings)
    assert_close(given, draw(open_flux(folders[True], passes=()), **settings))
    # The prompt, the negative prompt, and once the changed prompt, for all steps that may come.
    assert prologue_runs == [(32, 4)] * 3
    unchanged = draw(hoisted, **GUIDED, num_inference_steps=4)
    assert np.abs(unchanged - given).max() > 1e-3 * np.abs(given).max()


def test_the_report_knows_every_component(folders):
    """As the command ``passes`` tries them: counted, built and proven one by one."""
    counts = {
        "denoiser": {"rotate-halves": 3, "merge-qkv": 2, "merge-qkv-mlp": 2, "hoist-invariants": 6},
        "text_encoder": {"merge-qkv": 2},
        "text_encoder_2": {"merge-qkv": 2},
        "vae_decoder": {"merge-qkv": 1, "phase-upsample": 1},
    }
    for build in open_flux(folders[True]).plan_builds(16, 24):
        with PassTester(build, measure=False) as tester:
            for each in make_all_passes():
                if not isinstance(each, LayerPass):
                    continue
                trial = tester.try_pass(each)
                wanted = counts[build.name].get(each.name, 0)
                assert (trial.matched, trial.problem, trial.skipped) == (wanted, "", {})
                assert trial.expected == (None if each.name == "channels-last" else wanted)
                assert trial.error is None if wanted == 0 else trial.error <= 1e-5
