"""The option ``--seed``."""

import re

import typer

_RANGE = re.compile(r"\s*(\d{1,20})\s*(?:-|\.\.|:|to)\s*(\d{1,20})\s*")


def parse_seed(text: str) -> int:
    """Parse a whole number; several seeds get an explanation how to draw several pictures.

    Raises:
        typer.BadParameter: It is not a whole number.
    """
    try:
        return int(text)
    except ValueError:
        pass
    span = _RANGE.fullmatch(text)
    first, last = (int(span[1]), int(span[2])) if span else (0, 0)
    hint = ""
    if span and last > first:
        hint = f". For the seeds {first} to {last}: --seed {first} --images {last - first + 1}"
    elif "," in text:
        hint = ". One seed is given: picture i of --images N is drawn from SEED + i"
    raise typer.BadParameter(f"{text!r} is no whole number{hint}")
