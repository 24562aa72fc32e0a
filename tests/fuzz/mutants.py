"""Files of models, spoilt: by structure where they have one, by bytes, and as files."""

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Written in place of `_DEEP`, for no Python function writes it.
_DEEP, _LEVELS = "\x00deep\x00", (20, 200, 100_000)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 77, 1000, 2**31, 2**63, 10**9, 10**18, 10**400),
    *(0.0, -0.5, 0.5, 1e-30, 1e30, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "77", "x", "silu", "gelu", "</s>", "../../x", "\ud800", "\x00", "猫", "y" * 100_000),
    *([], {}, [0], [1, 2], [[]], {"a": 1}, [None], ["x"], [1] * 10_000, _DEEP),
)
_YAML_VALUES = (
    *(b"", b"0", b"-1", b"1e400", b".nan", b"-.inf", b"9" * 30, b"9" * 5000, b"0x", b"true", b"~"),
    *(b"[" * 500, b"{a: 1}", b"[1, 2]", b"&a [*a]", b"!!python/object:os.system x", b"*nothing"),
    *(b"'", b'"\\ud800"', b"\xff", b"\t", b"fp8", b"/", b"y" * 100_000, b"|", b"? a"),
)


@dataclass(frozen=True)
class Mutant:
    """A spoilt file.

    Attributes:
        file: Which, within its model.
        change: In words.
    """

    file: str
    change: str


def spoil(folder: Path, seed: int) -> Mutant:
    """Spoil one file of a model, the same one in the same way for the same seed.

    Args:
        folder: The model, or a folder with one file; afterwards `restore` mends it.
        seed: Chooses the file and what is done to it.
    """
    chance = random.Random(seed)
    files = list_files(folder)
    # Weights are few files and many kinds of damage; tokenizers have the most options.
    path = chance.choice(files)
    change = chance.choices((_change_content, _change_file), (12, 1))[0](chance, path, files)
    return Mutant(str(path.relative_to(folder)), change)


def list_files(folder: Path) -> list[Path]:
    """All files of a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def restore(spoilt: Path, original: Path, file: str) -> None:
    """Put back the file that `spoil` spoilt."""
    path = spoilt / file
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(original / file, path)


def _change_content(chance: random.Random, path: Path, files: list[Path]) -> str:
    content = path.read_bytes()
    structured = _STRUCTURED.get(path.suffix)
    if structured is None or chance.random() < 0.25:
        change, spoilt = _change_bytes(chance, content)
    else:
        change, spoilt = structured(chance, content)
    path.write_bytes(spoilt)
    return change


def _change_file(chance: random.Random, path: Path, files: list[Path]) -> str:
    others = [each for each in files if each.name == path.name and each != path]
    ways = ["removed", "a folder", "a dangling link", "a loop", "a link to its folder"]
    if path.suffix != ".yaml":  # of which a pipe is a good one: --config <(…)
        ways.append("a pipe")
    way = chance.choice(ways + ["another file"] * 4 * bool(others))
    if way == "another file":
        other = chance.choice(others)
        shutil.copyfile(other, path)
        return f"replaced by {other.parent.name}/{other.name}"
    path.unlink()
    if way == "a folder":
        path.mkdir()
    elif way == "a dangling link":
        path.symlink_to("nowhere/at/all")
    elif way == "a loop":
        path.symlink_to(path.name)
    elif way == "a pipe":
        os.mkfifo(path)
    elif way == "a link to its folder":
        path.symlink_to(".")
    return way


def _change_json(chance: random.Random, content: bytes) -> tuple[str, bytes]:
    value = json.loads(content)
    changes = [_change_value(chance, value) for _ in range(chance.choice((1, 1, 1, 2, 4)))]
    return "; ".join(changes), write_json(chance, value)


def write_json(chance: random.Random, value: Any) -> bytes:
    """Write JSON, with what Python will not nest."""
    depth = chance.choice(_LEVELS)
    opening, closing = chance.choice((("[", "]"), ('{"a":', "}")))
    nested = opening * depth + "0" + closing * depth
    return json.dumps(value).replace(json.dumps(_DEEP), nested).encode()


def _change_value(chance: random.Random, root: Any) -> str:
    """Change one place in a tree of dicts and lists, in place."""
    holders = [each for each in _walk(root) if each]
    if not holders:
        return "nothing to change"
    holder = chance.choice(holders[: chance.choice((1, 3, 10, len(holders)))])
    key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    old = holder[key]
    way = chance.choice(("replace", "replace", "nudge", "remove", "rename", "add", "swap", "wrap"))
    if way == "remove":
        del holder[key]
    elif way == "rename" and isinstance(holder, dict):
        holder[chance.choice((f"{key}x", key[:-1], key.upper(), "\ud800"))] = holder.pop(key)
    elif way == "add" and isinstance(holder, dict):
        holder["brand_new"] = _draw_value(chance)
    elif way == "add":
        holder.extend([old] * chance.choice((1, 3, 100)))
    elif way == "swap":
        other = chance.choice(holders)
        values = list(other.values()) if isinstance(other, dict) else other
        # A copy: a tree that holds itself is no JSON.
        holder[key] = json.loads(json.dumps(chance.choice(values)))
    elif way == "wrap":
        holder[key] = chance.choice(([old], {"a": old}, str(old), [old, old]))
    elif way == "nudge" and isinstance(old, (int, float)) and abs(old) < 1e15:
        holder[key] = chance.choice(
            (old + 1, old - 1, -old, old * 2, old // 2, old * 10**6, old / 3)
        )
    else:
        way, holder[key] = "replace", _draw_value(chance)
    return f"{way} {str(key)[:40]!a}"


def _draw_value(chance: random.Random) -> Any:
    """Draw a value of its own: a tree that shares one with another may be changed with it."""
    return copy.deepcopy(chance.choice(_VALUES))


def _walk(value: Any) -> Iterator[Any]:
    """Give a tree's dicts and lists, the outermost first."""
    level = [value]
    while level:
        yield from level
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for each in inner for item in each if isinstance(item, (dict, list))]


