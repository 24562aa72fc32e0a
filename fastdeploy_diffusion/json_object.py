"""Reading of the JSON files that come with a model."""

import json
import re
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.model_files import damage, read_text

# Published models have at most 7 levels. The content is copied, compared and shown by recursive
# functions, which must not run out of stack.
MAX_DEPTH = 32

_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that must hold one JSON object.

    Returns:
        Its content. Every text in it is Unicode, and nothing is nested deeper than ``MAX_DEPTH``;
        numbers may be infinite or none (``NaN``), as diffusers writes them into configs.

    Raises:
        CheckpointError: The file is missing, unreadable, not JSON, or another kind of JSON value.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except RecursionError:
        raise _refuse_depth(path) from None
    except ValueError as error:
        raise damage(path, f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds {_KINDS.get(type(value), 'a number')}", allowed="a JSON object"
        )
    _check_depth(path, value)
    if _HALF_PAIR.search(text):
        _check_texts(path, value)
    return value


_KINDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _check_depth(path: Path, value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        items = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for each in items for item in each if isinstance(item, (dict, list))]
        if not level:
            return
    raise _refuse_depth(path)


def _check_texts(path: Path, value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise damage(path, f"a text in it has {half}, which is half a character") from None


def _refuse_depth(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is nested too deeply", allowed=f"at most {MAX_DEPTH} levels of lists and objects"
    )
