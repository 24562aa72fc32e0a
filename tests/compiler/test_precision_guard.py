"""Half precision cannot go black: what overflows runs in a safer one, and that is remembered."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.compiler.precision_guard import PrecisionGuard
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.placement import FallbackWarning, select_engine
from fastdeploy_diffusion.engines.plan import ComponentPlan, UnsafePrecision, find_plan
from fastdeploy_diffusion.errors import AccuracyError, CacheError, EngineError, NonFiniteError
from fastdeploy_diffusion.images import read_metadata
from fastdeploy_diffusion.requests.request import make_request
from fastdeploy_diffusion.runtime.cache import ArtifactCache, CacheWarning
from fastdeploy_diffusion.runtime.cache_entry import CacheKey

REQUEST = {"seed": 5, "num_inference_steps": 2, "output_type": "np"}
# What only the decoder is to show.
OTHERS = {"text_encoder": {"precision": "fp32"}, "denoiser": {"precision": "fp32"}}


def write_model(folder, scale):
    """A model whose decoder has values ``scale`` times as large between two convolutions."""
    file = write_tiny_sd(folder) / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for part in ("weight", "bias"):
        weights[f"post_quant_conv.{part}"] = weights[f"post_quant_conv.{part}"] * np.float32(scale)
    weights["decoder.conv_in.weight"] = weights["decoder.conv_in.weight"] / np.float32(scale)
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def open_pipeline(model, cache, **options):
    choice = {"engine": "onnxruntime", "cache_dir": cache, **OTHERS, **options}
    return SDPipeline(DiffusionConfig(model_path=model, **choice))


def psnr(given, wanted):
    return -10 * np.log10(np.mean((given - wanted) ** 2) + 1e-20)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Within fp16 on the inputs of the proof, and beyond it on larger latents."""
    return write_model(tmp_path_factory.mktemp("checkpoint") / "model", 1e3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def request_(model, cache):
    """A request that overflows fp16, and what float32 draws for it."""
    latents = 30 * np.random.default_rng(3).standard_normal((1, 4, 16, 16)).astype("float32")
    request = {**REQUEST, "latents": latents}
    return request, open_pipeline(model, cache).text_to_image("a cat", **request)


def test_a_run_that_overflows_is_repeated_and_remembered(model, cache, request_):
    request, wanted = request_
    pipeline = open_pipeline(model, cache, precision="fp16")
    report = pipeline.build().components[2]
    assert (report.precision, report.fallback) == ("fp16", None)
    assert report.tolerance == 2 * report.rounding_error
    problem = (
        r"onnxruntime on cpu in fp16 is not safe \(vae_decoder: .* NaN .* in bf16 runs instead"
    )
    with pytest.warns(FallbackWarning, match=problem):
        given = pipeline.text_to_image("a cat", **request)
    assert psnr(given, wanted) >= 50
    (image,) = pipeline.generate(make_request("a cat", {**request, "output_type": "pil"})).images
    run = read_metadata(image)["run"]["components"]["vae_decoder"]
    report = pipeline.report.components[2]
    for precision, fallback in (
        (run["precision"], run["fallback"]),
        (report.precision, report.fallback),
    ):
        assert precision == "bf16"
        assert "vae_decoder: onnxruntime returned output 'images', which holds NaN" in fallback
    assert pipeline.report.fallbacks == (report.fallback,)

    # The next start does not fail first.
    with pytest.warns(FallbackWarning, match=r"is not safe \(earlier: vae_decoder: .* NaN") as said:
        later = open_pipeline(model, cache, precision="fp16")
    np.testing.assert_array_equal(later.text_to_image("a cat", **request), given)
    assert len(said) == 1
    assert [each.cached for each in later.report.components] == [True] * 3
    assert [each.precision for each in later.report.components] == ["fp32", "fp32", "bf16"]


def test_a_pinned_precision_is_an_error_and_the_session_stays(model, cache, request_):
    pipeline = open_pipeline(model, cache, vae={"precision": "fp16"})
    with pytest.raises(
        NonFiniteError, match=r"^vae_decoder: .* NaN .*; vae\.precision asks"
    ) as caught:
        pipeline.text_to_image("a cat", **request_[0])
    assert caught.value.fix.startswith("set vae.precision to bf16 or fp32")
    assert pipeline.report.fallbacks == ()
    assert np.isfinite(pipeline.text_to_image("a cat", **REQUEST)).all()


def test_a_build_that_overflows_is_made_in_a_safer_precision(tmp_path, cache):
    model = write_model(tmp_path / "model", 1e5)
    with pytest.raises(NonFiniteError, match=r"vae_decoder: .*; vae\.precision asks for just fp16"):
        open_pipeline(model, cache, vae={"precision": "fp16"}).build()
    for problem in (
        r"is not safe \(vae_decoder: .* NaN",
        r"is not safe \(earlier: vae_decoder: .* NaN",
    ):
        with pytest.warns(FallbackWarning, match=problem) as said:
            report = open_pipeline(model, cache, precision="fp16").build().components[2]
        assert len(said) == 1
        assert report.precision == "bf16"
        assert report.relative_error <= report.tolerance


@pytest.mark.slow
def test_the_model_in_the_box_draws_the_same_picture_in_half_precision():
    def draw(precision):
        config = DiffusionConfig.from_preset("shapes", engine="onnxruntime", precision=precision)
        pipeline = SDPipeline(config)
        caption = "a large red star on a blue background"
        picture = pipeline.text_to_image(caption, seed=7, num_inference_steps=4, output_type="np")
        assert [each.precision for each in pipeline.report.components] == [precision] * 3
        return picture

    exact = draw("fp32")
    for precision, least in (("fp16", 65), ("bf16", 45)):
        assert psnr(draw(precision), exact) >= least, precision


class Decisions:
    """A guard whose decisions are kept in a cache of its own."""

    def __init__(self, folder, pinned_by=None):
        self.cache, self.key = ArtifactCache(folder, 2**20), CacheKey({"plan": "part"})
        self.guard = PrecisionGuard("part", "toy", pinned_by, self.cache, lambda cache: self.key)

    @property
    def unsafe(self):
        plan = find_plan(self.cache, self.key)
        return [] if plan is None else [(each.engine, each.precision) for each in plan.unsafe]


@pytest.fixture
def decisions(tmp_path):
    return Decisions(tmp_path)


def place(precision):
    return select_engine("onnxruntime", Device("cpu"), precision, cpu_fallback=False)


WRONG = AccuracyError("part: too far", relative_error=0.5, allowed="up to 0.02")
EMPTY = NonFiniteError("part: holds NaN")


@pytest.mark.parametrize(("precision", "needed"), [("fp16", True), ("bf16", True), ("fp32", False)])
def test_a_guard_is_needed_where_a_precision_is_safer(decisions, precision, needed):
    assert decisions.guard.is_needed(place(precision)) is needed


@pytest.mark.parametrize("error", [WRONG, EMPTY])
@pytest.mark.parametrize(("precision", "safer"), [("fp16", "bf16"), ("bf16", "fp32")])
def test_a_precision_that_fails_gives_way_to_the_next_and_is_remembered(
    decisions, error, precision, safer
):
    placement = place(precision)
    with pytest.warns(FallbackWarning, match=rf"is not safe \({error.problem}\)"):
        instead = decisions.guard.retreat(placement, error)
    assert (instead.engine.name, instead.spec.precision) == ("onnxruntime", safer)
    assert instead.fallback.endswith(f"in {safer} runs instead")
    assert decisions.unsafe == [("onnxruntime", precision)]
    (entry,) = decisions.cache.entries()
    assert entry.model == "toy"


@pytest.mark.parametrize("error", [EngineError("broken"), CacheError("full"), MemoryError()])
def test_what_says_nothing_of_precision_changes_none(decisions, error):
    assert decisions.guard.retreat(place("fp16"), error) is None
    assert decisions.unsafe == []


@pytest.mark.parametrize("pinned_by", [None, "vae.precision"])
def test_float32_has_nothing_to_retreat_to(tmp_path, pinned_by):
    decisions = Decisions(tmp_path, pinned_by)
    assert decisions.guard.retreat(place("fp32"), WRONG) is None
    assert decisions.unsafe == []


def test_an_engine_without_a_safer_precision_is_not_remembered(decisions):
    placement = place("fp16")
    alone = replace(placement, spec=replace(placement.spec, device=Device("gpu", 99)))
    assert decisions.guard.retreat(alone, EMPTY) is None
    assert decisions.unsafe == []


@pytest.mark.parametrize(("precision", "fix"), [("fp16", "bf16 or fp32"), ("bf16", "fp32")])
def test_a_pinned_precision_is_the_users_own_decision(tmp_path, precision, fix):
    decisions = Decisions(tmp_path, "vae.precision")
    asks = f"vae.precision asks for just {precision}"
    with pytest.raises(AccuracyError, match=f"^part: too far; {asks}") as wrong:
        decisions.guard.retreat(place(precision), WRONG)
    assert (wrong.value.relative_error, wrong.value.allowed) == (0.5, "up to 0.02")
    with pytest.raises(NonFiniteError, match=f"^part: holds NaN; {asks}") as empty:
        decisions.guard.retreat(place(precision), EMPTY)
    assert empty.value.allowed == "a precision that its numbers fit into"
    for caught, cause in ((wrong, WRONG), (empty, EMPTY)):
        assert caught.value.__cause__ is cause
        assert caught.value.fix.startswith(f"set vae.precision to {fix};")
    assert decisions.unsafe == []


def plan_with(*precisions):
    unsafe = tuple(UnsafePrecision("onnxruntime", each, f"NaN in {each}") for each in precisions)
    return ComponentPlan("part", {}, (), unsafe)


@pytest.mark.parametrize(
    ("asked", "unsafe", "taken"),
    [
        ("fp16", (), "fp16"),
        ("fp16", ("bf16",), "fp16"),
        ("fp16", ("fp16",), "bf16"),
        ("fp16", ("bf16", "fp16"), "fp32"),
        ("bf16", ("bf16", "fp16"), "fp32"),
        ("fp32", ("fp16", "fp32"), "fp32"),
    ],
)
def test_the_first_precision_that_has_not_failed_is_taken(decisions, asked, unsafe, taken):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        placement = decisions.guard.avoid(place(asked), plan_with(*unsafe))
    assert placement.spec.precision == taken
    steps = {"fp16": 0, "bf16": 1, "fp32": 2}
    assert len(said) == steps[taken] - steps[asked]
    for each in said:
        assert "earlier: NaN in" in str(each.message)


def test_what_failed_on_another_engine_says_nothing(decisions):
    placement = place("fp16")
    plan = ComponentPlan("part", {}, (), (UnsafePrecision("openvino", "fp16", "NaN"),))
    assert decisions.guard.avoid(placement, plan) is placement


def test_without_a_plan_or_where_it_is_pinned_nothing_is_avoided(decisions, tmp_path):
    placement = place("fp16")
    assert decisions.guard.avoid(placement, None) is placement
    pinned = Decisions(tmp_path, "vae.precision").guard
    assert pinned.avoid(placement, plan_with("fp16")) is placement


def test_a_retreat_needs_no_cache():
    guard = PrecisionGuard("part", "toy", None, None, lambda cache: 1 / 0)
    with pytest.warns(FallbackWarning):
        assert guard.retreat(place("fp16"), EMPTY).spec.precision == "bf16"


def test_what_cannot_be_remembered_is_said_and_avoided_all_the_same(decisions):
    def refuse(cache):
        raise CacheError("no room", fix="free some")

    guard = replace(decisions.guard, make_key=refuse)
    with (
        pytest.warns(FallbackWarning),
        pytest.warns(CacheWarning, match="part: could not record that fp16 is unsafe: no room"),
    ):
        assert guard.retreat(place("fp16"), EMPTY).spec.precision == "bf16"
