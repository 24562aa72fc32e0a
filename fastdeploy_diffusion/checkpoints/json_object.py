"""Reading of the JSON files of a checkpoint folder."""

import json
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.errors import CheckpointError


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that must hold one JSON object.

    Raises:
        CheckpointError: The file is missing, unreadable, not JSON, or another kind of JSON value.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing", fix="download or export the whole checkpoint folder again"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a readable JSON file: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}", allowed="a JSON object")
    return value
