"""Weights reach Paddle layers unchanged; what does not fit is listed, and nothing is half done."""

import subprocess
import sys
import textwrap

import numpy as np
import paddle
import pytest
from checkpoint_writers import write_tensors

from fastdeploy_diffusion.checkpoints import build_layer, load_weights
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import collect_tensors
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.families.published import sd as published
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel, CLIPTextModelWithProjection
from fastdeploy_diffusion.models.unet import UNet2DConditionModel

RNG = np.random.default_rng(5)


class Small(paddle.nn.Layer):
    """One layer of each kind that the networks use."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = paddle.nn.Embedding(5, 4)
        self.linear = paddle.nn.Linear(
            4, 4
        )  # square: a missed transpose would go unnoticed by shape
        self.wide = paddle.nn.Linear(4, 6, bias_attr=False)
        self.conv = paddle.nn.Conv2D(3, 2, 3)
        self.norm = paddle.nn.GroupNorm(2, 4)
        self.register_buffer("constants", paddle.arange(3.0), persistable=False)


SHAPES = {
    "embedding.weight": (5, 4),
    "linear.weight": (4, 4),
    "linear.bias": (4,),
    "wide.weight": (6, 4),
    "conv.weight": (2, 3, 3, 3),
    "conv.bias": (2,),
    "norm.weight": (4,),
    "norm.bias": (4,),
}
VALUES = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def source_of(tmp_path, values, dtype="F32"):
    file = SafetensorsFile(write_tensors(tmp_path / "weights.safetensors", values, dtype))
    return collect_tensors(file.path, [file], [])


def assert_holds_values(layer) -> None:
    state = layer.state_dict()
    assert set(state) == set(VALUES)
    for name, value in VALUES.items():
        linear = name in ("linear.weight", "wide.weight")
        np.testing.assert_array_equal(state[name].numpy(), value.T if linear else value)


def test_load_weights_fills_an_initialised_layer(tmp_path):
    layer = Small()
    load_weights(layer, source_of(tmp_path, VALUES))
    assert_holds_values(layer)


def test_build_layer_computes_as_torch_does(tmp_path):
    layer = build_layer(Small, source_of(tmp_path, VALUES))
    assert not layer.training
    assert_holds_values(layer)
    np.testing.assert_array_equal(layer.constants.numpy(), [0.0, 1.0, 2.0])
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    expected = x @ VALUES["linear.weight"].T + VALUES["linear.bias"]
    np.testing.assert_allclose(layer.linear(paddle.to_tensor(x)).numpy(), expected, rtol=1e-5)


def test_a_bare_linear_layer_is_transposed(tmp_path):
    values = {"weight": VALUES["linear.weight"], "bias": VALUES["linear.bias"]}
    layer = build_layer(lambda: paddle.nn.Linear(4, 4), source_of(tmp_path, values))
    np.testing.assert_array_equal(layer.weight.numpy(), values["weight"].T)


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16"])
def test_every_stored_dtype_arrives_as_float32(dtype, tmp_path):
    source = source_of(tmp_path, VALUES, dtype)
    layer = build_layer(Small, source)
    weight = layer.state_dict()["conv.weight"]
    assert weight.dtype == paddle.float32
    np.testing.assert_array_equal(weight.numpy(), source.read("conv.weight"))
    np.testing.assert_allclose(weight.numpy(), VALUES["conv.weight"], rtol=2**-7)


def test_everything_that_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path):
    values = dict(VALUES)
    del values["linear.bias"], values["norm.weight"]
    values["stray.weight"] = values["norm.bias"]
    values["wide.weight"] = np.zeros((4, 6), np.float32)  # Paddle's layout, not the checkpoint's
    layer = Small()
    before = layer.conv.weight.numpy()
    with pytest.raises(CheckpointError) as error:
        load_weights(layer, source_of(tmp_path, values))
    message = str(error.value)
    assert "weights.safetensors does not fit Small with 8 tensors" in message
    assert "2 missing:\n    linear.bias\n    norm.weight" in message
    assert "1 unexpected:\n    stray.weight" in message
    assert "wide.weight: (4, 6) in the checkpoint, (6, 4) in the model" in message
    np.testing.assert_array_equal(layer.conv.weight.numpy(), before)


def test_long_lists_are_cut_and_counted(tmp_path):
    values = VALUES | {f"stray.{i:02}": VALUES["conv.bias"] for i in range(30)}
    with pytest.raises(CheckpointError) as error:
        load_weights(Small(), source_of(tmp_path, values))
    assert "30 unexpected" in str(error.value)
    assert "stray.19" in str(error.value)
    assert "stray.20" not in str(error.value)


FAMILIES = {
    "sd1": published.SD_1_5,
    "sd2": published.SD_2_1,
    "sdxl": published.SDXL_BASE,
}
MODELS = {
    "text_encoder": (CLIPTextModel, CLIPTextConfig),
    "text_encoder_2": (CLIPTextModelWithProjection, CLIPTextConfig),
    "unet": (UNet2DConditionModel, UNet2DConditionConfig),
    "vae": (AutoencoderKL, AutoencoderKLConfig),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_full_size_models_have_exactly_the_published_names_and_shapes(family):
    reference = pytest.importorskip("published_reference")
    for component, config in FAMILIES[family].items():
        if component not in MODELS:
            continue
        model, config_class = MODELS[component]
        with paddle.LazyGuard():
            layer = model(config_class.from_dict(config))
        linear = {
            f"{name}.weight"
            for name, sublayer in layer.named_sublayers()
            if isinstance(sublayer, paddle.nn.Linear)
        }
        ours = {
            name: tuple(value.shape)[:: -1 if name in linear else 1]
            for name, value in layer.state_dict().items()
        }
        assert ours == reference.reference_shapes(config), component


MEASURE = """
    import os, sys, warnings
    warnings.simplefilter("ignore")
    from pathlib import Path
    import numpy as np
    import paddle
    from fastdeploy_diffusion.checkpoints import build_layer
    from fastdeploy_diffusion.checkpoints.tensor_source import collect_tensors
    from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile

    def make():
        linears = [paddle.nn.Linear(1024, 2048) for _ in range(30)]
        return paddle.nn.Sequential(*linears, paddle.nn.Embedding(20_000, 1024))

    paddle.to_tensor(np.ones(3, np.float32)).numpy()
    file = SafetensorsFile(Path(sys.argv[1]))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    layer = build_layer(make, collect_tensors(file.path, [file], []))
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    peak = int(status["VmHWM"].split()[0]) * 1024 - before
    weights = sum(p.size for p in layer.parameters()) * 4
    first = float(layer[3].weight[0, 1])
    print(peak / weights, first)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_peak_memory_of_building_stays_below_five_quarters_of_the_weights(dtype, tmp_path):
    values = {"30.weight": np.ones((20_000, 1024), np.float32)}
    for i in range(30):
        values[f"{i}.weight"] = np.full((2048, 1024), i, np.float32)
        values[f"{i}.bias"] = np.zeros(2048, np.float32)
    path = write_tensors(tmp_path / "weights.safetensors", values, dtype)
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    ratio, first = map(float, child.stdout.split())
    assert first == 3.0
    assert 1.0 <= ratio <= 1.25
