"""Components in int8: observed, quantized by ranges, kept by them, and tried."""

import mmap
from dataclasses import replace

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.compiler.quantizing import choose_sensitive, observe, open_trials
from fastdeploy_diffusion.compiler.rewriting import rewrite_network
from fastdeploy_diffusion.errors import (
    ConfigError,
    EngineError,
    EngineUnavailableError,
    NonFiniteError,
)
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.quantization import Quantization
from fastdeploy_diffusion.runtime import recipe, weight_store
from fastdeploy_diffusion.runtime.bundle import BUNDLE_FILE
from fastdeploy_diffusion.runtime.cache import ArtifactCache

SIZE = {"height": 16, "width": 16}
BASE = "fastdeploy_diffusion.engines.base"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("tiny") / "model")


def open_tiny(model, cache_dir, precision="int8", **options):
    config = DiffusionConfig(
        model_path=model,
        cache_dir=cache_dir,
        engine="openvino",
        denoiser={"precision": precision},
        **options,
    )
    return open_pipeline(config)


def plan(pipeline, name="denoiser"):
    """Plan a build with no layer in int8 yet; so nothing is calibrated, as tests choose layers."""
    pipeline.component(name).quantization = Quantization()
    return next(each for each in pipeline.plan_builds(**SIZE) if each.name == name)


def draw_feeds(build, count=4):
    """Of other seeds than the proof's."""
    shapes = {name: array.shape for name, array in build.draw_feeds().items()}
    random = np.random.default_rng(11)
    feeds = []
    for _ in range(count):
        drawn = {name: random.standard_normal(shape) for name, shape in shapes.items()}
        drawn["timestep"] = random.integers(0, 1000, shapes["timestep"])
        feeds.append({name: array.astype(np.float32) for name, array in drawn.items()})
    return feeds


@pytest.fixture(scope="module")
def ranges(model, tmp_path_factory):
    with open_tiny(model, tmp_path_factory.mktemp("cache")) as pipeline:
        build = plan(pipeline)
        return observe(build, draw_feeds(build))


def choose(ranges):
    return Quantization(ranges, choose_sensitive("denoiser", ranges))


def test_every_convolution_and_linear_layer_is_observed(model, ranges, tmp_path):
    with open_tiny(model, tmp_path) as pipeline:
        build = plan(pipeline)
        passes = [each for each in build.layer_passes if each.name != "hoist-invariants"]
        layer = rewrite_network(build.network, passes).layer
    wanted = {
        name
        for name, part in layer.named_sublayers()
        if type(part).__name__ in ("Conv2D", "Linear")
    }
    # Which stays for sizes that are not doubled exactly.
    assert ranges.keys() == wanted - {"up_blocks.0.upsamplers.0.conv"}
    assert all(each.low < each.high for each in ranges.values())


def test_first_last_and_time_layers_are_sensitive(ranges):
    sensitive = choose_sensitive("denoiser", ranges)
    assert {"conv_in", "conv_out", "time_embedding.linear_1"} <= sensitive
    assert "down_blocks.0.resnets.0.time_emb_proj" in sensitive
    quantized = ranges.keys() - sensitive
    assert "down_blocks.0.resnets.0.conv1" in quantized
    assert any(name.endswith("ff.net.0.proj") for name in quantized)
    assert any(name.endswith(".proj_out") for name in quantized), "of blocks, not of Flux"


@pytest.mark.parametrize(
    ("component", "layer", "is_sensitive"),
    [
        ("denoiser", "proj_out", True),
        ("denoiser", "x_embedder", True),
        ("denoiser", "single_transformer_blocks.3.norm.linear", True),
        ("denoiser", "transformer_blocks.0.norm1_context.linear", True),
        ("denoiser", "single_transformer_blocks.3.proj_out", False),
        ("denoiser", "transformer_blocks.0.ff_context.net.2", False),
        ("denoiser", "up_blocks.0.resnets.0.conv_shortcut", True),
        ("vae_decoder", "vae.decoder.up_blocks.0.resnets.1.conv2", False),
        ("vae_decoder", "vae.decoder.up_blocks.0.resnets.1.conv_shortcut", True),
        ("vae_decoder", "vae.decoder.mid_block.attentions.0.to_q", True),
        ("vae_decoder", "vae.decoder.conv_in", True),
        ("text_encoder", "text_model.encoder.layers.0.mlp.fc1", False),
    ],
)
def test_the_default_list_of_sensitive_layers(component, layer, is_sensitive):
    assert choose_sensitive(component, [layer]) == (frozenset([layer]) if is_sensitive else set())


