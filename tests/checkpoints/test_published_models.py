"""Full-size names and shapes against diffusers and transformers, without memory or disk space."""

from math import prod

import pytest
from checkpoint_writers import write_json, write_sparse
from ldm_reference import single_file

from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.families.published import sd as published
from fastdeploy_diffusion.families.registry import FAMILIES

reference_shapes = pytest.importorskip("published_reference").reference_shapes

CONFIGS = {
    "sd1": published.SD_1_5,
    "sd2": published.SD_2_1,
    "sdxl": published.SDXL_BASE,
    "sdxl-refiner": published.SDXL_REFINER_1,
}
COMPONENTS = [(family, name) for family in CONFIGS for name in FAMILIES[family].networks]
# Parameters of the published models, counted by their publishers' model cards and papers.
SIZES = {"sd1": 859_520_964, "sd2": 865_910_724, "sdxl": 2_567_463_684}


@pytest.fixture(scope="module", params=CONFIGS)
def opened(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "model.safetensors"
    return open_checkpoint(write_sparse(path, single_file(request.param)))


def test_single_file_gives_exactly_the_names_and_shapes_of_the_reference(opened):
    for component in opened.family.networks:
        source = opened.tensors(component)
        ours = {name: source.shape(name) for name in source}
        assert ours == reference_shapes(CONFIGS[opened.family.name][component]), component


def test_single_file_is_told_from_its_names(opened, request):
    assert opened.path.parent.name.startswith(opened.family.name)
    assert opened.components == (*opened.family.networks, "scheduler")
    assert opened.folder("tokenizer") is None
    for component in opened.components:
        assert opened.config(component) == CONFIGS[opened.family.name][component]


@pytest.mark.parametrize("family", SIZES)
def test_published_config_has_the_published_size(family):
    shapes = reference_shapes(CONFIGS[family]["unet"])
    assert sum(prod(shape) for shape in shapes.values()) == SIZES[family]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_folder_gives_exactly_the_names_and_shapes_of_the_reference(family, prefix, tmp_path):
    classes = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    }
    names = FAMILIES[family].networks
    tokenizers = list(FAMILIES[family].tokenizers)
    write_json(
        tmp_path / "model_index.json",
        {
            "_class_name": FAMILIES[family].index_class,
            "scheduler": ["diffusers", CONFIGS[family]["scheduler"]["_class_name"]],
            **{name: ["transformers", "CLIPTokenizer"] for name in tokenizers},
            **{name: ["diffusers", classes[name]] for name in names},
        },
    )
    write_json(tmp_path / "scheduler/scheduler_config.json", CONFIGS[family]["scheduler"])
    expected = {}
    for name in names:
        write_json(tmp_path / name / "config.json", CONFIGS[family][name])
        expected[name] = reference_shapes(CONFIGS[family][name])
        stored = expected[name]
        stem = "diffusion_pytorch_model"
        if name.startswith("text_encoder"):
            stem = "model"
            stored = {
                key if key == "text_projection.weight" else prefix + key: shape
                for key, shape in stored.items()
            }
        write_sparse(tmp_path / name / f"{stem}.safetensors", stored)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.family.name == family
    for name in names:
        source = checkpoint.tensors(name)
        assert {key: source.shape(key) for key in source} == expected[name]
