"""A component's builds are kept, found again, and made again when they should be."""

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest
from file_powers import plain_user
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.checkpoints import TensorSource
from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.rewriting import RewrittenNetwork
from fastdeploy_diffusion.criteria import LargestError
from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.engines.openvino import read_capabilities
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.passes.registry import choose_passes, make_all_passes, pass_names
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.runtime.cache import CacheWarning

ENGINES = ("paddle", "openvino", "onnxruntime")
NOTES = {"locks", "digests", "references"}  # beside the builds


def draw(model, cache_dir, engine="paddle", **options):
    """Draw one small picture; also tell which components came from the cache."""
    config = DiffusionConfig(model_path=model, cache_dir=cache_dir, engine=engine, **options)
    pipeline = SDPipeline(config)
    picture = pipeline.text_to_image("a cat", seed=1, num_inference_steps=2, output_type="np")
    components = pipeline.report.components
    pipeline.close()
    assert all(each.relative_error <= each.tolerance for each in components)
    return picture, [each.cached for each in components]


@pytest.fixture
def model(tmp_path):
    return write_tiny_sd(tmp_path / "model")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The picture of such a model, and where its builds are kept."""
    folder = tmp_path_factory.mktemp("kept")
    picture, cached = draw(write_tiny_sd(folder / "model"), folder / "cache")
    assert cached == [False] * 3
    return picture, folder / "cache"


@pytest.fixture
def cache(kept, tmp_path):
    """A copy of those builds, to change."""
    return shutil.copytree(kept[1], tmp_path / "cache")


@pytest.mark.parametrize(
    ("engine", "passes"),
    [
        ("paddle", []),
        ("openvino", ["merge-qkv", "hoist-invariants"]),
        ("onnxruntime", []),
    ],
)
def test_the_second_start_neither_builds_nor_checks(engine, passes, model, tmp_path, monkeypatch):
    notes = []
    load = Engine.load

    def load_and_note(self, program, spec, artifact):
        notes.append(spec.notes)
        return load(self, program, spec, artifact)

    monkeypatch.setattr(Engine, "load", load_and_note)
    first, cached = draw(model, tmp_path / "cache", engine, passes=passes)
    assert cached == [False] * 3

    def refuse(self):
        raise AssertionError("the second start made the layer")

    monkeypatch.setattr(Network, "load", refuse)
    monkeypatch.setattr(Network, "sketch", refuse)
    second, cached = draw(model, tmp_path / "cache", engine, passes=passes)
    assert cached == [True] * 3
    np.testing.assert_array_equal(first, second)
    # Both starts know where an engine may leave notes.
    assert set(notes) == {tmp_path / "cache"}


@pytest.mark.parametrize(
    ("engine", "passes", "cached"),
    [
        ("paddle", ["merge-qkv"], False),
        ("openvino", ["merge-qkv"], True),
        ("openvino", [], False),
        ("onnxruntime", [], True),
    ],
)
def test_no_layer_is_in_memory_when_a_session_loads(
    engine, passes, cached, model, tmp_path, monkeypatch
):
    layers, left = weakref.WeakSet(), []

    def remember(load):
        def load_and_remember(self):
            layers.add(layer := load(self))
            return layer

        return load_and_remember

    def look_and_load(self, program, spec, artifact):
        gc.collect()
        left.append(len(layers))
        return load_session(self, program, spec, artifact)

    load_session = Engine.load
    monkeypatch.setattr(Engine, "load", look_and_load)
    for each in (Network, RewrittenNetwork):
        monkeypatch.setattr(each, "load", remember(each.load))
    draw(model, tmp_path / "cache", engine, passes=passes, cache=cached)
    assert left == [0] * 3


def test_openvino_keeps_the_weights_of_a_build_where_there_is_room(model, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    wanted, _ = draw(model, cache / "with", "openvino", passes=["merge-qkv"])
    assert list(cache.glob("with/weights/*.npy"))

    def fill(file, array, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as change:
        change.setattr("fastdeploy_diffusion.runtime.weight_store.np.save", fill)
        with pytest.warns(CacheWarning, match="of this build are not kept beside it, .*: they ta"):
            draw(model, cache / "without", "openvino", passes=["merge-qkv"])
        assert not list(cache.glob("without/weights/*.*"))
        with pytest.warns(CacheWarning, match="no space left in .*; make room"):
            picture, cached = draw(model, cache / "without", "openvino", passes=["merge-qkv"])
    assert cached == [True] * 3
    np.testing.assert_array_equal(picture, wanted)


def test_sizes_and_engines_have_their_weights_in_common(model, tmp_path):
    def draw_with(engine, height):
        config = DiffusionConfig(
            model_path=model,
            cache_dir=tmp_path / "cache",
            engine=engine,
            passes=["merge-qkv", "winograd-4x4", "phase-upsample"],
        )
        with SDPipeline(config) as pipeline:
            pipeline.text_to_image("a cat", seed=1, num_inference_steps=1, height=height)
        return {file.name for file in (tmp_path / "cache/weights").glob("*.npy")}

    computed = draw_with("onnxruntime", 64)
    assert computed
    everything = draw_with("openvino", 64)
    assert computed < everything
    assert draw_with("openvino", 128) == draw_with("onnxruntime", 128) == everything


def test_weights_are_hashed_once(model, tmp_path, monkeypatch):
    config = DiffusionConfig(model_path=model, cache_dir=tmp_path / "cache", engine="openvino")
    hashed = []
    digest = TensorSource.digest
    monkeypatch.setattr(
        TensorSource, "digest", lambda self: (hashed.append(self.origin), digest(self))[1]
    )
    for path in model.rglob("*.safetensors"):
        os.utime(path, (1, 1))
    monkeypatch.setattr("fastdeploy_diffusion.predictors.digest_memo._SETTLED_NANOSECONDS", -1)
    for _ in range(2):
        SDPipeline(config).build()
        assert len(hashed) == 3
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + bytes(4))
    os.utime(weights, (1, 1))  # the same size and the same time of change: the inode's own tells
    report = SDPipeline(config).build()
    assert len(hashed) == 4
    assert [each.cached for each in report.components] == [True] * 3
    # The graph is the same; its numbers are proven anew.
    assert len(list((tmp_path / "cache").glob("*/proofs/*.json"))) == 4


def test_other_weights_are_another_build(model, cache, tmp_path):
    other = write_tiny_sd(tmp_path / "other", seed=1)
    picture, cached = draw(other, cache)
    assert cached == [False] * 3
    plain, cached = draw(model, cache)
    assert cached == [True] * 3
    assert not np.array_equal(picture, plain)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_other_weights_share_graphs_that_hold_none(engine, model, tmp_path):
    cache, other = tmp_path / "cache", write_tiny_sd(tmp_path / "other", seed=1)
    plain, cached = draw(model, cache, engine)
    assert cached == [False] * 3
    # Each is proven with its own weights, once.
    for proofs in (6, 6):
        picture, cached = draw(other, cache, engine)
        assert cached == [True] * 3
        assert len(list(cache.glob("*/artifact"))) == 3
        assert len(list(cache.glob("*/proofs/*.json"))) == proofs
    wanted, cached = draw(other, tmp_path / "another cache", engine)
    assert cached == [False] * 3
    np.testing.assert_array_equal(picture, wanted)
    assert not np.array_equal(picture, plain)


needs_bf16 = pytest.mark.skipif(
    "BF16" not in read_capabilities(), reason="this CPU has no instructions for bf16"
)


@needs_bf16
def test_precisions_share_graphs_that_no_precision_is_in(model, tmp_path):
    cache = tmp_path / "cache"
    assert draw(model, cache, "openvino", passes=[])[1] == [False] * 3
    for _ in range(2):
        picture, cached = draw(model, cache, "openvino", passes=[], precision="bf16")
        assert cached == [True] * 3
        assert len(list(cache.glob("*/artifact"))) == 3
        assert len(list(cache.glob("*/proofs/*.json"))) == 6
    wanted, _ = draw(model, tmp_path / "other", "openvino", passes=[], precision="bf16")
    np.testing.assert_array_equal(picture, wanted)


@needs_bf16
def test_a_precision_that_fails_on_a_proven_graph_leaves_it_in_its_place(
    model, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    plain, _ = draw(model, cache, "openvino", passes=[])
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*/artifact/*")}
    nothing_is_near = replace(PRECISIONS["bf16"], criterion=LargestError(0.0))
    precisions = "fastdeploy_diffusion.compiler.proof.PRECISIONS"
    monkeypatch.setattr(precisions, {**PRECISIONS, "bf16": nothing_is_near})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture, cached = draw(model, cache, "openvino", passes=[], precision="bf16")
    assert cached == [True] * 3
    assert [each.category for each in caught] == [FallbackWarning] * 3
    assert "openvino on cpu in fp32 runs instead" in str(caught[0].message)
    np.testing.assert_array_equal(picture, plain)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*/artifact/*")} == before
    assert len(list(cache.glob("*/proofs/*.json"))) == 3


def test_the_code_of_a_build_is_that_of_its_network_and_its_passes():
    network = Network(
        "fastdeploy_diffusion.models.unet:UNet2DConditionModel",
        None,
        TensorSource("unet", {}),
        wrap=defer("fastdeploy_diffusion.models.components:LatentDecoder"),
    )
    chosen = tuple(choose_passes(["merge-kv", "fuse-silu"]))
    build = ComponentBuild("unet", None, network, None, chosen, {}, (), ())
    room = "fastdeploy_diffusion"
    assert set(build.code) == {
        f"{room}.compiler.artifact",
        f"{room}.models.unet",
        f"{room}.models.components",
        f"{room}.passes.layer.merge_projections",
        f"{room}.passes.graph.fuse_silu",
    }


def test_a_damaged_build_is_made_again(model, kept, cache):
    for file in cache.glob("*/artifact/program.pdiparams"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    picture, cached = draw(model, cache)
    assert cached == [False] * 3
    np.testing.assert_array_equal(picture, kept[0])
    assert draw(model, cache)[1] == [True] * 3


def test_a_build_that_does_not_load_is_made_again(model, cache):
    for file in cache.glob("*/entry.json"):
        # As if the runtime had changed its mind on what it had built itself.
        entry = json.loads(file.read_text())
        manifest = file.parent / "artifact" / "manifest.json"
        manifest.unlink()
        del entry["files"]["manifest.json"]
        file.write_text(json.dumps(entry))
    with pytest.warns(CacheWarning, match="does not load") as said:
        _, cached = draw(model, cache)
    assert cached == [False] * 3
    assert len(said) == 3  # each is tried once
    assert draw(model, cache)[1] == [True] * 3


def test_a_folder_that_cannot_be_written_is_a_warning(model, tmp_path):
    (tmp_path / "file").touch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, cached = draw(model, tmp_path / "file" / "cache")
    assert cached == [False] * 3
    assert {each.category for each in caught} == {CacheWarning}
    said = [str(each.message) for each in caught]
    builds = [each for each in said if "this build is not kept: " in each]
    assert [each.partition(":")[0] for each in builds] == [
        "text_encoder",
        "denoiser",
        "vae_decoder",
    ]
    assert all("cannot be written" in each for each in builds)
    others = [each for each in said if each not in builds]
    assert len(others) == 3
    assert all(each.startswith("outputs of the Paddle layer are not kept") for each in others)


@pytest.mark.parametrize("has_locks", [True, False])
def test_a_read_only_cache_is_read(model, kept, cache, has_locks):
    if not has_locks:  # as one that was copied
        shutil.rmtree(cache / "locks")
    folders = [folder for folder in (cache, *cache.rglob("*")) if folder.is_dir()]
    before = {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))}
    for folder in folders:
        folder.chmod(0o500)
    with plain_user():
        with pytest.raises(PermissionError):
            (cache / "file").touch()
        picture, cached = draw(model, cache)
    for folder in folders:
        folder.chmod(0o700)
    assert cached == [True] * 3
    np.testing.assert_array_equal(picture, kept[0])
    # Files may be touched, whose times tell of their use.
    after = {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))}
    assert {path for path in before if before[path] != after.pop(path)} <= set(
        cache.glob("*/entry.json")
    )
    assert after == {}


PUBLISH_AND_DIE = """
import os, pathlib, signal, sys
from fastdeploy_diffusion import DiffusionConfig, SDPipeline

