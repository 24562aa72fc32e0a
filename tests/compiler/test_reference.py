"""The Paddle layer runs once for all builds that are compared with it, also of later processes."""

from collections import Counter

import numpy as np
import pytest
from file_powers import file_size_limit
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.compiler import proof, reference
from fastdeploy_diffusion.compiler.pass_tester import PassTester
from fastdeploy_diffusion.compiler.reference_files import ReferenceFiles
from fastdeploy_diffusion.passes.registry import choose_passes
from fastdeploy_diffusion.runtime.array_files import ArrayFiles
from fastdeploy_diffusion.runtime.cache import REFERENCES, CacheWarning

NAMES = ("text_encoder", "denoiser", "vae_decoder")
ALL = dict.fromkeys(NAMES, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture
def runs(monkeypatch):
    """How often the layer of each component has run; cleared by who reads it."""
    counted, run_layer = Counter(), reference.run_layer

    def count(program, feeds):
        counted[program.name] += 1
        return run_layer(program, feeds)

    monkeypatch.setattr(reference, "run_layer", count)
    return counted


@pytest.fixture
def build(model, runs, tmp_path):
    """Builds the model as a later process would: how often each layer ran, and the report."""

    def open_and_build(folder=model, size=32, **options):
        runs.clear()
        options = {"engine": "onnxruntime", "cache_dir": tmp_path / "cache", **options}
        with SDPipeline(DiffusionConfig(model_path=folder, **options)) as pipeline:
            report = pipeline.build(size, size)
        return dict(runs), report.components

    return open_and_build


def test_a_pass_that_changes_the_picture_has_outputs_of_its_own(build):
    assert build()[0] == ALL
    assert build(passes=["downsample-tokens"])[0] == ALL
    assert build(passes=["downsample-tokens", "merge-qkv"])[0] == {}
    assert build(passes=["merge-qkv"])[0] == {}


def test_another_engine_precision_or_pass_runs_only_what_is_new(build):
    assert build()[0] == ALL
    assert build(engine="openvino")[0] == {}
    assert build(engine="paddle")[0] == {}
    assert build(passes=["merge-qkv"])[0] == {}
    # A second input, and both of them rounded.
    ran, first = build(precision="bf16")
    assert ran == dict.fromkeys(NAMES, 3)
    assert build(precision="fp16")[0] == dict.fromkeys(NAMES, 2)
    ran, again = build(precision="bf16", passes=["fuse-silu"])
    assert ran == {}
    assert not any(each.cached for each in again)
    # Of the text encoder another output may be the worst.
    errors = [[each.rounding_error for each in report[1:]] for report in (first, again)]
    assert errors[0] == errors[1]


def test_the_accuracy_is_the_same_as_of_a_layer_that_runs(build, tmp_path):
    _, first = build(precision="bf16")
    (tmp_path / "cache" / REFERENCES).rename(tmp_path / "kept")
    for entry in (tmp_path / "cache").glob("*/proofs/*.json"):
        entry.unlink()
    ran, again = build(precision="bf16")
    assert ran == dict.fromkeys(NAMES, 4)
    assert [each.relative_error for each in again] == [each.relative_error for each in first]
    kept, new = ArrayFiles(tmp_path / "kept"), ArrayFiles(tmp_path / "cache" / REFERENCES)
    names = sorted(path.stem for path in kept.folder.iterdir())
    assert names == sorted(path.stem for path in new.folder.iterdir())
    assert len(names) == 3 * 4
    for each in names:
        for name, array in kept.find(each)[0].items():
            np.testing.assert_array_equal(array, new.find(each)[0][name])


def test_other_weights_sizes_and_code_are_other_references(build, tmp_path, monkeypatch):
    assert build()[0] == ALL
    assert build(size=64)[0] == {"denoiser": 1, "vae_decoder": 1}
    other = write_tiny_sd(tmp_path / "other", seed=1)
    assert build(other)[0] == ALL
    module = "fastdeploy_diffusion.compiler.reference_files.digest_code"
    monkeypatch.setattr(module, lambda modules: "other code")
    assert build(engine="openvino")[0] == ALL


def test_damaged_ones_are_computed_again(build, tmp_path):
    build()
    files = ArrayFiles(tmp_path / "cache" / REFERENCES)
    paths = sorted(files.folder.iterdir())
    paths[0].write_bytes(b"")
    content = bytearray(paths[1].read_bytes())
    content[-1] ^= 1
    paths[1].write_bytes(content)
    with pytest.warns(CacheWarning, match="the Paddle layer runs again, because .* is damaged"):
        ran, _ = build(engine="openvino")
    assert sum(ran.values()) == 2
    assert files.find_damage() == {}
    assert build(passes=["merge-qkv"])[0] == {}


def test_where_they_cannot_be_written_builds_are_made_all_the_same(build, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / REFERENCES).write_text("no folder")
    for engine in ("onnxruntime", "openvino"):
        with pytest.warns(
            CacheWarning, match="outputs of the Paddle layer are not kept in .*cache"
        ):
            ran, report = build(engine=engine)
        assert ran == ALL
        assert [each.relative_error is None for each in report] == [False] * 3


def test_a_full_disk_leaves_no_half_of_one(model, tmp_path):
    pipeline = SDPipeline(DiffusionConfig(model_path=model, cache_dir=tmp_path))
    planned = pipeline.plan_builds(32, 32)[-1]
    files = ReferenceFiles(tmp_path, planned.network, planned.outputs)
    outputs = {"images": np.ones((1, 3, 64, 64), np.float32)}
    with file_size_limit(1024):
        with pytest.warns(CacheWarning, match="as large as it has to be; the next build runs it"):
            files.keep("inputs", "", outputs)
        files.keep("others", "", outputs)  # which says no more
    assert files.find("inputs", "") is None
    assert list((tmp_path / REFERENCES).iterdir()) == []
    files.keep("inputs", "", outputs)
    np.testing.assert_array_equal(files.find("inputs", "")["images"], outputs["images"])
    assert files.find("inputs", "float16") is None


def test_without_a_cache_nothing_is_kept(build, tmp_path):
    for _ in range(2):
        assert build(cache=False)[0] == ALL
    assert not (tmp_path / "cache").exists()


def test_trials_of_passes_use_them_too(build, model, runs, tmp_path):
    build()
    runs.clear()
    config = DiffusionConfig(model_path=model, engine="onnxruntime", cache_dir=tmp_path / "cache")
    with SDPipeline(config) as pipeline:
        denoiser = pipeline.plan_builds(32, 32)[1]
        with PassTester(denoiser, measure=False) as tester:
            trial = tester.try_pass(*(each.load() for each in choose_passes(["merge-qkv"])))
    assert trial.error is not None
    assert runs == {}


def test_a_known_reference_needs_no_memory(build, model, runs, tmp_path, monkeypatch):
    build()
    config = DiffusionConfig(model_path=model, engine="onnxruntime", cache_dir=tmp_path / "cache")
    with SDPipeline(config) as pipeline:
        for planned in pipeline.plan_builds(32, 32):
            refused = []
            monkeypatch.setattr(planned.reference, "require_room", refused.append)
            proof.require_room(planned)
            assert refused == []
        for planned in pipeline.plan_builds(64, 64)[1:]:
            refused = []
            monkeypatch.setattr(planned.reference, "require_room", refused.append)
            proof.require_room(planned)
            assert len(refused) == 1
