"""JSON as commands print it."""

import json
import sys
from typing import Any


def to_json(content: Any) -> str:
    """Write JSON values; texts as they are read, where stdout can show them.

    Elsewhere every other character than those of ASCII is an escape: JSON's own, which all readers
    know, not one that stdout would make of it.
    """
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    return json.dumps(content, indent=2, ensure_ascii=not is_unicode, allow_nan=False)
