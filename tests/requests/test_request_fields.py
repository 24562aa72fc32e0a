"""What is said of a field once is what flags, pictures, configurations and documents say of it."""

import inspect
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import typer.main

from fastdeploy_diffusion import FluxPipeline, GenerationRequest, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.cli.app import app
from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.images import SETTINGS
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.requests.checked_values import check_number
from fastdeploy_diffusion.requests.flux_request import FluxRequest
from fastdeploy_diffusion.requests.request import MASK_FIELDS, PICTURE_FIELDS
from fastdeploy_diffusion.requests.sdxl_request import SDXLRequest

DOCS = Path(__file__).parents[2] / "docs"
FAMILIES = {"SDXL": SDXLRequest, "Flux": FluxRequest}
HEAD = ["| Name | Value | Left out everywhere |", "|---|---|---|"]


def own_fields(request_class):
    """The fields that not all requests have."""
    common = {each.name for each in fields(GenerationRequest)}
    return [each for each in fields(request_class) if each.name not in common]


def test_every_field_is_described():
    known = dict.fromkeys(each.name for each in fields(GenerationRequest))
    for request_class in FAMILIES.values():
        known |= dict.fromkeys(each.name for each in own_fields(request_class))
    assert set(FIELDS) == set(known)
    for name, field in FIELDS.items():
        has = tuple(
            family
            for family, request_class in FAMILIES.items()
            if name in {each.name for each in own_fields(request_class)}
        )
        assert field.families == has


def test_the_kind_is_that_of_one_value():
    for request_class in (GenerationRequest, *FAMILIES.values()):
        for name, annotation in get_type_hints(request_class).items():
            kind = FIELDS[name].kind
            if kind is not None and FIELDS[name].is_noted:
                one = (get_args(annotation) or (annotation,))[0]
                one = str if get_origin(one) is Literal else one
                assert kind is (list if get_origin(one) else one), name
                assert SETTINGS[name] is kind


def test_defaults_are_in_the_range():
    for request_class in (GenerationRequest, *FAMILIES.values()):
        for each in fields(request_class):
            if FIELDS[each.name].least is not None and each.default not in (None, MISSING):
                assert check_number(each.name, each.default) == each.default


@pytest.mark.parametrize("name", RequestDefaults.model_fields)
def test_a_configuration_has_the_range_of_the_request(name):
    field, option = FIELDS[name], RequestDefaults.model_fields[name]
    assert option.description == f"{field.about}: {field.allowed}"
    if field.least is None:
        return
    for value in (field.least, field.most):
        if value is not None:
            assert getattr(RequestDefaults(**{name: value}), name) == value
    for value in (field.least - 1, field.most and field.most + 1):
        if value is not None:
            with pytest.raises(ConfigError, match=name):
                RequestDefaults(**{name: value})


@pytest.mark.parametrize("name", [name for name in FIELDS if FIELDS[name].flag])
def test_a_flag_is_the_field(name):
    command = typer.main.get_command(app).commands["generate"]
    (option,) = [each for each in command.params if each.name == name]
    assert option.opts == [FIELDS[name].flag]
    assert option.help.startswith(", ".join(FIELDS[name].families))
    assert "`" not in option.help


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("eta", 1.5, "a number of 0 to 1"),
        ("guidance_scale", float("nan"), "a number of 0 to 1000"),
        ("clip_skip", -1, "a whole number of 0 or more"),
        ("max_sequence_length", 513, "1 to 512"),
        ("max_sequence_length", True, "1 to 512"),
        ("num_inference_steps", 2.0, "a whole number of 1 or more"),
        ("num_inference_steps", 2**63, f"1 to {2**63 - 1}"),
    ],
)
def test_a_number_that_is_not_allowed_is_refused(name, value, allowed):
    with pytest.raises(RequestError) as caught:
        check_number(name, value)
    assert caught.value.allowed == allowed


@pytest.mark.parametrize("pipeline_class", [SDPipeline, SDXLPipeline, FluxPipeline])
def test_help_explains_every_field(pipeline_class):
    names = [each.name for each in fields(pipeline_class.request_class)]
    plain = [name for name in names if name not in PICTURE_FIELDS]
    for explained, described in (
        (pipeline_class.text_to_image, plain),
        (pipeline_class.image_to_image, [name for name in names if name not in MASK_FIELDS]),
        (pipeline_class.inpaint, names),
        (pipeline_class.request_class, names),
    ):
        text = " ".join(inspect.getdoc(explained).split())
        for name in described:
            assert f"{name}: {FIELDS[name].text}." in text


@pytest.mark.parametrize(
    ("page", "described"),
    [
        ("generate.md", fields(GenerationRequest)),
        ("sdxl.md", own_fields(SDXLRequest)),
        ("flux.md", own_fields(FluxRequest)),
    ],
)
def test_the_tables_of_the_documents_are_made_of_the_fields(page, described):
    """Whoever changes a field copies the table from here."""
    rows = [
        f"| `{each.name}` | {FIELDS[each.name].text} | {FIELDS[each.name].left_out} |"
        for each in described
    ]
    assert "\n".join([*HEAD, *rows, ""]) in (DOCS / page).read_text(encoding="utf-8")
