"""Files of prompts: a text with one a line, or a CSV or JSONL table with settings of requests."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from fastdeploy_diffusion.errors import RequestError, ResourceError
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.requests.request import GenerationRequest, check_names
from fastdeploy_diffusion.seed_range import read_seed_range
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.text_file import read_text_file

MOST_ROWS = 100_000
_MOST_BYTES = 1 << 26
_IMAGES = "num_images_per_prompt"
_ALLOWED = (
    "a .txt file with a prompt a line, a .csv file with a header, or a .jsonl file with an object "
    "a line"
)
_SPLIT = "split it into several files"
_BOOLEANS = {"true": True, "false": False}
_OTHER_FILES = {
    ".json": "jq -c '.[]' {0} > {1}.jsonl",
    ".tsv": "save it as .csv, with commas",
    ".xlsx": "save it as .csv",
    ".yaml": "save it as .jsonl",
}

Row: TypeAlias = tuple[int, dict[str, Any]]
"""The number of a line, and the settings in it."""


@dataclass(frozen=True)
class PromptRow:
    """One row of a file of prompts.

    Args:
        file: The file's name.
        line: The number of its line, from 1; of several, the first.
        settings: Those that it gives, as keyword arguments of a request.
    """

    file: str
    line: int
    settings: Mapping[str, Any]

    def tell_place(self) -> Any:
        """Put file and line in front of what errors say within a block."""
        return _tell_place(self.file, self.line)


def read_prompt_file(
    path: str | os.PathLike[str], request_class: type[GenerationRequest] = GenerationRequest
) -> list[PromptRow]:
    """Read a file of prompts; ``GenerationRequest(**row.settings)`` makes the request of a row.

    Its name says what it is: ``.txt`` (or no ending) has a prompt a line, without blank lines and
    those that begin with ``#``; ``.csv`` has a header with names of settings, and empty cells where
    one is left out; ``.jsonl`` has an object a line. A ``seed`` may be a range, as ``1-8``, which
    is a picture of each. Values are checked by the request.

    Args:
        path: The file, in UTF-8.
        request_class: Its fields are the settings that a row may have.

    Raises:
        RequestError: The file cannot be read, is empty or too large, or names a setting that there
            is not; the message tells the line.
    """
    file = Path(path).expanduser()
    suffix = file.suffix.lower()
    if suffix not in _READERS:
        fix = _OTHER_FILES.get(suffix, "").format(file, file.with_suffix(""))
        raise RequestError(f"{file} is no file of prompts by its name", allowed=_ALLOWED, fix=fix)
    text = read_text_file(file, _MOST_BYTES, RequestError, allowed=_ALLOWED, fix=_SPLIT)
    names = [each.name for each in fields(request_class) if _may_be_given(each.name)]
    rows: list[PromptRow] = []
    for line, settings in _READERS[suffix](file.name, text, names):
        if len(rows) == MOST_ROWS:
            allowed = f"at most {MOST_ROWS:,}"
            raise RequestError(f"{file} has too many rows", allowed=allowed, fix=_SPLIT)
        with _tell_place(file.name, line):
            rows.append(PromptRow(file.name, line, _spread_seeds(settings)))
    if not rows:
        raise RequestError(f"{file} has no prompts", allowed=_ALLOWED, fix="write some into it")
    return rows


def _may_be_given(name: str) -> bool:
    return FIELDS[name].kind is not None or name == _IMAGES


@contextmanager
def _tell_place(file: str, line: int) -> Iterator[None]:
    try:
        yield
    except (RequestError, ResourceError) as error:
        kind = RequestError if isinstance(error, RequestError) else ResourceError
        problem = f"{file}, line {line}: {error.problem}"
        raise kind(problem, allowed=error.allowed, fix=error.fix) from error


def _read_lines(file: str, text: str, names: Sequence[str]) -> Iterator[Row]:
    for line, prompt in _number_lines(text):
        if not prompt.startswith("#"):
            yield line, {"prompt": prompt}


def _number_lines(text: str) -> Iterator[tuple[int, str]]:
    # Not `splitlines`, which ends lines at characters that a prompt may hold.
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if stripped := line.strip():
            yield number, stripped


def _read_table(file: str, text: str, names: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        with _tell_place(file, line):
            try:
                cells = [each.strip() for each in next(reader)]
            except StopIteration:
                return
            except csv.Error as error:
                raise RequestError(
                    f"the row cannot be read: {error}",
                    allowed="cells with commas between them; in double quotes, with those inside "
                    'written twice, where a cell has a comma or a quote: "a ""red"" star, large"',
                ) from error
            if not any(cells):
                continue
            if not header:
                _check_header(cells, names)
                header = cells
                continue
            if len(cells) != len(header):
                raise RequestError(
                    f"the row and the header have {len(cells)} and {len(header)} cells",
                    allowed="as many cells as columns, empty where a setting is left out",
                    fix="put a prompt with commas in double quotes",
                )
            pairs = zip(header, cells, strict=True)
            yield line, {name: _read_cell(name, cell) for name, cell in pairs if cell}


def _check_header(header: Sequence[str], names: Sequence[str]) -> None:
    if len(header) == 1 and (separator := next((each for each in ";\t" if each in header[0]), "")):
        raise RequestError(
            f"the header has one column, with {separator!r} in its name",
            allowed="columns with commas between them",
            fix="save the table with commas",
        )
    for number, name in enumerate(header, 1):
        if not name:
            raise RequestError(f"column {number} has no name", allowed=", ".join(names))
        if header.index(name) != number - 1:
            raise RequestError(f"the column {name!r} is there twice", fix="leave one out")
    check_names(header, names, "column")


def _read_cell(name: str, text: str) -> Any:
    """Read a value as its field has it; the request refuses what stays a text."""
    kind = FIELDS[name].kind if name != _IMAGES else int
    try:
        if kind is bool:
            return _BOOLEANS.get(text.lower(), text)
        if kind in (list, float) and text.startswith("["):
            return json.loads(text)
        return kind(text) if kind in (int, float) else text
    except (ValueError, RecursionError):
        return text


def _read_objects(file: str, text: str, names: Sequence[str]) -> Iterator[Row]:
    for line, content in _number_lines(text):
        with _tell_place(file, line):
            settings = _read_object(content)
            check_names(settings, names, "key")
            yield line, {name: each for name, each in settings.items() if each is not None}


def _read_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_collect, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # no half of a character
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"the line is not JSON ({error})", allowed='an object a line: {"prompt": "a star"}'
        ) from error
    if not isinstance(value, dict):
        raise RequestError(
            f"the line holds {show(value)}", allowed='an object: {"prompt": "a star", "seed": 1}'
        )
    prompt = value.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise RequestError(f"prompt is {show(prompt)}", allowed="a text: one prompt a row")
    return value


def _collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"the key {twice!r} is there twice", fix="leave one out")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _spread_seeds(settings: dict[str, Any]) -> dict[str, Any]:
    """Turn a range of seeds into the first one and a number of pictures."""
    given = settings.get("seed")
    seeds = read_seed_range(given) if isinstance(given, str) else None
    if isinstance(given, list) or (isinstance(given, str) and not seeds):
        hint = f"seed {seeds.stop - 1}-{seeds.start}" if seeds is not None else ""
        raise RequestError(
            f"seed is {show(given)}", allowed="a whole number, or FIRST-LAST, as '1-8'", fix=hint
        )
    if seeds is None:
        return settings
    if settings.get(_IMAGES, len(seeds)) != len(seeds):
        raise RequestError(
            f"the seeds {seeds.start}-{seeds.stop - 1} are {len(seeds)} pictures, and {_IMAGES} is "
            f"{show(settings[_IMAGES])}",
            fix=f"leave {_IMAGES} out",
        )
    return {**settings, "seed": seeds.start, _IMAGES: len(seeds)}


_READERS: Mapping[str, Callable[[str, str, Sequence[str]], Iterator[Row]]] = {
    "": _read_lines,
    ".txt": _read_lines,
    ".csv": _read_table,
    ".jsonl": _read_objects,
    ".ndjson": _read_objects,
}
