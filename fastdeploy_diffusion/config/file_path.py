"""Paths as options: text or a `pathlib` path, with ``~`` for the home folder."""

import os
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator


def _read_path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


FilePath = Annotated[str, BeforeValidator(_read_path), AfterValidator(os.path.expanduser)]
