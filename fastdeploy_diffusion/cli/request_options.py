"""The options of commands that are fields of a request."""

import re
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, TypeVar

import typer

from fastdeploy_diffusion.request_fields import FIELDS

_FLAGS = {"prompt": "PROMPT", **{name: each.flag for name, each in FIELDS.items() if each.flag}}
_SEEDS = re.compile(r"\s*(\d{1,20})\s*(?:-|\.\.|:|to)\s*(\d{1,20})\s*")
Function = TypeVar("Function", bound=Callable[..., Any])


def request_option(name: str) -> Any:
    """Make the option of a field, with its help and its range."""
    field = FIELDS[name]
    about = "; ".join(filter(None, (field.about, field.more)))
    text = re.sub("`(.+?)`", lambda match: _FLAGS.get(match[1], match[1]), about)
    families = f"{', '.join(field.families)}: " if field.families else ""
    shown = f"{families or text[0].upper()}{text[0 if families else 1 :]}."
    if name == "seed":
        return typer.Option(field.flag, parser=_parse_seed, metavar="INTEGER", help=shown)
    if field.kind is int and field.most is not None:
        return typer.Option(field.flag, metavar=f"{field.least}..{field.most}", help=shown)
    least = field.least if field.kind is int else None
    return typer.Option(field.flag, min=least, help=shown)


def takes_request_options(command: Function) -> Function:
    """Add the options of all fields to a command, before its own keyword-only ones."""
    *others, _ = signature(command).parameters.values()
    parameters = {each.name: each for each in others if each.kind is not Parameter.KEYWORD_ONLY}
    for name, field in FIELDS.items():
        if field.flag and field.kind:
            # Made at run time, which type checkers do not accept as a type.
            kind = Annotated[field.kind | None, request_option(name)]  # type: ignore[name-defined]
            option = Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            parameters[name] = option
    parameters |= {each.name: each for each in others}
    command.__signature__ = Signature([*parameters.values()])  # type: ignore[attr-defined]
    return command


def _parse_seed(text: str) -> int:
    """Parse a whole number; several seeds get an explanation how to draw several pictures.

    Raises:
        typer.BadParameter: It is not a whole number.
    """
    try:
        return int(text)
    except ValueError:
        pass
    span = _SEEDS.fullmatch(text)
    first, last = (int(span[1]), int(span[2])) if span else (0, 0)
    hint = ""
    if span and last > first:
        hint = f". For the seeds {first} to {last}: --seed {first} --images {last - first + 1}"
    elif "," in text:
        hint = ". One seed is given: picture i of --images N is drawn from SEED + i"
    raise typer.BadParameter(f"{text!r} is no whole number{hint}")
