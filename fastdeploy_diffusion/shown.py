"""Values in messages: on one line, and cut where they are long."""

import math
import reprlib
from typing import Any

_LONGEST = 60


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = _LONGEST

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write numbers of thousands of digits.
        digits = int(x.bit_length() * math.log10(2)) + 1
        return repr(x) if digits <= _LONGEST else f"a number of about {digits} digits"


_short = _Short()


def show(value: Any) -> str:
    """Write any value, cut where it is long."""
    return " ".join(_short.repr(value).split())


def shorten(text: str) -> str:
    """Cut a text to its first 60 characters, with … for the rest."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
