"""Ranges of seeds, as ``1-8``."""

import re

_RANGE = re.compile(r"\s*(\d{1,20})\s*(?:-|\.\.|:|to)\s*(\d{1,20})\s*")


def read_seed_range(text: str) -> range | None:
    """Read the first and the last of several seeds; ``None`` if the text is something else.

    A range from a higher seed to a lower one is empty, and keeps both.
    """
    found = _RANGE.fullmatch(text)
    return range(int(found[1]), int(found[2]) + 1) if found else None
