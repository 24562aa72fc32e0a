"""One build serves every size in a range, with the numbers of the layer at each."""

import warnings

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline
from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.engines.accuracy import draw_feeds
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.runtime.program import fill_shapes
from fastdeploy_diffusion.size_range import SizeRange, choose_size

PASSES = ("merge-qkv", "merge-kv", "phase-upsample", "hoist-invariants")
SHAPES = {"batch": [1, 2, 6], "height": [16, 32, 48], "width": [16, 32, 64]}
# Pictures, height, width: latents of even and odd sizes, upright and across.
SIZES = ((1, 32, 32), (3, 18, 44), (1, 38, 16))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


def open_pipeline(model, **options):
    given = {"enable_dynamic_shape": True, "shapes": SHAPES, "cpu_fallback": False, **options}
    return SDPipeline(DiffusionConfig(model_path=model, **given))


@pytest.fixture
def opened(monkeypatch):
    """The names of the components that were built or loaded."""
    names, open_build = [], ComponentBuild.open

    def record(build, cache):
        names.append(build.name)
        return open_build(build, cache)

    monkeypatch.setattr(ComponentBuild, "open", record)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("passes", [(), PASSES], ids=["plain", "with passes"])
@pytest.mark.parametrize("engine", ["paddle", "openvino", "onnxruntime"])
def test_one_build_has_the_layers_numbers_at_every_size(engine, passes, model, opened):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "with enable_dynamic_shape, the pass phase-upsample")
        pipeline = open_pipeline(model, engine=engine, passes=list(passes), cache=False)
    scale = pipeline._limits.multiple
    pipeline.build()
    parts = pipeline._list_parts(pipeline._plan(_request()))
    for component, signature, _ in parts:
        build = component.plan(signature)
        reference = build.reference.load()
        with component.lend(signature, keep=True) as session:
            for seed, (pictures, height, width) in enumerate(SIZES):
                sizes = {"batch": 2 * pictures, "height": height // scale, "width": width // scale}
                shapes = fill_shapes(build.inputs, sizes)
                feeds = draw_feeds(build.name, build.inputs, seed, build.generators, shapes)
                given, wanted = session.run(**feeds), run_layer(reference, feeds)
                for name, array in wanted.items():
                    error = np.abs(given[name] - array).max() / np.abs(array).max()
                    assert error <= 1e-5, (component.name, name, height, width)
    pipeline.text_to_image("a cat", height=18, width=44, num_inference_steps=2, seed=1)
    assert opened == ["text_encoder", "denoiser", "vae_decoder"]


def test_pictures_are_those_of_builds_of_their_own(model):
    request = {"seed": 5, "num_inference_steps": 2, "output_type": "np"}
    one = open_pipeline(model, engine="paddle", cache=False)
    many = SDPipeline(DiffusionConfig(model_path=model, engine="paddle-eager"))
    size = {"height": 18, "width": 44, "num_images_per_prompt": 2}
    given, wanted = (each.text_to_image("a cat", **request, **size) for each in (one, many))
    assert given.shape == (2, 18, 44, 3)
    assert np.abs(given - wanted).max() <= 1e-4


def test_one_build_reads_prompts_of_every_length_in_the_range(model, opened):
    shapes = {**SHAPES, "chunks": [1, 1, 3]}
    asked = {"seed": 5, "num_inference_steps": 2, "output_type": "np", "prompt_syntax": "weighted"}
    one = open_pipeline(model, engine="onnxruntime", shapes=shapes, cache=False)
    own = SDPipeline(DiffusionConfig(model_path=model, engine="paddle-eager"))
    for prompt in ("a (cat)", "a (cat) BREAK on mars", "a BREAK (cat) BREAK on mars"):
        given, wanted = (each.text_to_image(prompt, **asked) for each in (one, own))
        assert np.abs(given - wanted).max() <= 1e-4
    assert opened.count("denoiser") == 1 + 3  # the eager layer has one for each length
    with pytest.raises(RequestError, match="take 4 chunks"):
        one.text_to_image("a BREAK cat BREAK on BREAK mars", **asked)


def test_the_ranges_are_in_the_key(model, tmp_path):
    keys = []
    for largest in (48, 48, 64):
        shapes = {**SHAPES, "height": [16, 32, largest]}
        builds = open_pipeline(model, engine="onnxruntime", shapes=shapes).plan_builds()
        keys.append([build.find_keys(tmp_path)[0] for build in builds])
    assert [key.digest for key in keys[0]] == [key.digest for key in keys[1]]
    differ = [one.digest != other.digest for one, other in zip(*keys[1:], strict=True)]
    assert differ == [False, True, True]  # the text encoder serves both ranges
    latents = [["batch", 1, 2, 6], 4, ["height", 8, 16, 24], ["width", 8, 16, 32]]
    assert keys[0][1].ingredients["signature"]["inputs"][0] == ["sample", latents, "float32"]


@pytest.mark.parametrize(
    ("settings", "problem", "allowed"),
    [
        ({"height": 64}, "height is 64", "16 to 48"),
        ({"width": 12}, "width is 12", "16 to 64"),
        ({"num_images_per_prompt": 4}, "8 rows of the denoiser", "1 to 6"),
    ],
)
def test_what_is_out_of_range_is_refused(settings, problem, allowed, model):
    with pytest.raises(RequestError, match=problem) as caught:
        open_pipeline(model).text_to_image("a cat", **settings)
    assert caught.value.allowed.startswith(allowed)
    assert "shapes." in caught.value.fix


def test_a_pass_that_stays_without_effect_is_said(model):
    with pytest.warns(UserWarning, match="skips the denoiser's upsamplers"):
        open_pipeline(model, passes=["phase-upsample"])


def test_the_ranges_go_by_the_model_where_nothing_is_said(model):
    pipeline = open_pipeline(model, shapes={"width": 16})
    ranges = pipeline._limits.ranges
    assert (ranges.height.min, ranges.height.opt, ranges.height.max) == (8, 16, 24)
    assert str(ranges.width) == "8 to 8"
    assert str(ranges.batch) == "1 to 8"
    # Without a size, a picture has the one that the builds are tuned for.
    assert pipeline._plan(_request()).latent_shape == (4, 16, 8)


def test_a_range_must_fit_the_model(model):
    with pytest.raises(ConfigError, match=r"shapes.height has 17") as caught:
        open_pipeline(model, shapes={"height": [16, 17, 32]})
    assert caught.value.allowed == "multiples of 2"


def test_what_is_measured_has_the_size_asked_for(model):
    pipeline = open_pipeline(model)
    plan = pipeline._plan(GenerationRequest(prompt="", height=18, width=44))
    _, (denoiser, signature, sizes), _ = pipeline._list_parts(plan)
    assert denoiser.plan(signature, sizes).draw_feeds()["sample"].shape == (2, 4, 9, 22)
    assert denoiser.plan(signature).draw_feeds()["sample"].shape == (2, 4, 16, 16)


@pytest.mark.parametrize(("name", "wanted"), [("batch", 3), ("other", 5), ("too large", 8)])
def test_a_size_is_chosen_within_its_range(name, wanted):
    sizes = {"batch": 3, "too large": 100}
    assert choose_size(SizeRange(name, 1, 5, 8), sizes) == wanted
    assert (choose_size(None, sizes), choose_size(7, sizes)) == (3, 7)


def _request():
    return GenerationRequest(prompt="")
