"""A bundle draws what the pipeline drew that it was made of, without all that builds."""

import os
import shutil
import sys
import time

import numpy as np
import pytest
import yaml
from behind_the_wall import draw_behind_the_wall
from file_powers import small_disk

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.errors import (
    CheckpointError,
    ConfigError,
    DiskFullError,
    EngineUnavailableError,
    RequestError,
)
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.runtime import bundle, checked_files
from fastdeploy_diffusion.runtime.bundle import BUNDLE_FILE

SIZES = [(16, 16), (24, 16)]
REQUESTS = {
    "sd-openvino": {"guidance_scale": 3.0, "num_images_per_prompt": 2, "width": 24},
    "sd-onnxruntime": {},
    "sdxl-openvino": {"guidance_scale": 3.0, "original_size": (40, 56)},
    "flux-openvino": {"true_cfg_scale": 2.0, "negative_prompt": "a dog"},
}
REQUEST = {"seed": 3, "num_inference_steps": 2, "output_type": "np"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def drawn(tiny_sd1, tiny_sdxl, tiny_dev, folder):
    """Bundles by name, and what their pipelines drew where they were made."""
    models = {"sd": tiny_sd1, "sdxl": tiny_sdxl, "flux": tiny_dev}
    pictures = {}
    for name, settings in REQUESTS.items():
        family, _, engine = name.partition("-")
        defaults = {"max_sequence_length": 16} if family == "flux" else {}
        config = DiffusionConfig(model_path=models[family], engine=engine, defaults=defaults)
        with open_pipeline(config) as pipeline:
            sizes = SIZES[: 2 if name == "sd-openvino" else 1]
            write_bundle(pipeline, sizes, folder / name)
            size = {"width": 16, "height": 16}
            pictures[name] = pipeline.text_to_image("a cat", **REQUEST, **{**size, **settings})
    return pictures


def open_bundle(folder, **options):
    return open_pipeline(DiffusionConfig(model_path=folder, **options))


def test_the_pictures_are_the_same_without_what_builds(drawn, folder):
    asked = {
        str(folder / f"{name}.npy"): ({"model_path": str(folder / name)}, {**REQUEST, **settings})
        for name, settings in REQUESTS.items()
    }
    modules = draw_behind_the_wall(asked, installed=False)["modules"]
    for name, picture in drawn.items():
        np.testing.assert_array_equal(np.load(folder / f"{name}.npy"), picture, name)
    below = {"models", "passes", "compiler"}
    assert [each for each in modules if each.split(".")[1] in below] == []


def test_weights_lie_once_whatever_sizes_use_them(tiny_sd1, drawn, folder, tmp_path):
    with open_bundle_source(tiny_sd1) as pipeline:
        one = write_bundle(pipeline, SIZES[:1], tmp_path / "one")
    two = yaml.safe_load((folder / "sd-openvino" / BUNDLE_FILE).read_text())
    denoiser = one.components["denoiser"]
    assert [len(each["builds"]) for each in two["components"].values()] == [1, 2, 2]
    held = one.files[denoiser.weights][0]
    assert held <= two["files"][denoiser.weights][0] < 1.2 * held


def open_bundle_source(model):
    return open_pipeline(DiffusionConfig(model_path=model, engine="openvino"))


def test_what_a_bundle_leaves_open_is_as_elsewhere(tiny_sd1, drawn, folder):
    options = {"scheduler": "euler", "defaults": {"num_inference_steps": 3, "height": 16}}
    size = {"width": 16, "seed": 1, "output_type": "np"}
    config = DiffusionConfig(model_path=tiny_sd1, engine="openvino", **options)
    with open_pipeline(config) as plain, open_bundle(folder / "sd-openvino", **options) as bundled:
        wanted, picture = (each.text_to_image("a cat", **size) for each in (plain, bundled))
        assert bundled.report.scheduler == plain.report.scheduler
        again = [(each.engine, each.cached, each.passes) for each in bundled.report.components]
        assert again == [(each.engine, True, each.passes) for each in plain.report.components]
    np.testing.assert_array_equal(picture, wanted)


def test_the_first_size_is_drawn_where_none_is_asked_for(drawn, folder):
    with open_bundle(folder / "sd-openvino", memory="staged") as pipeline:
        assert pipeline.text_to_image("a cat", num_inference_steps=1).size == (16, 16)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("engine", "paddle"),
        ("memory", "streamed"),
        ("precision", "bf16"),
        ("passes", ["merge-qkv"]),
        ("variant", "fp16"),
    ],
)
def test_what_was_decided_cannot_be_asked_for(drawn, folder, option, value):
    with pytest.raises(ConfigError) as caught:
        open_bundle(folder / "sd-openvino", **{option: value})
    assert f"{option} is " in caught.value.problem
    assert "is a bundle" in caught.value.problem
    assert caught.value.fix


