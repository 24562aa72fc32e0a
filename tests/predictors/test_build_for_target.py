"""Builds for GPUs that are elsewhere: made, kept, said to be unchecked, and never run here."""

import importlib.util
import shutil
import warnings
from dataclasses import replace

import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.compiler.build import UncheckedWarning
from fastdeploy_diffusion.criteria import LargestError
from fastdeploy_diffusion.engines.nvidia_driver import list_gpus
from fastdeploy_diffusion.errors import AccuracyError, CacheError, EngineUnavailableError
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.cache import ArtifactCache, CacheWarning

REASON = "this machine has no NVIDIA GPU"

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason='tensorrt_rtx is not installed: pip install "fastdeploy-diffusion[tensorrt-rtx]"',
)
without_gpu = pytest.mark.skipif(bool(list_gpus()), reason="this machine has an NVIDIA GPU")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def built(model, tmp_path_factory):
    """A configuration whose text encoder alone is for a target, and the folder of its builds."""
    folder = tmp_path_factory.mktemp("cache")
    return DiffusionConfig(
        model_path=model,
        cache_dir=folder,
        target="sm86",
        text_encoder={"engine": "tensorrt", "device": "gpu"},
    ), folder


def prepare(config):
    """Build; give the components' reports and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        pipeline = SDPipeline(config)
        report = pipeline.build()
    return (
        pipeline,
        report.components,
        [each for each in caught if each.category is not UserWarning],
    )


@needs_rtx
@without_gpu
def test_a_build_for_a_target_is_kept_and_said_to_be_unchecked(built):
    config, folder = built
    for is_cached in (False, True):
        pipeline, components, caught = prepare(config)
        text_encoder, *others = components
        assert (text_encoder.engine, text_encoder.device) == ("tensorrt", "gpu:0")
        assert (text_encoder.target, text_encoder.cached) == ("sm86", is_cached)
        assert (text_encoder.relative_error, text_encoder.unchecked) == (None, REASON)
        # A target is for what is on a GPU: the others run here, and are proven.
        assert all(each.relative_error <= each.tolerance for each in others)
        assert [(each.target, each.unchecked) for each in others] == [(None, None)] * 2
        assert [each.category for each in caught] == [UncheckedWarning]
        assert str(caught[0].message) == (
            f"text_encoder: the build for sm86 is not compared with the Paddle layer: {REASON}"
        )
        with pytest.raises(EngineUnavailableError, match="text_encoder is built for sm86 and does"):
            pipeline.text_to_image("a cat")
    entries = ArtifactCache(folder, limit=0).entries()
    proofs = {each.ingredients["component"]: each.list_proofs() for each in entries}
    assert {name: len(each) for name, each in proofs.items()} == {
        "text_encoder": 0, "denoiser": 1, "vae_decoder": 1
    }  # fmt: skip


@needs_rtx
@without_gpu
def test_nothing_takes_the_place_of_a_build_that_is_not_kept(model, tmp_path):
    (tmp_path / "file").touch()
    config = DiffusionConfig(
        model_path=model,
        cache_dir=tmp_path / "file" / "cache",
        target="sm86",
        text_encoder={"engine": "tensorrt", "device": "gpu"},
    )
    with pytest.raises(CacheError, match="cannot be written"):
        SDPipeline(config).build()


def test_a_target_that_no_engine_builds_for_is_an_error(model):
    config = DiffusionConfig(model_path=model, device="gpu", engine="openvino", target="sm86")
    with pytest.raises(EngineUnavailableError, match=r"openvino on gpu:0 .* cannot be built here"):
        SDPipeline(config)


def strike_out_proofs(folder):
    """Leave the builds as if they had been made where they could not be checked."""
    for proofs in folder.glob("*/proofs"):
        shutil.rmtree(proofs)


def test_the_first_machine_that_can_proves_an_unchecked_build(model, tmp_path):
    config = DiffusionConfig(model_path=model, cache_dir=tmp_path / "cache")
    _, before, _ = prepare(config)
    strike_out_proofs(tmp_path / "cache")
    for _ in range(2):
        _, after, caught = prepare(config)
        assert caught == []
        assert [each.cached for each in after] == [True] * 3
        assert [each.unchecked for each in after] == [None] * 3
        assert all(each.relative_error <= each.tolerance for each in after)
    assert [each.relative_error for each in after] == [each.relative_error for each in before]
    assert len(list((tmp_path / "cache").glob("*/proofs/*.json"))) == 3


def test_an_unchecked_build_with_wrong_numbers_is_made_again(model, tmp_path, monkeypatch):
    config = DiffusionConfig(model_path=model, cache_dir=tmp_path / "cache")
    prepare(config)
    strike_out_proofs(tmp_path / "cache")
    # As on a machine where no build comes near the layer.
    none_is_near = replace(PRECISIONS["fp32"], criterion=LargestError(0.0))
    precisions = "fastdeploy_diffusion.compiler.proof.PRECISIONS"
    monkeypatch.setattr(precisions, {"fp32": none_is_near})
    with (
        pytest.warns(CacheWarning, match="made again, because it does not load: .* differs"),
        pytest.raises(AccuracyError),
    ):
        SDPipeline(config).build()
