"""Half precision cannot go black: what overflows runs in a safer one, and that is remembered."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import NonFiniteError
from fastdeploy_diffusion.images import read_metadata
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.requests.keyword_request import make_request

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
    assert (report.precision, report.fallback, report.tolerance) == ("fp16", None, 2e-2)
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
        assert report.relative_error <= report.tolerance == PRECISIONS["bf16"].tolerance


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
