"""Pipelines with the native kernel: kept builds, a machine without a compiler, and bundles."""

import json
import re

import numpy as np
import pytest
import yaml

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.checksum import measure_files
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.native.library import LIBRARY_FILE, explain_missing_compiler
from fastdeploy_diffusion.passes.user_passes import PassWarning
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.runtime.bundle import BUNDLE_FILE
from fastdeploy_diffusion.runtime.manifest import MANIFEST_FILE

REQUEST = {"seed": 3, "num_inference_steps": 2, "output_type": "np", "width": 16, "height": 16}
COUNTS = {"text_encoder": 2, "denoiser": 8, "vae_decoder": 1}

ENGINES = ("openvino", "onnxruntime")

needs_compiler = pytest.mark.skipif(bool(explain_missing_compiler()), reason="no C++ compiler")


def open_native(model, **options):
    passes = ("native-attention",)
    config = {"model_path": model, "engine": "openvino", "passes": passes, **options}
    return open_pipeline(DiffusionConfig(**config))


def draw(pipeline):
    picture = pipeline.text_to_image("a cat", **REQUEST)
    return picture, {each.name: each for each in pipeline.report.components}


@pytest.fixture(scope="module")
def plain(tiny_sd1):
    with open_native(tiny_sd1, passes=()) as pipeline:
        return draw(pipeline)[0]


@needs_compiler
@pytest.mark.parametrize("engine", ENGINES)
def test_pictures_stay_and_kept_builds_are_found(engine, tiny_sd1, plain, tmp_path):
    drawn = []
    for is_cached in (False, True):
        options = {"engine": engine, "threads": 1 + is_cached}
        with open_native(tiny_sd1, cache_dir=tmp_path, **options) as pipeline:
            picture, reports = draw(pipeline)
        assert {name: each.passes for name, each in reports.items()} == {
            name: {"native-attention": count} for name, count in COUNTS.items()
        }
        assert {each.cached for each in reports.values()} == {is_cached}
        assert max(each.relative_error for each in reports.values()) < 1e-5
        drawn.append(picture)
    np.testing.assert_allclose(drawn[0], plain, atol=1e-3)
    np.testing.assert_allclose(drawn[1], plain, atol=1e-3)
    # It is compiled once, for all networks.
    assert len(list((tmp_path / "native").glob("*.so"))) == 1
    assert len(list(tmp_path.glob(f"*/artifact/**/{LIBRARY_FILE}"))) == len(COUNTS)


def test_without_a_compiler_the_graph_stays_and_the_warning_says_so(
    tiny_sd1, plain, tmp_path, monkeypatch
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(PassWarning, match="native-attention is left out: .*no-such-compiler"):
        pipeline = open_native(tiny_sd1, cache_dir=tmp_path)
    with pipeline:
        picture, reports = draw(pipeline)
    assert {tuple(each.passes) for each in reports.values()} == {()}
    np.testing.assert_array_equal(picture, plain)


def test_engines_without_the_operator_say_so(tiny_sd1, tmp_path):
    with (
        pytest.warns(PassWarning, match="left out: paddle-eager runs no operators"),
        open_native(tiny_sd1, engine="paddle-eager", cache_dir=tmp_path) as pipeline,
    ):
        assert pipeline.report.components[0].engine == "paddle-eager"


# What a bundle's library needs of the machine that draws from it, and what helps without.
NEEDS = {
    "openvino": {
        "openvino": ("2024.0.0", r"pip install openvino==2024\.0\.0"),
        "machine": ("sparc64", "build it again"),
    },
    # One library serves every version.
    "onnxruntime": {"machine": ("sparc64", "build it again")},
}


@needs_compiler
@pytest.mark.parametrize("engine", ENGINES)
def test_a_bundle_carries_the_library_and_refuses_other_machines(
    engine, tiny_sd1, tmp_path, monkeypatch
):
    with open_native(tiny_sd1, cache_dir=tmp_path / "cache", engine=engine) as pipeline:
        wanted, _ = draw(pipeline)
        write_bundle(pipeline, [(16, 16)], tmp_path / "bundle")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with open_pipeline(DiffusionConfig(model_path=tmp_path / "bundle")) as pipeline:
        picture, reports = draw(pipeline)
    np.testing.assert_array_equal(picture, wanted)
    assert reports["denoiser"].passes == {"native-attention": COUNTS["denoiser"]}

    written = [json.loads(file.read_text()) for file in (tmp_path / "bundle").rglob(MANIFEST_FILE)]
    for manifest in written:
        assert set(manifest["library"]["needs"]) == {"system", *NEEDS[engine]}
    for name, (other, fix) in NEEDS[engine].items():
        for file in (tmp_path / "bundle").rglob(MANIFEST_FILE):
            rewrite_need(tmp_path / "bundle", file, name, other)
        with (
            open_pipeline(DiffusionConfig(model_path=tmp_path / "bundle")) as pipeline,
            pytest.raises(EngineError, match=f"compiled for .*{name} {other}") as caught,
        ):
            draw(pipeline)
        assert re.search(fix, caught.value.fix)


@needs_compiler
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_onnxruntime_takes_it_in_the_half_precisions_that_it_emulates(
    precision, tiny_sd1, plain, tmp_path
):
    options = {"engine": "onnxruntime", "precision": precision}
    with open_native(tiny_sd1, cache_dir=tmp_path, **options) as pipeline:
        picture, reports = draw(pipeline)
    found = {name: each.passes["native-attention"] for name, each in reports.items()}
    assert found == COUNTS
    assert {each.precision for each in reports.values()} == {precision}
    np.testing.assert_allclose(picture, plain, atol=0.2)


@needs_compiler
def test_it_goes_with_weights_in_int8(tiny_sd1, tmp_path):
    with open_native(tiny_sd1, cache_dir=tmp_path, precision="int8-weights") as pipeline:
        _, reports = draw(pipeline)
    found = {name: each.passes["native-attention"] for name, each in reports.items()}
    assert found == COUNTS
    assert {each.precision for each in reports.values()} == {"int8-weights"}


def rewrite_need(bundle, file, name, value):
    """As if it had been compiled elsewhere; sizes and checksums follow."""
    manifest = json.loads(file.read_text())
    manifest["library"]["needs"][name] = value
    file.write_text(json.dumps(manifest))
    content = yaml.safe_load((bundle / BUNDLE_FILE).read_text())
    (measured,) = measure_files([file])
    content["files"][file.relative_to(bundle).as_posix()] = list(measured)
    (bundle / BUNDLE_FILE).write_text(yaml.safe_dump(content))
