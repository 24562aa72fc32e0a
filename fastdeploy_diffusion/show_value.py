"""Values of others as messages show them: short, and without fail."""

import reprlib
from typing import Any

_LONGEST = 80  # characters of a text


def show_value(value: Any) -> str:
    """Give a value as Python writes it, cut where it is long or nested deeply."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = _LONGEST
    try:
        return short.repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number too long to show"
