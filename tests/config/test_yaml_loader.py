import math
from pathlib import Path

import pytest

from fastdeploy_diffusion.config.yaml_loader import MAX_BYTES, YamlDocument, load_yaml
from fastdeploy_diffusion.errors import ConfigError


def load(folder: Path, content: str | bytes) -> YamlDocument:
    file = folder / "file.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_yaml(file)


def refuse(folder: Path, content: str | bytes) -> str:
    """The message, with the folder cut off: it begins with ``file.yaml:line:column``."""
    with pytest.raises(ConfigError) as caught:
        load(folder, content)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5E+2", -150.0),
        ("1e1", 10.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("017", 17),
        ("-017", -17),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("!!float 2", 2.0),
        ("&a text", "text"),
        # What YAML 1.1 would read as booleans, numbers, dates:
        *((word, word) for word in ("on", "off", "yes", "no", "y", "n", "On", "NO", "tRUE")),
        *((word, word) for word in ("1_000", "0b11", "12:30:45", "2024-01-01", "-0x1f", "1e")),
        *((word, word) for word in ("~x", "=", ".", "+", "nan", "inf", "+.nan", "٣")),
    ],
)
def test_scalar_is_read_by_the_yaml_1_2_core_schema(
    tmp_path: Path, text: str, value: object
) -> None:
    got = load(tmp_path, f"key: {text}\n").data["key"]
    assert (type(got), got) == (type(value), value)


def test_nan_is_read(tmp_path: Path) -> None:
    assert math.isnan(load(tmp_path, "key: .nan").data["key"])


def test_collections_aliases_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    text = "\ufeff%YAML 1.2\n---\nbase: &b {on: [1, 'two']}\nagain: *b\n中文: 图\n"
    assert load(tmp_path, text).data == {
        "base": {"on": [1, "two"]},
        "again": {"on": [1, "two"]},
        "中文": "图",
    }


def test_entries_are_located(tmp_path: Path) -> None:
    document = load(tmp_path, "a: 1\nsection:\n  height:   512\n")
    file = tmp_path / "file.yaml"
    assert document.locate(("section", "height"), key=True) == f"{file}:3:3"
    assert document.locate(("section", "height"), key=False) == f"{file}:3:13"
    assert document.locate(("section", "absent"), key=True) == f"{file}:2:1"
    assert document.locate((), key=True) == f"{file}:1:1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "1:1: the file is empty"),
        ("# only a comment\n", "1:1: the file is empty"),
        ("- a\n", "1:1: the file does not hold a mapping"),
        ("\n  text\n", "2:3: the file does not hold a mapping"),
        ("null\n", "1:1: the file does not hold a mapping"),
        ("a: 1\nb: 2\na: 3\n", "3:1: key 'a' was already given at file.yaml:1:1"),
        ("s:\n  a: 1\n  'a': 3\n", "3:3: key 'a' was already given at file.yaml:2:3"),
        ("s:\n\ta: 1\n", "2:1: a tab where YAML wants spaces"),
        ("a: 1\n\tb: 2\n", "2:1: a tab where YAML wants spaces"),
        (b"a: 1\nb: \xe9\n", "2:4: the file is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "1:1: the file is not UTF-8"),
        ("a: é\nb: \x07\n", "2:4: character '\\x07' is not allowed"),
        ("a: !!python/object/apply:os.getcwd []\n", "1:4: tag !!python/object/apply:os.getcwd"),
        ("a: !!binary aGk=\n", "1:4: tag !!binary is not allowed"),
        ("a: !!timestamp 2024-01-01\n", "1:4: tag !!timestamp is not allowed"),
        ("a: !!set {x}\n", "1:4: tag !!set is not allowed"),
        ("a: !mine 1\n", "1:4: tag !mine is not allowed"),
        ("a: !!int x\n", "1:4: 'x' is not a value of type !!int"),
        ("a: !!bool yes\n", "1:4: 'yes' is not a value of type !!bool"),
        (f"a: {'9' * 5000}\n", "1:4: a number of 5,000 characters is too long"),
        (f"a: 0x{'9' * 5000}\n", "1:4: a number of 5,002 characters is too long"),
        ("1: a\n", "1:1: a key is not text"),
        ("a:\n  null: 1\n", "2:3: a key is not text"),
        ("? [a]\n: 1\n", "1:3: a key is not text"),
        ("b: &b {x: 1}\na:\n  <<: *b\n", "3:3: merge keys ('<<') are YAML 1.1"),
        ("a: *b\n", "1:4: found undefined alias 'b'"),
        ("a: &a [1, *a]\n", "1:4: a value contains itself"),
        ("a: [1\nb: 2\n", "2:2: while parsing a flow sequence"),
        ("a: 1\n---\nb: 2\n", "2:1: expected a single document"),
        ("a: 'open\n", "2:1: while scanning a quoted scalar"),
        ("a: b: c\n", "1:5: mapping values are not allowed here"),
        ("%YAML 2.0\n---\na: 1\n", "1:1: found incompatible YAML document"),
        ("a: " + "[" * 700, "1:1: the file is nested too deeply"),
    ],
)
def test_file_is_refused_with_the_place(tmp_path: Path, content: str | bytes, message: str) -> None:
    text = refuse(tmp_path, content)
    assert text.startswith(f"file.yaml:{message}")
    assert "\n  fix: " in text


def test_billion_laughs_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["x0: &x0 [ha, ha]", *(f"x{i}: &x{i} [{f'*x{i - 1}, ' * 9}]" for i in range(1, 60))]
    assert "more than 10,000 values" in refuse(tmp_path, "\n".join(lines))


def test_many_aliases_of_a_small_value_are_allowed(tmp_path: Path) -> None:
    data = load(tmp_path, f"a: &a [1, 2]\nb: [{'*a, ' * 100}]\n").data
    assert data["b"] == [[1, 2]] * 100


def test_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "server.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match=r"no such file\n.*\n  fix: did you mean 'server.yaml'"):
        load_yaml(tmp_path / "sever.yaml")
    with pytest.raises(ConfigError, match=r"no such file\n.*\n  fix: check the path"):
        load_yaml(tmp_path / "absent" / "server.yaml")


@pytest.mark.parametrize("path", [".", "a\0b"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(path)


def test_large_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"a" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="too large for a configuration"):
        load_yaml(tmp_path / "weights.safetensors")
