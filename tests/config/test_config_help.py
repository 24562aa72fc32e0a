"""What ``help`` and editors show of a configuration."""

import inspect
from typing import Any

import pytest

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.config import ComponentConfig, RequestDefaults


def test_the_signature_names_every_option_without_its_validators() -> None:
    shown = inspect.signature(DiffusionConfig)
    assert list(shown.parameters) == list(DiffusionConfig.model_fields)
    assert "Validator" not in str(shown)
    assert "<function" not in str(shown)
    assert shown.parameters["engine"].default == "auto"
    assert shown.parameters["model_path"].default is inspect.Parameter.empty


@pytest.mark.parametrize("section", [DiffusionConfig, RequestDefaults, ComponentConfig])
def test_help_explains_every_option(section: Any) -> None:
    text = inspect.getdoc(section) or ""
    for name, field in section.model_fields.items():
        assert f"\n    {name}: " in text
        assert " ".join((field.description or "").split()) in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
