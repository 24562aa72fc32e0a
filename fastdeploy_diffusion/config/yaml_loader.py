"""Strict YAML files: scalars of YAML 1.2, positions kept, duplicate keys refused.

PyYAML scans and parses; it resolves scalars by YAML 1.1, where ``on`` is a boolean, ``1e-3`` a
string and ``017`` fifteen, so they are resolved in `yaml_scalars`, and the tree in `yaml_nodes`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from fastdeploy_diffusion.config.yaml_nodes import build_value, place_of, refuse_at
from fastdeploy_diffusion.config.yaml_scalars import CoreLoader
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.suggest import did_you_mean

MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class YamlDocument:
    """A mapping read from a YAML file, which knows where each of its entries stands.

    Attributes:
        file: The path as the caller gave it; error messages begin with it.
        data: The content: dict, list, str, int, float, bool, None.
        root: The node tree that ``data`` was made from.
    """

    file: str
    data: dict[str, Any]
    root: yaml.MappingNode

    def locate(self, path: Sequence[str], *, key: bool) -> str:
        """Locate an entry, as ``file:line:column``.

        Args:
            path: Keys from the root to the entry; its last found part is where the search ends.
            key: Whether the place of the entry's key is wanted, not that of its value.
        """
        node: yaml.Node = self.root
        found = node
        for part in path:
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            pair = next((pair for pair in pairs if pair[0].value == part), None)
            if pair is None:
                break
            node = pair[1]
            found = pair[0] if key else node
        line, column = place_of(found)
        return f"{self.file}:{line}:{column}"


def load_yaml(path: str | os.PathLike[str]) -> YamlDocument:
    """Read a YAML file that holds one mapping.

    Args:
        path: The file; UTF-8, at most 1 MiB.

    Raises:
        ConfigError: The file cannot be read, is not UTF-8 or not YAML, is empty, or holds something
            other than one mapping; and what `build_value` refuses.
    """
    file = os.fspath(path)
    text = _read_text(file)
    try:
        root = _compose(text)
        if root is None:
            raise refuse_at(
                file, 1, 1, "the file is empty", allowed="one mapping", fix="write an option a line"
            )
        if not isinstance(root, yaml.MappingNode):
            raise refuse_at(
                file,
                *place_of(root),
                "the file does not hold a mapping",
                allowed="lines of the form 'option: value'",
                fix="write a space after each colon, and no '-' before the options",
            )
        return YamlDocument(file, build_value(root, file), root)
    except RecursionError:
        raise refuse_at(file, 1, 1, "the file is nested too deeply", fix="flatten it") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        raise refuse_at(
            file,
            before.count("\n") + 1,
            len(before) - before.rfind("\n"),
            f"character {text[error.position]!r} is not allowed in YAML",
            fix="remove it, or write it as an escape in double quotes",
        ) from None
    except yaml.MarkedYAMLError as error:
        raise _explain_syntax(file, error) from None


def _compose(text: str) -> yaml.Node | None:
    loader = CoreLoader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _explain_syntax(file: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if error.problem and r"'\t'" in error.problem:
        return refuse_at(
            file, line, column, "a tab where YAML wants spaces", allowed="spaces", fix="use spaces"
        )
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    return refuse_at(file, line, column, problem, allowed="YAML 1.2", fix="correct the syntax here")


def _read_text(file: str) -> str:
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        folder, name = os.path.split(file)
        beside = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        raise ConfigError(
            f"{file}: there is no such file",
            allowed="the path of a YAML file",
            fix=did_you_mean(name, beside) or "check the path",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ConfigError(
            f"{file!r} cannot be read: {getattr(error, 'strerror', None) or error}",
            allowed="the path of a YAML file",
            fix="give a file that you may read",
        ) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{file}: the file is too large for a configuration",
            allowed=f"at most {MAX_BYTES:,} bytes",
            fix="check the path",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The bytes that it names come after a byte order mark, if there is one.
        before = error.object[: error.start].decode()
        raise refuse_at(
            file,
            before.count("\n") + 1,
            len(before) - before.rfind("\n"),
            "the file is not UTF-8",
            allowed="UTF-8",
            fix="save it as UTF-8",
        ) from None
