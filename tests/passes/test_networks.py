"""Whole networks: as many rewrites as the published config promises, and the same numbers."""

import numpy as np
import paddle
import pytest
from pass_checks import relative_error, rewrite

from fastdeploy_diffusion.checkpoints import build_skeleton
from fastdeploy_diffusion.errors import PassError
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig, CLIPVisionConfig
from fastdeploy_diffusion.families.networks.controlnet import ControlNetConfig
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.families.published.sd import SD_1_5, SDXL_BASE
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.clip_vision import CLIPVisionModelWithProjection
from fastdeploy_diffusion.models.components import (
    ImageConditioner,
    LatentDecoder,
    LatentEncoder,
    TextConditioner,
)
from fastdeploy_diffusion.models.controlnet import ControlNetModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.hoist_invariants import HoistInvariants
from fastdeploy_diffusion.passes.layer.merge_projections import MergeKV, MergeQKV
from fastdeploy_diffusion.passes.layer.phase_upsample import PhaseUpsample
from fastdeploy_diffusion.passes.layer.winograd import LargeTileWinograd, SmallTileWinograd
from fastdeploy_diffusion.passes.registry import choose_passes

PASSES = (
    MergeQKV(),
    MergeKV(),
    PhaseUpsample(),
    LargeTileWinograd(),
    SmallTileWinograd(),
    HoistInvariants(),
)
MAKERS = {
    "unet": lambda config: UNet2DConditionModel(UNet2DConditionConfig.from_dict(config)),
    "text_encoder": lambda config: TextConditioner(
        CLIPTextModel(CLIPTextConfig.from_dict(config)), normalize=True
    ),
    "vae": lambda config: LatentDecoder(AutoencoderKL(AutoencoderKLConfig.from_dict(config))),
}


@pytest.mark.parametrize(
    ("component", "counts"),
    [
        ("unet", [16, 16, 3, 21, 26, 38]),
        ("text_encoder", [12, 0, 0, 0, 0, 0]),
        ("vae", [1, 0, 3, 31, 0, 0]),
    ],
)
def test_sd_1_5_has_the_promised_counts(component, counts):
    network = build_skeleton(lambda: MAKERS[component](SD_1_5[component]))
    results, _ = apply_passes(PASSES, network, strict=True)
    assert [result.count for result in results] == counts
    assert [result.expected for result in results] == counts
    assert not any(result.skipped for result in results)


def test_the_controlnet_of_sd_1_5_has_the_promised_counts():
    raw = dict(SD_1_5["unet"])
    for key in ("out_channels", "up_block_types", "sample_size", "center_input_sample"):
        raw.pop(key)
    config = ControlNetConfig.from_dict(raw)
    network = build_skeleton(lambda: ControlNetModel(config))
    results, _ = apply_passes(PASSES, network, strict=True)
    # Two transformers at each of three levels and one in the middle; eight residual blocks and two;
    # large tiles for four convolutions at each of two levels, and the last of the embedding's.
    counts = [7, 7, 0, 9, 12, 17]
    assert [result.count for result in results] == counts
    assert [result.expected for result in results] == counts


def test_a_vision_tower_has_the_promised_counts():
    config = CLIPVisionConfig.from_dict({"hidden_act": "gelu", "num_hidden_layers": 5})
    network = build_skeleton(lambda: ImageConditioner(CLIPVisionModelWithProjection(config)))
    promised = {"fuse-attention": 5, "fuse-gelu": 5, "fuse-silu": 0}
    assert {each.name: each.expect(network) for each in choose_passes(list(promised))} == promised
    results, _ = apply_passes(PASSES, network, strict=True)
    assert [result.count for result in results] == [5, 0, 0, 0, 0, 0]
    assert [result.expected for result in results] == [5, 0, 0, 0, 0, 0]


def test_the_encoder_of_sd_1_5_has_the_promised_counts():
    config = AutoencoderKLConfig.from_dict(SD_1_5["vae"])
    network = build_skeleton(lambda: LatentEncoder(AutoencoderKL(config)))
    promised = {"fuse-attention": 1, "fuse-group-norm-silu": 21, "fuse-group-norm": 1}
    assert {each.name: each.expect(network) for each in choose_passes(list(promised))} == promised
    results, _ = apply_passes(PASSES, network, strict=True)
    # Two blocks a level and two in the middle, of two convolutions each.
    counts = [1, 0, 0, 20, 0, 0]
    assert [result.count for result in results] == counts
    assert [result.expected for result in results] == counts


def test_the_unet_of_sdxl_has_the_promised_counts():
    network = build_skeleton(lambda: MAKERS["unet"](SDXL_BASE["unet"]))
    promised = {
        "fuse-attention": 140,
        "fuse-group-norm-silu": 35,
        "fuse-group-norm": 11,
        "split-geglu": 70,
        "fuse-gelu": 70,
        "fuse-silu": 54,
    }
    passes = choose_passes(list(promised))
    assert {each.name: each.expect(network) for each in passes} == promised
    results, _ = apply_passes(PASSES, network, strict=True)
    # Down two transformers of 2 blocks and two of 10, up three of each, and 10 in the middle.
    blocks = 2 * 2 + 2 * 10 + 3 * 10 + 3 * 2 + 10
    resnets = 2 * 3 + 3 * 3 + 2
    counts = [blocks, blocks, 2, 21, 15, resnets + blocks]
    assert [result.count for result in results] == counts
    assert [result.expected for result in results] == counts


def test_a_place_that_is_missed_is_an_error():
    network = build_skeleton(lambda: MAKERS["unet"](SD_1_5["unet"]))
    apply_passes([MergeQKV()], network.mid_block, strict=False)
    with pytest.raises(PassError, match="merge-qkv rewrote 15 places of UNet2DConditionModel") as e:
        apply_passes([MergeQKV()], network, strict=True)
    assert e.value.allowed.startswith("16,")


def test_a_small_unet_keeps_its_numbers():
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": 8,
        "block_out_channels": [12, 24, 36],
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": 20,
        "attention_head_dim": [1, 3, 9],
        "transformer_layers_per_block": [1, 2, 3],
        "use_linear_projection": True,
        "norm_num_groups": 4,
    }
    paddle.seed(3)
    layer = MAKERS["unet"](config)
    layer.eval()
    rewritten, results = rewrite(lambda: MAKERS["unet"](config), layer, *PASSES)
    # Down 2 + 3, middle 3, up 2 × 3 + 2 × 2; and 3 + 2 + 6 residual blocks.
    assert [result.count for result in results] == [18, 18, 2, 0, 0, 29]
    for height, width in ((8, 12), (9, 13)):
        feeds = (
            paddle.randn([2, 4, height, width]),
            paddle.to_tensor(np.array([5.0, 900.0], "float32")),
            paddle.randn([2, 7, 20]),
        )
        assert relative_error(rewritten(*feeds), layer(*feeds)) <= 1e-5
