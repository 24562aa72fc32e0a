"""The records of families agree with what they name, and need no Paddle."""

import subprocess
import sys

import pytest

from fastdeploy_diffusion.families.networks.census import Convolution, Site
from fastdeploy_diffusion.families.registry import FAMILIES, name_families
from fastdeploy_diffusion.lazy import load

COMPONENTS = [(family, part) for family in FAMILIES.values() for part in family.networks]
IDS = [f"{family.name} {part}" for family, part in COMPONENTS]


def test_records_are_read_without_paddle():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('paddle', 'onnx', 'paddle2onnx', 'torch')))\n"
        "from fastdeploy_diffusion.families.registry import FAMILIES\n"
        "for family in FAMILIES.values():\n"
        "    for published in family.published.values():\n"
        "        for part, kind in family.networks.items():\n"
        "            assert kind.config.from_dict(published.configs[part]).census()\n"
        "    print(family.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(FAMILIES)


@pytest.mark.parametrize(("family", "part"), COMPONENTS, ids=IDS)
def test_a_component_s_layer_is_the_class_of_its_record(family, part):
    kind = family.networks[part]
    layer = load(f"fastdeploy_diffusion.models.{kind.module}:{kind.name}")
    assert layer.__name__ == kind.name
    assert kind.role in ("text_encoder", "denoiser", "vae")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_layouts_and_published_models_have_every_component(family):
    assert set(family.components) == {*family.networks, "scheduler", *family.tokenizers}
    for layout in family.layouts:
        assert set(layout.prefixes) == set(layout.rules) == set(family.networks)
    for published in family.published.values():
        assert set(published.configs) == {*family.networks, "scheduler"}


@pytest.mark.parametrize(("family", "part"), COMPONENTS, ids=IDS)
def test_a_census_counts_kinds_of_sites(family, part):
    for published in family.published.values():
        config = family.networks[part].config.from_dict(published.configs[part])
        census = config.census()
        assert all(isinstance(site, Site | Convolution) for site in census)
        assert all(count >= 0 for count in census.values())
        assert census[Site.SELF_ATTENTION] > 0


def test_families_are_named_in_a_sentence():
    assert name_families() == "SD 1.x, SD 2.x, SDXL, SDXL's refiner or Flux"