def rename(path, to, rename=pathlib.Path.rename):
    if path.suffix == ".staged":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, to)

pathlib.Path.rename = rename
config = DiffusionConfig(model_path=sys.argv[1], cache_dir=sys.argv[2], engine="paddle")
SDPipeline(config).build()
"""


def test_a_build_that_is_killed_while_it_is_published_is_whole(model, kept, tmp_path):
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", PUBLISH_AND_DIE, str(model), str(cache)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [path.suffix for path in cache.iterdir() if path.name not in NOTES] == [".staged"]
    picture, cached = draw(model, cache)
    # The first was finished, and is published now.
    assert cached == [True, False, False]
    np.testing.assert_array_equal(picture, kept[0])
    assert [path.suffix for path in cache.iterdir() if path.name not in NOTES] == [""] * 3
    assert draw(model, cache)[1] == [True] * 3


def test_the_cache_can_be_turned_off(model, tmp_path):
    for _ in range(2):
        assert draw(model, tmp_path / "cache", cache=False)[1] == [False] * 3
    assert not (tmp_path / "cache").exists()


ALL = ["merge-qkv", "merge-kv", "phase-upsample"]


@pytest.mark.parametrize("engine", ENGINES)
def test_passes_rewrite_what_the_config_promises_and_keep_the_picture(engine, model, tmp_path):
    plain, _ = draw(model, tmp_path / "cache", engine, passes=[])
    config = DiffusionConfig(
        model_path=model, cache_dir=tmp_path / "cache", engine=engine, passes=ALL
    )
    for is_cached in (False, True):
        pipeline = SDPipeline(config)
        picture = pipeline.text_to_image("a cat", seed=1, num_inference_steps=2, output_type="np")
        components = pipeline.report.components
        pipeline.close()
        assert [each.cached for each in components] == [is_cached] * 3
        counts = {each.name: tuple(each.passes[name] for name in ALL) for each in components}
        assert counts == {
            "text_encoder": (2, 0, 0),
            "denoiser": (4, 4, 1),
            "vae_decoder": (1, 0, 1),
        }
        assert -10 * np.log10(np.mean((picture - plain) ** 2)) >= 80


def test_an_unknown_pass_is_explained(model):
    with pytest.raises(ConfigError, match="did you mean 'merge-qkv'"):
        DiffusionConfig(model_path=model, passes=["merge-qvk"])
    with pytest.raises(ConfigError, match="passes is"):
        DiffusionConfig(model_path=model, passes=[3])


def test_passes_are_found_by_their_names():
    assert tuple(each.name for each in make_all_passes()) == pass_names()
    assert [each.name for each in choose_passes(ALL[::-1])] == ALL
    with pytest.raises(ConfigError, match="there is no pass 'merge'"):
        choose_passes(["merge"])
