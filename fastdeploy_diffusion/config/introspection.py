"""What ``help`` and editors show of a section: every option with type, default and meaning."""

import textwrap
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from fastdeploy_diffusion.config.sections import ConfigSection

_WIDTH = 100


def make_signature(section: "type[ConfigSection]") -> Signature:
    """Give the options as keywords: types without validators, None for sections left out."""
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
    """Give the docstring with a list of the options in front of what it raises."""
    before, raises, after = (section.__doc__ or "").partition("\n    Raises:")
    options = [
        textwrap.fill(
            f"{name}: {_explain(field)}.",
            _WIDTH,
            initial_indent=" " * 8,
            subsequent_indent=" " * 12,
            break_on_hyphens=False,
        )
        for name, field in section.model_fields.items()
    ]
    listed = "\n".join(["    Args:", *options])
    return f"{before.rstrip()}\n\n{listed}\n{raises}{after}"


def _show_default(field: FieldInfo) -> object:
    if field.is_required():
        return Parameter.empty
    return None if _is_section(field) else field.default


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.default, BaseModel)


def _explain(field: FieldInfo) -> str:
    return "; ".join(filter(None, (field.title, field.description)))