def _change_safetensors(chance: random.Random, content: bytes) -> tuple[str, bytes]:
    size = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + size], content[8 + size :]
    way = chance.choice(("header", "header", "tensor", "length", "data", "header bytes"))
    if way == "header":
        change, header = _change_json(chance, header)
        return f"header: {change}", len(header).to_bytes(8, "little") + header + data
    if way == "tensor":
        tensors = json.loads(header)
        name = chance.choice([each for each in tensors if each != "__metadata__"])
        tensor = tensors[name]
        key = chance.choice(("dtype", "shape", "rename", "drop"))
        if key == "dtype":
            tensor["dtype"] = chance.choice(("F32", "F16", "BF16", "F64", "I64", "U8", "F8_E4M3"))
        elif key == "shape":
            tensor["shape"] = chance.choice((tensor["shape"][::-1], [], [0], [*tensor["shape"], 1]))
        elif key == "rename":
            tensors[f"{name}x"] = tensors.pop(name)
        else:
            del tensors[name]
        header = json.dumps(tensors).encode()
        return f"{key} of {name}", len(header).to_bytes(8, "little") + header + data
    if way == "length":
        length = chance.choice((0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1, len(content)))
        return f"length {length}", length.to_bytes(8, "little") + header + data
    if way == "header bytes":
        change, header = _change_bytes(chance, header)
        return f"header: {change}", len(header).to_bytes(8, "little") + header + data
    change, data = _change_bytes(chance, data)
    return f"data: {change}", len(header).to_bytes(8, "little") + header + data


def _change_text(chance: random.Random, content: bytes) -> tuple[str, bytes]:
    lines = content.split(b"\n")
    first, second = (chance.randrange(len(lines)) for _ in range(2))
    way = chance.choice(("remove", "swap", "repeat", "empty", "join", "cut"))
    if way == "remove":
        del lines[first]
    elif way == "swap":
        lines[first], lines[second] = lines[second], lines[first]
    elif way == "repeat":
        lines.insert(second, lines[first])
    elif way == "empty":
        lines[first] = b""
    elif way == "join":
        lines[first] = lines[first].replace(b" ", b"")
    else:
        lines = lines[:first]
    return f"{way} line {first}", b"\n".join(lines)


def _change_yaml(chance: random.Random, content: bytes) -> tuple[str, bytes]:
    lines = content.split(b"\n")
    places = [index for index, line in enumerate(lines) if b":" in line]
    if not places or chance.random() < 0.3:
        return _change_text(chance, content)
    place = chance.choice(places)
    key, _, _ = lines[place].partition(b":")
    value = chance.choice(_YAML_VALUES)
    lines[place] = key + b": " + value
    return f"{value[:40]!r} at line {place}", b"\n".join(lines)


def _change_bytes(chance: random.Random, content: bytes) -> tuple[str, bytes]:
    spoilt = bytearray(content)
    changes: list[Callable[[], str]] = [
        lambda: _flip(chance, spoilt),
        lambda: _overwrite(chance, spoilt),
        lambda: _cut(chance, spoilt),
        lambda: _insert(chance, spoilt),
    ]
    names = [chance.choice(changes)() for _ in range(chance.choice((1, 1, 2, 8)))]
    return "; ".join(names), bytes(spoilt)


def _flip(chance: random.Random, content: bytearray) -> str:
    if content:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return "bit"


def _overwrite(chance: random.Random, content: bytearray) -> str:
    start = chance.randrange(len(content) + 1)
    size = min(chance.choice((1, 4, 64, 4096)), len(content) - start)
    filler = chance.choice((b"\x00", b"\xff", b"\x80", None))
    content[start : start + size] = chance.randbytes(size) if filler is None else filler * size
    return f"{size} bytes"


def _cut(chance: random.Random, content: bytearray) -> str:
    start = chance.choice((0, chance.randrange(len(content) + 1)))
    end = chance.choice((len(content), start + chance.choice((1, 100)), start))
    del content[start:end]
    return "cut"


def _insert(chance: random.Random, content: bytearray) -> str:
    start = chance.randrange(len(content) + 1)
    size = chance.choice((1, 8, 1000))
    content[start:start] = chance.choice((chance.randbytes(size), content[:size], b"[" * size))
    return f"{size} more bytes"


_STRUCTURED = {
    ".json": _change_json,
    ".safetensors": _change_safetensors,
    ".txt": _change_text,
    ".yaml": _change_yaml,
}
