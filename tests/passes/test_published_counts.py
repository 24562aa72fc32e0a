"""The tables of docs/passes.md count what the published configs promise, at full size."""

import re
from functools import partial
from pathlib import Path

import pytest
from test_flux_merges import MAKERS as FLUX_MAKERS
from test_networks import MAKERS as SD_MAKERS

from fastdeploy_diffusion.checkpoints import build_skeleton
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.published.flux import FLUX_DEV, FLUX_SCHNELL
from fastdeploy_diffusion.families.published.sd import SD_1_5, SDXL_BASE
from fastdeploy_diffusion.models.clip import CLIPTextModel, CLIPTextModelWithProjection
from fastdeploy_diffusion.models.components import TextConditioner
from fastdeploy_diffusion.passes.base import LayerPass, apply_passes
from fastdeploy_diffusion.passes.graph.fuse_silu import FuseSiLU
from fastdeploy_diffusion.passes.layer.hoist_invariants import HoistInvariants
from fastdeploy_diffusion.passes.registry import choose_passes, pass_names

PAGE = Path(__file__).parents[2] / "docs" / "passes.md"
# Of these nothing is promised: they follow from the passes before.
FOLLOW = ("channels-last", "resize-nearest")


def make_sdxl_text_encoder(encoder, config):
    return TextConditioner(encoder(CLIPTextConfig.from_dict(config)), normalize=False)


SDXL_MAKERS = {
    **SD_MAKERS,
    "text_encoder": partial(make_sdxl_text_encoder, CLIPTextModel),
    "text_encoder_2": partial(make_sdxl_text_encoder, CLIPTextModelWithProjection),
}
# Column → (configs, makers, the components by their names in the table).
SD_NAMES = {"unet": "UNet", "text_encoder": "text encoder", "vae": "VAE"}
SDXL_NAMES = {
    "unet": "UNet",
    "text_encoder": "first text encoder",
    "text_encoder_2": "second text encoder",
    "vae": "VAE",
}
FLUX_NAMES = {
    "transformer": "transformer",
    "text_encoder": "CLIP",
    "text_encoder_2": "T5",
    "vae": "VAE",
}
MODELS = {
    "SD 1.5": (SD_1_5, SD_MAKERS, SD_NAMES),
    "SDXL": (SDXL_BASE, SDXL_MAKERS, SDXL_NAMES),
    "dev": (FLUX_DEV, FLUX_MAKERS, FLUX_NAMES),
    "schnell": (FLUX_SCHNELL, FLUX_MAKERS, FLUX_NAMES),
}
COLUMNS = {"SD 1.5": -3, "SDXL": -2, "dev": -1, "schnell": -1}


def read_tables():
    """By pass: the cells of its row."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return {row[0].strip("`"): row for row in rows if row[0].strip("`") in pass_names()}


def read_cell(cell, model):
    """By component: the count that a cell gives; components without one are left out."""
    if found := re.search(r"(\d+) \(schnell (\d+)\)", cell):
        cell = cell.replace(found[0], found[2] if model == "schnell" else found[1])
    cell = re.sub(r" \(.*?\)", "", cell)
    cell = re.sub(
        r"text encoders (\d+) \+ (\d+)", r"first text encoder \1, second text encoder \2", cell
    )
    counts = {}
    for part in filter(None, cell.split(", ")):
        name, numbers = re.fullmatch(r"([\w ]*?) (\d+(?: \+ \d+)*)", part).groups()
        counts[name] = sum(map(int, numbers.split(" + ")))
    return counts


def test_every_pass_has_a_row_in_the_tables():
    assert list(read_tables()) == list(pass_names())


@pytest.mark.parametrize("model", MODELS)
def test_the_tables_count_what_the_configs_promise(model):
    configs, makers, names = MODELS[model]
    wanted = {
        name: read_cell(row[COLUMNS[model]], model)
        for name, row in read_tables().items()
        if name not in FOLLOW
    }
    assert {part for counts in wanted.values() for part in counts} <= set(names.values())
    passes = choose_passes(list(wanted))
    layer_passes = [each for each in passes if isinstance(each, LayerPass)]
    for component, name in names.items():
        make = partial(makers[component], configs[component])
        network = build_skeleton(make)
        promised = {each.name: each.expect(network) for each in passes}
        assert promised == {each: counts.get(name, 0) for each, counts in wanted.items()}, name
        # Layer passes take no values, so they are applied to the whole as well: the exact ones, and
        # those that change the picture, of which the others would find less.
        changing = [each for each in layer_passes if each.changes_picture]
        exact = [each for each in layer_passes if not each.changes_picture]
        results, _ = apply_passes(exact, network, strict=True)
        results += apply_passes(changing, build_skeleton(make), strict=True)[0]
        assert {each.name: each.count for each in results} == {
            each.name: promised[each.name] for each in layer_passes
        }, name


@pytest.mark.parametrize(("model", "configs"), [("SD 1.5", SD_1_5), ("SDXL", SDXL_BASE)])
def test_hoisting_takes_silus_away(model, configs):
    network = build_skeleton(partial(SD_MAKERS["unet"], configs["unet"]))
    apply_passes([HoistInvariants()], network, strict=True)
    cell = read_tables()["fuse-silu"][COLUMNS[model]]
    assert f"({FuseSiLU().expect(network)} after `hoist-invariants`)" in cell
