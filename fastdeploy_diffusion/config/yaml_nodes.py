"""Builds values from YAML nodes: each key once and text, safe tags only, aliases bounded."""

from typing import Any

import yaml

from fastdeploy_diffusion.config.yaml_scalars import CORE_TAGS, STR_TAG, parse_scalar
from fastdeploy_diffusion.errors import ConfigError

# Counted with every alias expanded, against "billion laughs" files.
MAX_VALUES = 10_000


def refuse_at(
    file: str, line: int, column: int, problem: str, *, allowed: str = "", fix: str
) -> ConfigError:
    """Make the error of a place in a file; both numbers start at 1."""
    return ConfigError(f"{file}:{line}:{column}: {problem}", allowed=allowed, fix=fix)


def place_of(node: yaml.Node) -> tuple[int, int]:
    """Line and column of a node's first character; both numbers start at 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def build_value(root: yaml.Node, file: str) -> Any:
    """Build the value of a node tree: dict, list, str, int, float, bool or None.

    Args:
        root: The tree; its scalars' tags are those of the core schema.
        file: Its name in error messages.

    Raises:
        ConfigError: A key repeats or is not text, a tag is not of the core schema or does not fit
            its scalar, a value contains itself, or aliases multiply beyond `MAX_VALUES`.
    """
    return _ValueBuilder(file).build(root)[0]


class _ValueBuilder:
    def __init__(self, file: str) -> None:
        self._file = file
        self._built: dict[yaml.Node, tuple[Any, int]] = {}  # a node that aliases share: once
        self._open: set[yaml.Node] = set()

    def build(self, node: yaml.Node) -> tuple[Any, int]:
        """Build a node's value; the second number counts its values, aliases written out."""
        if node in self._built:
            return self._built[node]
        if node in self._open:
            raise self._refuse(node, "a value contains itself", fix="remove the alias")
        self._check_tag(node)
        self._open.add(node)
        value: Any
        sizes: list[int] = []
        if isinstance(node, yaml.MappingNode):
            value = {}
            for key, child in self._read_entries(node):
                value[key], size = self.build(child)
                sizes.append(size)
        elif isinstance(node, yaml.SequenceNode):
            value = []
            for child in node.value:
                item, size = self.build(child)
                value.append(item)
                sizes.append(size)
        else:
            value = self._build_scalar(node)
        self._open.remove(node)
        total = 1 + sum(sizes)
        if total > MAX_VALUES:
            problem = f"more than {MAX_VALUES:,} values, aliases written out"
            raise self._refuse(node, problem, fix="use fewer values or aliases")
        self._built[node] = value, total
        return value, total

    def _read_entries(self, node: yaml.MappingNode) -> list[tuple[str, yaml.Node]]:
        first: dict[str, yaml.Node] = {}
        entries = []
        for key, child in node.value:
            if key.tag != STR_TAG:
                raise self._refuse(key, "a key is not text", fix="put the key in quotes")
            if key.value == "<<":
                raise self._refuse(
                    key,
                    "merge keys ('<<') are YAML 1.1",
                    allowed="YAML 1.2",
                    fix="write the entries out, or name a base with 'preset:'",
                )
            if key.value in first:
                line, column = place_of(first[key.value])
                raise self._refuse(
                    key,
                    f"key {key.value!r} was already given at {self._file}:{line}:{column}",
                    allowed="each key once",
                    fix="remove one of the two",
                )
            first[key.value] = key
            entries.append((key.value, child))
        return entries

    def _check_tag(self, node: yaml.Node) -> None:
        allowed = CORE_TAGS[type(node)]
        if node.tag not in allowed:
            raise self._refuse(
                node,
                f"tag {_shorten(node.tag)} is not allowed here",
                allowed=", ".join(map(_shorten, allowed)),
                fix="remove the tag",
            )

    def _build_scalar(self, node: yaml.Node) -> str | int | float | bool | None:
        try:
            return parse_scalar(node.tag, node.value)
        except ValueError as error:
            raise self._refuse(node, str(error), fix="correct the value or its tag") from None

    def _refuse(self, node: yaml.Node, problem: str, *, allowed: str = "", fix: str) -> ConfigError:
        return refuse_at(self._file, *place_of(node), problem, allowed=allowed, fix=fix)


def _shorten(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
