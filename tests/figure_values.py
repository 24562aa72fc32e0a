"""What figures in the documentation are computed from: published results, and published configs."""

import math
from functools import cache, partial
from pathlib import Path

from fastdeploy_diffusion.benchmark.architectures import ARCHITECTURES
from fastdeploy_diffusion.benchmark.report.page import read_published
from fastdeploy_diffusion.benchmark.summary import summarise
from fastdeploy_diffusion.checkpoints import build_skeleton, list_shapes
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.families.published.sd import SD_1_5
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.registry import choose_passes

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
GIB, MIB = 2**30, 2**20
FLOAT32 = 4  # bytes


@cache
def published():
    return read_published(RESULTS)


def find_row(run, engine, precision="fp32"):
    (row,) = (
        row
        for row in published()[run].rows
        if (row.case.engine, row.case.precision) == (engine, precision)
    )
    return row


def summarise_turns(run, theirs, precision="fp32"):
    """Sum up how many times as fast ours was as a peer in a precision, pair by pair."""
    (found,) = (
        each
        for each in published()[run].comparisons
        if (each.theirs.engine, each.theirs.precision) == (theirs, precision)
    )
    return summarise(found.ratios)


def middle_half(run, theirs):
    turns = summarise_turns(run, theirs)
    return turns.count, turns.p25, turns.p75


def compare_medians(run, ours, theirs):
    medians = (summarise(find_row(run, engine).samples.pictures).p50 for engine in (theirs, ours))
    return next(medians) / next(medians)


def peak_gib(run, engine):
    return find_row(run, engine).samples.peak_bytes / GIB


def lowest_psnr(run):
    """Of all rows of ours; identical pictures have none. Rounded down, as "and more" needs."""
    rows = [row for row in published()[run].rows if row.case.is_own]
    return math.floor(min(row.quality.psnr for row in rows if row.quality.psnr is not None))


@cache
def sketch(model):
    return {
        name: sum(map(math.prod, shapes.values()))
        for name, shapes in ARCHITECTURES[model].sketch().items()
    }


def billions(model, *components):
    return sum(sketch(model)[name] for name in components) / 1e9


def gib(model, *components, width=FLOAT32):
    """Weights of some components, or of all."""
    return sum(sketch(model)[name] for name in components or sketch(model)) * width / GIB


@cache
def unet_gib(leave_out=None):
    """Weights that OpenVINO holds of SD 1.5's UNet, prologue and step, with its default passes."""
    config = UNet2DConditionConfig.from_dict(SD_1_5["unet"])
    network = build_skeleton(partial(UNet2DConditionModel, config))
    default = create_engine("openvino").name_default_passes("fp32", "denoiser", 64 * 64)
    names = [name for name in default if name != leave_out]
    apply_passes(choose_passes(names), network, strict=True)
    shapes = list_shapes(network)
    replaced = {
        name.replace(".transformed", ".weight") for name in shapes if name.endswith(".transformed")
    }
    held = [math.prod(shape) for name, shape in shapes.items() if name not in replaced]
    return sum(held) * FLOAT32 / GIB
