"""A transformer whose weights are streamed gives the numbers of the resident one."""

import json
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from checkpoint_writers import write_sparse, write_tensors

from fastdeploy_diffusion.checkpoints import build_skeleton, list_shapes
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView
from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.reference import Reference
from fastdeploy_diffusion.compiler.streamed_build import StreamedBuild
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import CheckpointError, EngineUnavailableError
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.passes.registry import choose_passes
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec

SMALL = {
    "in_channels": 8,
    "attention_head_dim": 16,
    "num_attention_heads": 3,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 10,
    "axes_dims_rope": (4, 6, 6),
}
DEV = {**SMALL, "num_layers": 2, "num_single_layers": 3, "guidance_embeds": True}
# name → (config, how blocks store their weights, engine)
CASES = {
    "as dev": (DEV, "BF16", "openvino"),
    "as schnell": ({**SMALL, "num_layers": 1, "num_single_layers": 1}, "BF16", "onnxruntime"),
    "single blocks alone": (
        {**SMALL, "num_layers": 0, "num_single_layers": 3, "out_channels": 5},
        "F16",
        "onnxruntime",
    ),
    "double blocks alone": ({**SMALL, "num_layers": 3, "num_single_layers": 0}, "F32", "openvino"),
}


def write_transformer(folder, options, dtype="BF16"):
    """Write a checkpoint of random weights, on which the conditioning has an effect."""
    config = FluxTransformer2DConfig.from_dict(options)
    layer = build_skeleton(partial(FluxTransformer2DModel, config))
    random = np.random.default_rng(0)
    tensors = {
        name: random.standard_normal(shape) / np.sqrt(shape[-1]) if len(shape) == 2
        # Norms begin as ones, which would hide a scale that is not applied.
        else random.uniform(0.5, 1.5, shape) if ".norm_" in name
        else random.standard_normal(shape) * 0.1
        for name, shape in list_shapes(layer).items()
    }  # fmt: skip
    file = SafetensorsFile(write_tensors(folder / "transformer.safetensors", tensors, dtype))
    return TensorSource("transformer", {name: TensorView(file, name) for name in tensors})


def plan(options, source, engine="openvino", *, tokens=12, texts=5, passes=()):
    """The build of a resident transformer."""
    config = FluxTransformer2DConfig.from_dict(options)
    shapes = {
        "hidden_states": (None, tokens, config.in_channels),
        "encoder_hidden_states": (None, texts, config.joint_attention_dim),
        "pooled_projections": (None, config.pooled_projection_dim),
        "timestep": (None,),
        "img_ids": (tokens, 3),
        "txt_ids": (texts, 3),
    }
    if config.guidance_embeds:
        shapes["guidance"] = (None,)
    network = Network("fastdeploy_diffusion.models.flux:FluxTransformer2DModel", config, source)
    signature = Signature(
        tuple(TensorSpec(name, shape, "float32") for name, shape in shapes.items()),
        (TensorSpec("velocity", (None, tokens, config.outputs), "float32"),),
    )
    return ComponentBuild(
        "denoiser",
        Placement(create_engine(engine), BuildSpec(Device("cpu"), threads=1)),
        network,
        Reference("denoiser", network, signature),
        tuple(choose_passes(passes)),
        {},
        *signature,
    )


def stream(build):
    return StreamedBuild(**vars(build))


def draw(build, batch, seed):
    random = np.random.default_rng(seed)
    shapes = {each.name: [size or batch for size in each.shape] for each in build.inputs}
    return {name: random.random(shape, np.float32) for name, shape in shapes.items()}


def assert_is_layer(session, build, batches=(1, 3)):
    """Compare with the whole Paddle layer."""
    reference = build.reference.load()
    for seed, batch in enumerate(batches):
        feeds = draw(build, batch, seed)
        given, wanted = (
            each["velocity"] for each in (session.run(**feeds), run_layer(reference, feeds))
        )
        assert given.shape == wanted.shape
        assert np.abs(given - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """A streamed build, and its session."""
    folder = tmp_path_factory.mktemp("dev")
    options, dtype, engine = CASES["as dev"]
    build = plan(options, write_transformer(folder, options, dtype), engine)
    built = stream(build).open(ArtifactCache(folder / "cache", 2**30))
    yield build, built, ArtifactCache(folder / "cache", 2**30)
    built.session.close()


def test_the_numbers_are_those_of_the_layer(dev):
    build, built, _ = dev
    assert built.relative_error <= 1e-4
    assert tuple(built.session.inputs.values()) == build.inputs
    assert tuple(built.session.outputs.values()) == build.outputs
    assert_is_layer(built.session, build)


def test_the_second_start_builds_nothing(dev):
    build, built, cache = dev
    again = stream(build).open(cache)
    assert (built.cached, again.cached) == (False, True)
    assert again.relative_error == built.relative_error
    assert_is_layer(again.session, build, (2,))
    again.session.close()


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in CASES if name != "as dev"])
def test_the_numbers_are_those_of_the_layer_in_every_shape(case, tmp_path):
    options, dtype, engine = CASES[case]
    build = plan(options, write_transformer(tmp_path, options, dtype), engine)
    built = stream(build).open(None)
    assert_is_layer(built.session, build)
    built.session.close()