def test_what_was_decided_may_be_said_again(drawn, folder):
    open_bundle(folder / "sd-openvino", engine="openvino", device="cpu", precision="fp32").close()


def test_other_sizes_are_refused(drawn, folder):
    with (
        open_bundle(folder / "sd-openvino") as pipeline,
        pytest.raises(
            RequestError, match="32x16 is no size that the bundle was built for"
        ) as caught,
    ):
        pipeline.text_to_image("a cat", width=32, height=16)
    assert caught.value.allowed == "16x16, 24x16"
    assert "fastdeploy-diffusion bundle --size 32x16" in caught.value.fix


def test_another_length_of_texts_is_refused(drawn, folder):
    with (
        open_bundle(folder / "flux-openvino") as pipeline,
        pytest.raises(RequestError, match="the bundle has no text_encoder_2 for input_ids"),
    ):
        pipeline.text_to_image("a cat", max_sequence_length=8, width=16, height=16)


def test_nothing_is_built_or_tuned_of_a_bundle(drawn, folder):
    with open_bundle(folder / "sd-openvino") as pipeline:
        assert set(pipeline.find_plans()) == {None}
        with pytest.raises(ConfigError, match="is a bundle, which is built"):
            pipeline.tune()
        with pytest.raises(ConfigError, match="is a bundle, which is built"):
            pipeline.plan_builds()


@pytest.fixture
def copy(drawn, folder, tmp_path):
    """A bundle to damage."""
    return shutil.copytree(folder / "sd-openvino", tmp_path / "copy")


def test_a_damaged_blob_is_refused(copy):
    file = copy / "weights" / "denoiser.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with (
        open_bundle(copy) as pipeline,
        pytest.raises(CheckpointError, match=r"denoiser\.safetensors is damaged") as caught,
    ):
        pipeline.text_to_image("a cat")
    assert "copy copy again" in caught.value.fix


def test_files_are_compared_once_and_again_when_one_changes(copy, monkeypatch, tmp_path):
    read, measure_files = [], bundle.measure_files

    def count_and_measure(paths):
        read.extend(path.name for path in paths)
        return measure_files(paths)

    def draw(**options):
        read.clear()
        with open_bundle(copy, **options) as pipeline:
            pipeline.text_to_image("a cat", width=16, height=16, num_inference_steps=1)
        return sorted(read)

    now = time.time_ns()
    monkeypatch.setattr(bundle, "measure_files", count_and_measure)
    monkeypatch.setattr(checked_files.time, "time_ns", lambda: now + 3 * 10**9)
    everything = draw(cache_dir=tmp_path / "cache")
    assert "denoiser.safetensors" in everything
    assert draw(cache_dir=tmp_path / "cache") == []
    assert draw(cache=False) == draw(cache_dir=tmp_path / "other") == everything
    file = copy / "weights" / "denoiser.safetensors"
    content, times = bytearray(file.read_bytes()), file.stat()
    content[-3] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(CheckpointError, match=r"denoiser\.safetensors is damaged"):
        draw(cache_dir=tmp_path / "cache")
    assert read == ["denoiser.safetensors"]


