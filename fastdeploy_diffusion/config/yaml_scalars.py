"""Scalars of the YAML 1.2 core schema: which text is a number, a boolean, null, or a string.

Source: https://yaml.org/spec/1.2.2/#1032-tag-resolution.
"""

import re
from typing import Any

import yaml

MAX_DIGITS = 1000

_PREFIX = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, STR_TAG = (
    _PREFIX + name for name in ("null", "bool", "int", "float", "str")
)

# Tried in this order; what matches none is a string.
_PATTERNS = {
    _NULL: re.compile(r"(?:null|Null|NULL|~|)\Z"),
    _BOOL: re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    _INT: re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    _FLOAT: re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}

CORE_TAGS: dict[type[yaml.Node], tuple[str, ...]] = {
    yaml.ScalarNode: (*_PATTERNS, STR_TAG),
    yaml.SequenceNode: (_PREFIX + "seq",),
    yaml.MappingNode: (_PREFIX + "map",),
}


class CoreLoader(yaml.SafeLoader):
    """PyYAML's parser with the core schema's scalars in place of YAML 1.1's."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's registry, emptied


for _tag, _pattern in _PATTERNS.items():
    CoreLoader.add_implicit_resolver(_tag, _pattern, [None])


def parse_scalar(tag: str, text: str) -> str | int | float | bool | None:
    """Read a scalar by its tag.

    Args:
        tag: One of the core schema's scalar tags (``tag:yaml.org,2002:int`` …).
        text: The scalar as written, without quotes.

    Raises:
        ValueError: ``text`` is not of the form that the tag asks for, or a number too long to read.
    """
    if tag == STR_TAG:
        return text
    if not _PATTERNS[tag].match(text):
        raise ValueError(f"{text!r} is not a value of type !!{tag.removeprefix(_PREFIX)}")
    if tag == _NULL:
        return None
    if tag == _BOOL:
        return text.lower() == "true"
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} characters is too long to read")
    if tag == _INT:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