@pytest.mark.slow
def test_passes_rewrite_every_block(tmp_path):
    options, dtype, engine = CASES["single blocks alone"]
    source = write_transformer(tmp_path, options, dtype)
    build = plan(options, source, engine, passes=["fuse-attention"])
    built = stream(build).open(None)
    assert built.passes == {"fuse-attention": 3}
    assert_is_layer(built.session, build)
    built.session.close()


def test_a_file_that_goes_away_is_named_and_may_come_back(dev):
    build, built, cache = dev
    file = cache.root.with_name("transformer.safetensors")
    feeds = draw(build, 1, 0)
    hidden = file.rename(file.with_name("hidden"))
    with pytest.raises(CheckpointError, match=r"transformer_blocks\.\d.*transformer.safetensors"):
        built.session.run(**feeds)
    hidden.rename(file)
    assert_is_layer(built.session, build, (1,))


def test_closing_ends_the_thread(dev):
    build, _, cache = dev
    built = stream(build).open(cache)
    before = count_threads()
    built.session.run(**draw(build, 1, 0))
    assert count_threads() == before + 1
    built.session.close()
    assert count_threads() == before


def count_threads():
    return sum(each.name.startswith("weight-stream") for each in threading.enumerate())


def test_weights_that_do_not_fit_are_refused(dev):
    build, *_ = dev
    deeper = plan({**DEV, "num_single_layers": 4}, build.network.source)
    with pytest.raises(CheckpointError, match=r"single_transformer_blocks\.3\.norm\.linear"):
        stream(deeper).open(None)


def test_an_engine_that_takes_no_weights_is_refused(dev):
    build, *_ = dev
    paddle = plan(DEV, build.network.source, "paddle")
    with pytest.raises(EngineUnavailableError, match="not streamed to paddle on cpu") as raised:
        stream(paddle).open(None)
    assert "openvino" in raised.value.allowed


PEAK = """
import json, sys
from pathlib import Path

sys.path[:0] = json.loads(sys.argv[1])
from test_streamed import measure_peak

print(json.dumps(measure_peak(Path(sys.argv[2]), int(sys.argv[3]))))
"""
WIDE = {
    "in_channels": 8,
    "attention_head_dim": 128,
    "num_attention_heads": 8,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 10,
    "num_layers": 0,
}


def measure_peak(folder, depth):
    """Bytes of a transformer's file, and the peak of this process: when built, and when run."""
    options = {**WIDE, "num_single_layers": depth}
    layer = build_skeleton(
        partial(FluxTransformer2DModel, FluxTransformer2DConfig.from_dict(options))
    )
    shapes = list_shapes(layer)
    file = SafetensorsFile(write_sparse(folder / "transformer.safetensors", shapes, "BF16"))
    source = TensorSource("transformer", {name: TensorView(file, name) for name in shapes})
    build = plan(options, source, tokens=64, texts=16)
    built = stream(build).open(None)
    peaks = [read_peak()]
    Path("/proc/self/clear_refs").write_text("5")  # peaks count from now on
    for seed in range(2):
        built.session.run(**draw(build, 1, seed))
    built.session.close()
    return file.path.stat().st_size, *peaks, read_peak()


def read_peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
def test_the_peak_of_memory_does_not_depend_on_the_depth(tmp_path):
    found = {}
    for depth in (4, 16):
        command = [sys.executable, "-c", PEAK, json.dumps(sys.path), str(tmp_path), str(depth)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[depth] = json.loads(done.stdout.splitlines()[-1])
    (small, *shallow), (large, *deep) = found[4], found[16]
    block = (large - small) / 12
    assert block > 30e6
    # Twelve more blocks that stayed would be twelve; what malloc keeps varies by about one.
    for less, more in zip(shallow, deep, strict=True):
        assert more - less < 3 * block
