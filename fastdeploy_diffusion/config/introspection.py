"""Signatures and docstrings of sections, for ``help`` and editors."""

import re
import textwrap
from collections.abc import Mapping
from inspect import Parameter, Signature, cleandoc
from typing import TYPE_CHECKING, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from fastdeploy_diffusion.config.sections import ConfigSection

_WIDTH = 100


def make_signature(section: "type[ConfigSection]") -> Signature:
    """Make a signature of the options: types without validators, None for sections left out."""
    types = get_type_hints(section)  # those of the fields, without what validates them
    return Signature(
        [
            Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                default=_show_default(field),
                annotation=types[name] | None if _is_section(field) else types[name],
            )
            for name, field in section.model_fields.items()
        ]
    )


def write_docstring(section: "type[ConfigSection]") -> str:
    """Insert a list of the options into the docstring, before ``Raises``."""
    explained = {name: f"{_explain(field)}." for name, field in section.model_fields.items()}
    return list_arguments(section.__doc__ or "", explained)


def list_arguments(docstring: str, explained: Mapping[str, str]) -> str:
    """Insert a list of arguments into a docstring, before ``Returns`` and ``Raises``."""
    before, *after = re.split(r"\n(?=(?:Returns|Raises):\n)", cleandoc(docstring), maxsplit=1)
    listed = [
        textwrap.fill(
            f"{name}: {text}",
            _WIDTH,
            initial_indent=" " * 4,
            subsequent_indent=" " * 8,
            break_on_hyphens=False,
        )
        for name, text in explained.items()
    ]
    return "\n".join([before.rstrip(), "", "Args:", *listed, *(f"\n{each}" for each in after)])


def _show_default(field: FieldInfo) -> object:
    if field.is_required():
        return Parameter.empty
    return None if _is_section(field) else field.default


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.default, BaseModel)


def _explain(field: FieldInfo) -> str:
    return "; ".join(filter(None, (field.title, field.description)))
