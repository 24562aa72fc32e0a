"""The parts of the search for layers in int8: blocks, targets, and how few have to go back."""

import numpy as np
import pytest

from fastdeploy_diffusion.compiler.int8_part import name_block
from fastdeploy_diffusion.compiler.int8_search import compare, find_fewest
from fastdeploy_diffusion.int8_report import BlockCost, Int8Report, PictureQuality


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("down_blocks.0.resnets.1.conv1", "down_blocks.0.resnets.1"),
        (
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
            "down_blocks.1.attentions.0",
        ),
        ("mid_block.attentions.0.proj_in", "mid_block.attentions.0"),
        ("up_blocks.2.upsamplers.0.conv", "up_blocks.2.upsamplers.0"),
        ("transformer_blocks.3.attn.to_out.0", "transformer_blocks.3"),
        ("single_transformer_blocks.17.proj_mlp", "single_transformer_blocks.17"),
        ("encoder.layers.3.mlp.fc1", "encoder.layers.3"),
        ("encoder.block.11.layer.1.DenseReluDense.wo", "encoder.block.11"),
        ("vae.decoder.up_blocks.1.resnets.2.conv2", "vae.decoder.up_blocks.1.resnets.2"),
        ("conv_in", "conv_in"),
    ],
)
def test_a_layer_belongs_to_a_block(layer, block):
    assert name_block(layer) == block


def simulate(errors, floor=60.0):
    """The PSNR of errors that add up as squares, beside what is lost without int8."""
    tried = []

    def measure(kept):
        tried.append(kept)
        return -10 * np.log10(np.square(errors[kept:]).sum() + 10 ** (-floor / 10))

    return measure, tried


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("target", [15.0, 25.0, 30.0, 40.0, 55.0])
def test_as_few_blocks_as_are_enough_go_back(seed, target):
    errors = sorted(np.random.default_rng(seed).lognormal(-4, 1, 30), reverse=True)
    measure, tried = simulate(errors)
    reached = measure(0)
    found = find_fewest(measure, errors, target, reached) if reached < target else 0
    assert len(tried) <= 8
    again, _ = simulate(errors)
    enough = [kept for kept in range(31) if again(kept) >= target]
    # The limit of tries may leave one too many, never too few.
    assert enough[0] <= found <= enough[0] + 1


def test_all_blocks_go_back_where_nothing_is_enough():
    measure, _ = simulate([0.1] * 9, floor=20.0)
    assert find_fewest(measure, [0.1] * 9, 30.0, measure(0)) == 9


def test_quality_is_the_mean_of_pictures_and_the_worst():
    wanted = np.full((2, 16, 16, 3), 100, np.uint8)
    given = wanted + np.array([1, 10], np.uint8)[:, None, None, None]
    quality = compare(given, wanted, 20)
    each = [20 * np.log10(255), 20 * np.log10(25.5)]
    assert quality.psnr == pytest.approx(np.mean(each))
    assert quality.worst_psnr == pytest.approx(each[1])
    assert (quality.pictures, quality.steps) == (2, 20)
    assert compare(wanted, wanted, 20).psnr == 100
    assert "PSNR 38.1 dB (worst 28.1)" in str(quality)


def test_a_report_can_be_written_and_read():
    from dataclasses import asdict

    blocks = (BlockCost("a", 3, 0.5, is_kept=True), BlockCost("b", 2, 0.1))
    quality = PictureQuality(31.0, 28.0, 0.9, 8, 20)
    report = Int8Report(quality, 30.0, "bf16", 40.0, 36.0, blocks, 4)
    assert Int8Report.parse(asdict(report)) == report
    assert (report.quantized, report.kept) == (2, blocks[:1])
    assert report.metadata["target_psnr"] == 30.0
    assert report.metadata["psnr"] == 31.0