@pytest.mark.parametrize("cut", [0, 5])
def test_a_bundle_that_was_not_copied_whole_is_refused(copy, cut):
    file = next(copy.rglob("graph.onnx"))
    content = file.read_bytes()
    file.unlink()
    if cut:
        file.write_bytes(content[:-cut])
    with pytest.raises(CheckpointError, match="the bundle was not copied whole"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("schema_version: 1", "schema_version: 2", "has schema_version 2"),
        ("family: sd1", "family: sd9", "the family sd9"),
        ("family: sd1", "fam: sd1", "cannot be read"),
        ("sizes:", "sizes: [", "cannot be read"),
        ("engine: openvino", "engine: warp", "engine is 'warp'"),
    ],
)
def test_what_a_bundle_says_is_checked(copy, old, new, problem):
    file = copy / BUNDLE_FILE
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises((CheckpointError, ConfigError), match=problem) as caught:
        open_bundle(copy)
    assert caught.value.fix or caught.value.allowed


def test_a_missing_engine_says_what_installs_it(drawn, folder, monkeypatch):
    for engine, extra in (("openvino", "run-openvino"), ("onnxruntime", "run-onnx")):
        monkeypatch.setitem(sys.modules, engine, None)
        with pytest.raises(EngineUnavailableError, match=f"was made for {engine}") as caught:
            open_bundle(folder / f"sd-{engine}")
        assert f'pip install "fastdeploy-diffusion[{extra}]"' in caught.value.fix


def test_a_folder_that_exists_is_not_written_to(tiny_sd1, tmp_path):
    (tmp_path / "there").mkdir()
    with open_bundle_source(tiny_sd1) as pipeline:
        with pytest.raises(ConfigError, match="there exists already"):
            write_bundle(pipeline, [(16, 16)], tmp_path / "there")
        with pytest.raises(ConfigError, match="there is no folder"):
            write_bundle(pipeline, [(16, 16)], tmp_path / "no" / "there")
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"cache": False}, {"memory": "streamed"}], ids=["no cache", "streamed"]
)
def test_what_has_no_whole_builds_is_not_bundled(tiny_dev, tmp_path, options):
    config = DiffusionConfig(model_path=tiny_dev, engine="openvino", **options)
    with open_pipeline(config) as pipeline, pytest.raises(ConfigError, match="kept builds"):
        write_bundle(pipeline, [(16, 16)], tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tiny_sd1, tmp_path):
    with (
        small_disk(tmp_path / "disk", 200 * 1024) as disk,
        open_bundle_source(tiny_sd1) as pipeline,
    ):
        with pytest.raises(DiskFullError, match="the bundle: no space left"):
            write_bundle(pipeline, [(16, 16)], disk / "bundle")
        assert [each.name for each in disk.iterdir() if each.name != "lost+found"] == []


def test_long_prompts_need_a_bundle_that_was_built_for_them(tiny_sd1, tmp_path):
    asked = {**REQUEST, "width": 16, "height": 16, "prompt_syntax": "weighted"}
    prompt, longer = "a (cat) BREAK [on] mars", "a BREAK cat BREAK on mars"
    with open_bundle_source(tiny_sd1) as pipeline:
        made = write_bundle(pipeline, [(16, 16)], tmp_path / "bundle", [None, 2])
        wanted = pipeline.text_to_image(prompt, **asked)
    assert made.chunks == [1, 2]
    assert [len(each.builds) for each in made.components.values()] == [1, 2, 1]
    with open_bundle(tmp_path / "bundle") as pipeline:
        np.testing.assert_array_equal(pipeline.text_to_image(prompt, **asked), wanted)
        pipeline.text_to_image("a cat", **REQUEST)
        with pytest.raises(RequestError, match="take 3 chunks") as caught:
            pipeline.text_to_image(longer, **asked)
        assert caught.value.allowed == "1, 2"
        assert "bundle --chunks 3" in caught.value.fix


def test_a_bundle_that_does_not_speak_of_chunks_has_one(drawn, folder):
    content = yaml.safe_load((folder / "sd-openvino" / BUNDLE_FILE).read_text())
    assert content.pop("chunks") == [1]
    assert bundle.Bundle.model_validate(content).chunks == [1]