def test_int8_draws_nearly_the_picture_of_fp32_from_kept_builds(model, ranges, tmp_path):
    pictures, cached = {}, {}
    for precision in ("fp32", "int8", "int8", "int8-weights"):
        with open_tiny(model, tmp_path, precision) as pipeline:
            if precision != "fp32":
                pipeline.component("denoiser").quantization = choose(ranges)
            pictures[precision] = pipeline.text_to_image(
                "a cat", seed=2, num_inference_steps=2, output_type="np", **SIZE
            )
            report = pipeline.component("denoiser").report
            assert (report.precision, report.fallback) == (precision, None)
            cached[precision] = report.cached
    assert cached == {"fp32": False, "int8": True, "int8-weights": False}
    for precision in ("int8", "int8-weights"):
        difference = np.abs(pictures[precision] - pictures["fp32"])
        assert difference.max() > 0
        assert difference.mean() < 0.04, "of random weights, with guidance"


def test_other_ranges_and_other_skips_are_other_builds(model, ranges, tmp_path):
    with open_tiny(model, tmp_path) as pipeline:
        build = replace(plan(pipeline), quantization=choose(ranges))
        root = ArtifactCache(tmp_path, 1 << 30).root
        key = build.find_keys(root)[0]
        fewer = replace(build, quantization=Quantization(ranges, frozenset(ranges)))
        assert fewer.find_keys(root)[0] != key
        assert replace(build, quantization=choose(ranges)).find_keys(root)[0] == key
        spec = replace(build.placement.spec, precision="int8-weights")
        weights = replace(build, placement=replace(build.placement, spec=spec))
        assert weights.find_keys(root)[0] != key


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_weights_of_other_bits_are_other_builds(model, ranges, tmp_path, monkeypatch, precision):
    with open_tiny(model, tmp_path, precision) as pipeline:
        build = replace(plan(pipeline), quantization=choose(ranges))
        keys = []
        for saturates in (False, True):
            monkeypatch.setattr(f"{BASE}.sums_saturate", lambda saturates=saturates: saturates)
            keys.append(build.find_keys(ArtifactCache(tmp_path, 1 << 30).root)[0])
    assert (keys[0] != keys[1]) == (precision == "int8")


def test_without_calibration_int8_is_an_error_that_says_how(model, tmp_path):
    with open_tiny(model, tmp_path, "fp32") as pipeline:
        build = plan(pipeline)
        spec = replace(build.placement.spec, precision="int8")
        build = replace(build, placement=replace(build.placement, spec=spec), quantization=None)
        with pytest.raises(EngineError, match=r"denoiser.*: it was not calibrated") as caught:
            build.open(None)
    assert "fastdeploy-diffusion quantize" in caught.value.fix


def test_streamed_weights_are_not_quantized(tiny_dev, tmp_path):
    with (
        open_tiny(tiny_dev, tmp_path, memory="streamed") as pipeline,
        pytest.raises(ConfigError, match="not streamed in int8"),
    ):
        pipeline.plan_builds(**SIZE)


def test_without_inputs_nothing_is_observed(model, tmp_path):
    with (
        open_tiny(model, tmp_path) as pipeline,
        pytest.raises(EngineError, match="denoiser: there are no inputs"),
    ):
        observe(plan(pipeline), [])


def test_numbers_that_are_not_finite_have_no_range(model, tmp_path):
    with open_tiny(model, tmp_path) as pipeline:
        build = plan(pipeline)
        feed = {**build.draw_feeds()}
        feed["sample"] = feed["sample"] * np.float32(np.nan)
        with pytest.raises(NonFiniteError, match="NaN or infinity"):
            observe(build, [feed])


