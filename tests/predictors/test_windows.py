"""Decoders and encoders in windows, with norms over the whole, give the numbers of the whole."""

import tempfile

import numpy as np
import pytest
from tiled_networks import draw_inputs, plan, write_vae

from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.tiled_build import TiledBuild
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.errors import ConfigError, DiskFullError
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.passes.registry import choose_passes
from fastdeploy_diffusion.runtime import feature_map
from fastdeploy_diffusion.runtime.cache import ArtifactCache

SD = {"block_out_channels": [8, 12], "norm_num_groups": 4, "layers_per_block": 1}
FLUX = {
    "block_out_channels": [6],
    "norm_num_groups": 3,
    "layers_per_block": 1,
    "latent_channels": 5,
    "mid_block_add_attention": False,
    "use_post_quant_conv": False,
    "shift_factor": 0.3,
    "scaling_factor": 0.7,
}
THREE_LEVELS = {"block_out_channels": [4, 6, 8], "norm_num_groups": 2, "use_quant_conv": False}


@pytest.fixture(scope="module", autouse=True)
def small_windows():
    """Windows of 8 x 8, and 32 queries at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderKLConfig, "window", 8)
        patch.setattr(AutoencoderKLConfig, "queries", 32)
        yield


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A decoder, the folder of its builds, and its build for 13 x 19."""
    folder = tmp_path_factory.mktemp("tiled")
    network, cache = write_vae(folder, SD), ArtifactCache(folder / "cache", 2**30)
    build = plan(TiledBuild, network, 13, 19)
    return network, cache, build, build.open(cache)


def assert_is_whole(built, build, batch=1):
    (taken,), (name,) = build.inputs, (each.name for each in build.outputs)
    feeds = {taken.name: draw_inputs(build, batch)}
    given = built.session.run(**feeds)[name]
    wanted = run_layer(build.reference.load(), feeds)[name]
    assert given.shape == wanted.shape
    assert np.abs(given - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_the_picture_is_that_of_the_whole(decoder):
    _, _, build, built = decoder
    assert not built.cached
    assert built.relative_error <= 1e-4
    assert_is_whole(built, build, batch=2)


def test_pictures_of_other_sizes_have_the_same_programs(decoder):
    network, cache, *_ = decoder
    build = plan(TiledBuild, network, 8, 30)
    built = build.open(cache)
    assert built.cached
    assert_is_whole(built, build)


def test_a_decoder_without_attention_that_shifts_latents(tmp_path):
    network = write_vae(tmp_path, FLUX)
    build = plan(TiledBuild, network, 5, 17)  # less than a window high
    built = build.open(ArtifactCache(tmp_path / "cache", 2**30))
    assert_is_whole(built, build)


def test_kept_programs_are_loaded_when_they_run(decoder, monkeypatch):
    network, cache, build, _ = decoder
    opened, load = [], ComponentBuild.open

    def watch(self, cache):
        opened.append(self.name)
        return load(self, cache)

    monkeypatch.setattr(ComponentBuild, "open", watch)
    built = plan(TiledBuild, network, 13, 19).open(cache)
    assert (built.cached, opened) == (True, [])
    assert_is_whole(built, build)
    assert len(opened) == len(set(opened)) == 17


@pytest.mark.parametrize(
    ("options", "height", "width"),
    [(SD, 13, 19), (FLUX, 5, 17), (THREE_LEVELS, 9, 6)],
)
def test_encoders(tmp_path, options, height, width):
    network = write_vae(tmp_path, options, is_encoder=True)
    build = plan(TiledBuild, network, height, width)
    built = build.open(ArtifactCache(tmp_path / "cache", 2**30))
    assert built.relative_error <= 1e-4
    assert_is_whole(built, build, batch=2)


def test_no_run_sees_more_than_a_window(decoder, monkeypatch):
    *_, build, built = decoder
    read, seen = feature_map.FeatureMap.read, set()

    def watch(self, rows, columns):
        seen.add((rows[1] - rows[0], columns[1] - columns[0]))
        return read(self, rows, columns)

    monkeypatch.setattr(feature_map.FeatureMap, "read", watch)
    built.session.run(latents=draw_inputs(build, 1))
    picture = tuple(build.outputs[0].shape[2:])
    assert seen - {picture} == {(8, 8), (4, 4), (4, 8)}


def test_scratch_files_are_gone_when_the_picture_is_there(decoder, tmp_path, monkeypatch):
    *_, build, built = decoder
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    built.session.run(latents=draw_inputs(build, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(decoder, tmp_path, monkeypatch):
    *_, build, built = decoder
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(feature_map.os, "pwrite", lambda *_: 0)
    with pytest.raises(DiskFullError, match=str(tmp_path)):
        built.session.run(latents=draw_inputs(build, 1))
    assert list(tmp_path.iterdir()) == []


def test_programs_must_be_kept(decoder):
    network, *_ = decoder
    with pytest.raises(ConfigError, match="cache is false"):
        plan(TiledBuild, network, 13, 19).open(None)


def test_passes_are_applied_but_for_those_of_whole_attentions(tmp_path):
    passes = tuple(choose_passes(("phase-upsample", "merge-qkv", "fuse-silu")))
    network, cache = write_vae(tmp_path, SD), ArtifactCache(tmp_path / "cache", 2**30)
    build = plan(TiledBuild, network, 13, 19, engine="openvino", passes=passes)
    built = build.open(cache)
    whole = plan(ComponentBuild, network, 13, 19, engine="openvino", passes=passes).open(cache)
    whole.session.close()
    assert whole.passes["merge-qkv"] == 1
    assert built.passes == {
        name: count for name, count in whole.passes.items() if name != "merge-qkv"
    }
    assert built.passes["phase-upsample"] == 1
    assert_is_whole(built, build)
