"""JSON as commands print it."""

import json
import sys
from typing import Any


def to_json(content: Any) -> str:
    """Write JSON values, in Unicode if stdout can show it.

    Otherwise other characters than ASCII become JSON's escapes, which all readers know, and not
    escapes of stdout.
    """
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    return json.dumps(content, indent=2, ensure_ascii=not is_unicode, allow_nan=False)