def test_trials_go_from_nothing_quantized_to_all(model, ranges, tmp_path):
    with open_tiny(model, tmp_path) as pipeline:
        build = plan(pipeline)
        feeds = draw_feeds(build, 1)[0]
        exact = replace(build.placement, spec=replace(build.placement.spec, precision="fp32"))
        with replace(build, placement=exact).open(None).session as session:
            wanted = session.run(**feeds)[build.outputs[0].name]
        errors = []
        with open_trials(build) as trials:
            for skip in (ranges.keys(), choose_sensitive("denoiser", ranges), ()):
                with trials.start(Quantization(ranges, frozenset(skip))) as session:
                    given = session.run(**feeds)[build.outputs[0].name]
                    one = session.run(**{name: each[:1] for name, each in feeds.items()})
                assert one[build.outputs[0].name].shape[0] == 1
                errors.append(float(np.sqrt(np.square(given - wanted).mean() / wanted.var())))
    assert errors[0] < errors[1] < errors[2] < 0.3


def test_trials_make_each_weight_once(model, ranges, tmp_path, monkeypatch):
    made = []

    def derive(weight, tensors):
        derived = recipe.derive(weight, tensors)
        if derived.nbytes >= mmap.PAGESIZE and weight.dtype == "int8":
            made.append(weight)
        return derived

    monkeypatch.setattr(weight_store, "derive", derive)
    store = ArtifactCache(tmp_path / "store", 1 << 30).open_store("trials")
    counts, results = [], []
    with open_tiny(model, tmp_path) as pipeline:
        build = plan(pipeline)
        feeds = draw_feeds(build, 1)[0]
        with open_trials(build, store) as trials:
            for _ in range(2):
                with trials.start(choose(ranges)) as session:
                    results.append(session.run(**feeds)[build.outputs[0].name])
                counts.append(len(made))
    assert counts[0] == counts[1] > 0
    np.testing.assert_array_equal(*results)


def test_a_bundle_in_int8_draws_the_same_picture(model, ranges, tmp_path):
    request = {"seed": 2, "num_inference_steps": 2, "output_type": "np"}
    with open_tiny(model, tmp_path / "cache") as pipeline:
        pipeline.component("denoiser").quantization = choose(ranges)
        write_bundle(pipeline, [(16, 16)], tmp_path / "bundle")
        wanted = pipeline.text_to_image("a cat", **request, **SIZE)
    with open_pipeline(DiffusionConfig(model_path=tmp_path / "bundle")) as bundled:
        np.testing.assert_array_equal(bundled.text_to_image("a cat", **request), wanted)


def test_a_bundle_in_int8_runs_where_its_products_are_right(model, ranges, tmp_path, monkeypatch):
    with open_tiny(model, tmp_path / "cache", int8_portable=True) as pipeline:
        pipeline.component("denoiser").quantization = choose(ranges)
        bundle = write_bundle(pipeline, [(16, 16)], tmp_path / "bundle")
    bits = {name: each.weight_bits for name, each in bundle.components.items()}
    assert bits == {"text_encoder": None, "denoiser": 7, "vae_decoder": None}
    config = DiffusionConfig(model_path=tmp_path / "bundle")
    for saturates in (False, True):
        monkeypatch.setattr(f"{BASE}.sums_saturate", lambda saturates=saturates: saturates)
        open_pipeline(config).close()
    file = tmp_path / "bundle" / BUNDLE_FILE
    text = file.read_text()
    for changed in ("weight_bits: 8", "weight_bits: null"):
        file.write_text(text.replace("weight_bits: 7", changed))
        with pytest.raises(EngineUnavailableError, match=r"denoiser in int8.* 8 bits") as caught:
            open_pipeline(config)
        assert "avx512_vnni" in caught.value.allowed
        assert "int8_portable: true" in caught.value.fix
        with monkeypatch.context() as patch:
            patch.setattr(f"{BASE}.sums_saturate", lambda: False)
            open_pipeline(config).close()
