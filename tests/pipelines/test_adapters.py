"""Adapters on built engines: what they change, that nothing is built, and their undoing."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_lora import write_tiny_lora

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.errors import AdapterError, ConfigError
from fastdeploy_diffusion.images import METADATA_KEY
from fastdeploy_diffusion.pipelines.opening import open_pipeline

REQUEST = {"prompt": "a red circle", "seed": 5, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def lora(tiny_sd1, tmp_path_factory):
    return write_tiny_lora(tmp_path_factory.mktemp("lora") / "noise.safetensors", tiny_sd1)


@pytest.fixture(scope="module")
def words(tiny_sd1, tmp_path_factory):
    """One that changes the text encoder alone."""
    path = tmp_path_factory.mktemp("lora") / "words.safetensors"
    return write_tiny_lora(path, tiny_sd1, components=("text_encoder",))


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def pipeline(request, tiny_sd1):
    with SDPipeline(tiny_sd1, engine=request.param) as pipeline:
        pipeline.text_to_image(**REQUEST)  # builds
        yield pipeline
        assert not pipeline.list_adapters()


def draw(pipeline):
    return np.asarray(pipeline.text_to_image(**REQUEST))


@pytest.fixture
def no_builds(monkeypatch):
    def fail(*given):
        raise AssertionError("something is built")

    monkeypatch.setattr(Engine, "build", fail)


def test_weights_are_bound_and_given_back(pipeline, lora, words, no_builds):
    plain = draw(pipeline)
    report = pipeline.load_lora(lora)
    assert (report.name, report.strength, report.base_model) == ("noise", 1.0, "sd_v1")
    whole = draw(pipeline)
    pipeline.set_adapters({"noise": 0.25})
    quarter = draw(pipeline)
    with pipeline.adapters({}):
        np.testing.assert_array_equal(draw(pipeline), plain)
    np.testing.assert_array_equal(draw(pipeline), quarter)
    pipeline.load_lora(words, "w", strength={"text_encoder.encoder.layers.0": 0.5, "default": 0})
    both = draw(pipeline)
    pictures = [plain, whole, quarter, both]
    assert len({each.tobytes() for each in pictures}) == len(pictures)
    pipeline.unload_lora("noise")
    pipeline.set_adapters({})
    assert [each.strength for each in pipeline.list_adapters()] == [None]
    np.testing.assert_array_equal(draw(pipeline), plain)
    pipeline.unload_lora()
    np.testing.assert_array_equal(draw(pipeline), plain)


def test_metadata_name_what_is_on(pipeline, lora, words):
    pipeline.load_lora(lora, "a", 0.5)
    pipeline.load_lora(words, "b")
    pipeline.set_adapters({"a": -0.5})
    run = json.loads(pipeline.text_to_image(**REQUEST).info[METADATA_KEY])["run"]
    digest = pipeline.list_adapters()[0].digest
    assert run["adapters"] == [{"name": "a", "digest": digest, "strength": -0.5}]
    pipeline.unload_lora()
    assert "adapters" not in json.loads(pipeline.text_to_image(**REQUEST).info[METADATA_KEY])["run"]


def test_wrong_names_change_nothing(pipeline, lora, tmp_path):
    plain = draw(pipeline)
    pipeline.load_lora(lora, "paint", strength=0)
    for call, problem in (
        (lambda: pipeline.set_adapters({"pain": 1.0}), "there is no adapter 'pain'"),
        (lambda: pipeline.set_adapters(["paint"]), "strengths by name"),
        (lambda: pipeline.unload_lora("pain"), "did you mean 'paint'"),
        (lambda: pipeline.load_lora(lora, "paint"), "is loaded already"),
        (lambda: pipeline.load_lora(lora, ""), "the name of an adapter"),
        (lambda: pipeline.load_lora(lora, "x", strength="1"), "a strength is '1'"),
        (lambda: pipeline.load_lora(tmp_path / "none.safetensors"), "does not exist"),
        (lambda: pipeline.load_lora(lora, "x", {"vae": 1.0}), "changes nothing"),
    ):
        with pytest.raises(AdapterError, match=problem):
            call()
    np.testing.assert_array_equal(draw(pipeline), plain)
    pipeline.unload_lora()


def test_the_layer_itself_agrees(tiny_sd1, pipeline, lora, words):
    config = DiffusionConfig(
        model_path=tiny_sd1,
        engine="paddle-eager",
        adapters=[str(lora), {"path": words, "name": "w"}],
    )
    with open_pipeline(config) as eager:
        wanted = draw(eager).astype(float)
    pipeline.load_lora(lora)
    pipeline.load_lora(words)
    assert np.abs(draw(pipeline) - wanted).max() <= 1
    pipeline.unload_lora()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"engine": "paddle"}, "builds of paddle hold theirs"),
        ({"engine": "openvino", "cache": False}, "cache is false"),
        ({"engine": "openvino", "precision": "int8"}, "is in int8"),
    ],
)
def test_what_cannot_take_weights_says_what_can(tiny_sd1, lora, options, problem):
    with pytest.raises(AdapterError, match=problem) as raised:
        SDPipeline(DiffusionConfig(model_path=tiny_sd1, adapters=[lora], **options))
    assert raised.value.fix
    if options["engine"] == "paddle":
        assert "onnxruntime, openvino" in raised.value.allowed


def test_a_bundle_has_the_weights_of_the_checkpoint(tiny_sd1, pipeline, lora, tmp_path):
    pipeline.load_lora(lora)
    with pytest.raises(ConfigError, match="there are adapters"):
        write_bundle(pipeline, [(16, 16)], tmp_path / "bundle")
    pipeline.unload_lora()
    write_bundle(pipeline, [(16, 16)], tmp_path / "bundle")
    with (
        SDPipeline(tmp_path / "bundle") as bundled,
        pytest.raises(AdapterError, match="of the bundle"),
    ):
        bundled.load_lora(lora)


def test_flux_takes_names_of_its_first_code(tiny_dev, tmp_path):
    random, tensors = np.random.default_rng(0), {}
    for name, rows in {"double_blocks.0.img_attn.qkv": 96, "single_blocks.1.linear1": 224}.items():
        tensors[f"{name}.lora_B.weight"] = random.standard_normal((rows, 4)).astype(np.float32)
        tensors[f"{name}.lora_A.weight"] = random.standard_normal((4, 32)).astype(np.float32)
    save_file(tensors, tmp_path / "flux.safetensors")
    settings = {"prompt": "a", "seed": 1, "num_inference_steps": 1, "width": 16, "height": 16}
    with FluxPipeline(tiny_dev, engine="onnxruntime") as pipeline:
        plain = np.asarray(pipeline.text_to_image(**settings))
        pipeline.load_lora(tmp_path / "flux.safetensors")
        assert np.abs(np.asarray(pipeline.text_to_image(**settings)) - plain.astype(int)).max() > 2
        pipeline.unload_lora()
        np.testing.assert_array_equal(np.asarray(pipeline.text_to_image(**settings)), plain)


def test_weights_in_int8_are_quantized_anew(tiny_sd1, lora):
    with SDPipeline(tiny_sd1, engine="openvino", precision="int8-weights") as pipeline:
        plain = draw(pipeline)
        pipeline.load_lora(lora)
        assert (draw(pipeline) != plain).any()
        pipeline.unload_lora()
        np.testing.assert_array_equal(draw(pipeline), plain)
