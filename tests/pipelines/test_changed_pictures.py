"""Passes that change the picture: builds are compared with what they change, and reports say so."""

import json
import subprocess
import sys

import numpy as np
import pytest
from user_distribution import write_pass

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.cli.tune import format_explanation
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.compiler.pass_tester import PassTester
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import ConfigError, EngineError, PassError
from fastdeploy_diffusion.images import METADATA_KEY
from fastdeploy_diffusion.native.library import explain_missing_compiler
from fastdeploy_diffusion.passes.registry import choose_passes
from fastdeploy_diffusion.pipelines.opening import open_pipeline

DOWNSAMPLE = "downsample-tokens"
# Latents of 12 x 7: of 7 columns, 4 stay.
REQUEST = {"seed": 3, "num_inference_steps": 2, "output_type": "np", "width": 14, "height": 24}
NATIVE = [] if explain_missing_compiler() else ["native-attention"]
OTHERS = {
    "paddle-eager": ["merge-qkv", "merge-kv", "hoist-invariants"],
    "openvino": ["merge-qkv", "phase-upsample", "hoist-invariants", "fuse-attention", *NATIVE],
    "onnxruntime": ["merge-qkv", "hoist-invariants", "split-geglu", "fuse-attention"],
}
# A user's pass that ends each transformer block at its cross-attention.
SHORT = write_pass(
    "layer.ff.forward = lambda tokens: 0 * tokens\n        layer.short = True\n        return {}"
).replace(
    "layer.norm3.weight is not None",
    "not hasattr(layer, 'short')\n\n    changes_picture = True",
)
SPOIL = write_pass('return {WEIGHT: Derivation((WEIGHT,), f"{__name__}.spoil")}')


def open_sd(model, engine, passes, **options):
    return open_pipeline(DiffusionConfig(model_path=model, engine=engine, passes=passes, **options))


def draw(pipeline, **settings):
    return pipeline.text_to_image("a cat", **{**REQUEST, **settings})


def find_denoiser(report):
    return next(each for each in report.components if each.name == "denoiser")


@pytest.fixture(scope="module")
def changed(tiny_sd1):
    with open_sd(tiny_sd1, "paddle-eager", [DOWNSAMPLE]) as pipeline:
        return draw(pipeline)


@pytest.mark.parametrize(
    "engine",
    [pytest.param(each, marks=[pytest.mark.slow] * (each != "paddle-eager")) for each in OTHERS],
)
def test_engines_and_exact_passes_keep_the_changed_picture(engine, tiny_sd1, changed, tmp_path):
    for is_cached in (False, engine != "paddle-eager"):
        passes = [*OTHERS[engine], DOWNSAMPLE]
        with open_sd(tiny_sd1, engine, passes, cache_dir=tmp_path) as pipeline:
            picture = draw(pipeline)
            report = find_denoiser(pipeline.report)
        np.testing.assert_allclose(picture, changed, atol=1e-3)
        assert report.cached is is_cached
        assert (report.passes[DOWNSAMPLE], report.changes_picture) == (3, (DOWNSAMPLE,))
        assert report.relative_error < 1e-4


def test_the_picture_changes_and_metadata_and_reports_say_so(tiny_sd1, changed):
    with open_sd(tiny_sd1, "paddle-eager", []) as pipeline:
        assert np.abs(draw(pipeline) - changed).max() > 1e-2
        plain = draw(pipeline, output_type="pil").info
        assert find_denoiser(pipeline.report).changes_picture == ()
    with open_sd(tiny_sd1, "paddle-eager", [DOWNSAMPLE]) as pipeline:
        info = draw(pipeline, output_type="pil").info
        text = format_explanation(pipeline.report, (), as_json=False)
    components = json.loads(info[METADATA_KEY])["run"]["components"]
    assert components["denoiser"]["changes_picture"] == [DOWNSAMPLE]
    assert "changes_picture" not in components["vae_decoder"]
    assert "changes_picture" not in plain[METADATA_KEY]
    assert text.count(f"another picture, as asked for, by: {DOWNSAMPLE}") == 1
    assert text.count(f"of the Paddle layer with {DOWNSAMPLE}") == 1


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_one_build_has_its_numbers_at_every_size(engine, tiny_sd1, changed, tmp_path):
    shapes = {"batch": [1, 2, 6], "height": [16, 32, 48], "width": [8, 32, 64]}
    options = {"enable_dynamic_shape": True, "shapes": shapes, "cache_dir": tmp_path}
    passes = [each for each in OTHERS[engine] if each != "phase-upsample"] + [DOWNSAMPLE]
    with open_sd(tiny_sd1, engine, passes, **options) as pipeline:
        np.testing.assert_allclose(draw(pipeline), changed, atol=1e-3)
        given = draw(pipeline, width=32, height=18)
    with open_sd(tiny_sd1, "paddle-eager", [DOWNSAMPLE]) as pipeline:
        np.testing.assert_allclose(given, draw(pipeline, width=32, height=18), atol=1e-3)


@pytest.mark.slow
def test_a_bundle_draws_it_and_says_so(tiny_sd1, tmp_path):
    with open_sd(tiny_sd1, "openvino", [DOWNSAMPLE], cache_dir=tmp_path / "cache") as pipeline:
        wanted = draw(pipeline)
        write_bundle(pipeline, [(14, 24)], tmp_path / "bundle")
    with open_pipeline(DiffusionConfig(model_path=tmp_path / "bundle")) as pipeline:
        np.testing.assert_array_equal(draw(pipeline), wanted)
        assert find_denoiser(pipeline.report).changes_picture == (DOWNSAMPLE,)


def test_a_trial_of_a_pass_is_compared_with_what_it_changes(tiny_sd1):
    """Whatever the pipeline's own passes are: a pass alone is compared with a layer of its own."""
    for own in ([], [DOWNSAMPLE]):
        with open_sd(tiny_sd1, "paddle-eager", own) as pipeline:
            (build,) = (each for each in pipeline.plan_builds() if each.name == "denoiser")
        with PassTester(build, measure=False) as tester:
            for name in (DOWNSAMPLE, "merge-qkv"):
                (trial,) = map(tester.try_pass, choose_passes([name]))
                assert (trial.problem, trial.changes_picture) == ("", name == DOWNSAMPLE)
                assert trial.error < 1e-5


def test_a_fallback_keeps_the_picture_that_was_asked_for(tiny_sd1):
    with open_sd(tiny_sd1, "onnxruntime", ["merge-qkv", DOWNSAMPLE]) as pipeline:
        placer = pipeline.component("denoiser").placer
        with pytest.warns(FallbackWarning, match="it broke"):
            assert placer.fall_back(EngineError("it broke"))
        assert placer.placement.engine.name != "onnxruntime"
        assert placer.name_passes() == (DOWNSAMPLE,)


@pytest.mark.slow
def test_a_kept_build_loads_without_the_pass(tiny_sd1, tmp_path):
    """Its class imports Paddle, which a warm start does not."""
    options = {"cache_dir": tmp_path}
    with open_sd(tiny_sd1, "onnxruntime", [DOWNSAMPLE], **options) as pipeline:
        pipeline.build()
    script = (
        "import sys\nfrom fastdeploy_diffusion import DiffusionConfig, SDPipeline\n"
        f"config = DiffusionConfig(model_path={str(tiny_sd1)!r}, engine='onnxruntime', "
        f"passes=[{DOWNSAMPLE!r}], cache_dir={str(tmp_path)!r})\n"
        "report = SDPipeline(config).build()\n"
        "print({each.cached for each in report.components}, 'paddle' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "{True} False\n"


def test_a_users_pass_may_change_the_picture_and_is_first(install, tiny_sd1):
    install(SHORT, {"fold-norm": "FoldNorm"})
    chosen = choose_passes(["merge-qkv", "fold-norm", DOWNSAMPLE])
    assert [each.name for each in chosen] == [DOWNSAMPLE, "fold-norm", "merge-qkv"]
    with open_sd(tiny_sd1, "paddle-eager", ["merge-qkv", "fold-norm"]) as pipeline:
        pipeline.build()
        assert find_denoiser(pipeline.report).changes_picture == ("fold-norm",)


def test_an_exact_pass_beside_it_is_still_held_to_the_numbers(install, tiny_sd1):
    install(SPOIL, {"fold-norm": "FoldNorm"})
    with (
        open_sd(tiny_sd1, "paddle-eager", [DOWNSAMPLE, "merge-qkv", "fold-norm"]) as pipeline,
        pytest.raises(PassError, match=r"the pass fold-norm .* fails its check on denoiser"),
    ):
        pipeline.build()


def test_a_graph_pass_that_changes_the_picture_is_refused(install):
    code = """
from fastdeploy_diffusion.passes import GraphPass


class Blur(GraphPass):
    name = "blur"
    sites = None
    changes_picture = True

    def make_rules(self, dialect):
        return []
"""
    install(code, {"blur": "Blur"})
    with pytest.raises(PassError, match=r"blur.* changes the picture, and is no layer pass"):
        choose_passes(["blur"])


def test_flux_has_nothing_to_change(tiny_dev):
    with pytest.raises(ConfigError, match="downsample-tokens, which would change nothing") as e:
        open_pipeline(DiffusionConfig(model_path=tiny_dev, passes=["merge-qkv", DOWNSAMPLE]))
    assert e.value.fix == "leave it out"
