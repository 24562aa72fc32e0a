"""The options of commands that are fields of a request."""

import re
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, TypeVar

import typer

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.seed_range import read_seed_range

_FLAGS = {"prompt": "PROMPT", **{name: each.flag for name, each in FIELDS.items() if each.flag}}
Function = TypeVar("Function", bound=Callable[..., Any])


def request_option(name: str) -> Any:
    """Make the option of a field, with its help and its range."""
    field = FIELDS[name]
    about = "; ".join(filter(None, (field.about, field.more)))
    text = re.sub("`(.+?)`", lambda match: _FLAGS.get(match[1], match[1]), about)
    families = f"{', '.join(field.families)}: " if field.families else ""
    shown = f"{families or text[0].upper()}{text[0 if families else 1 :]}."
    if name == "seed":
        shown = f"{shown.removesuffix('.')}; FIRST-LAST draws a picture of each."
        return typer.Option(
            field.flag, parser=_parse_seeds, metavar="INTEGER|FIRST-LAST", help=shown
        )
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


def take_seeds(settings: dict[str, Any], images: int) -> int:
    """Replace a range of seeds by its first, and return how many pictures it asks for.

    Args:
        images: How many are asked for besides.

    Raises:
        RequestError: Another number than there are seeds.
    """
    seeds = settings["seed"]
    if not isinstance(seeds, range):
        return images
    settings["seed"], count = seeds.start, len(seeds)
    if images not in (1, count):
        raise RequestError(
            f"--seed {seeds.start}-{seeds.stop - 1} asks for {count} pictures, and --images for "
            f"{images}",
            fix="leave --images out",
        )
    return count


def _parse_seeds(text: str) -> int | range:
    """Parse a whole number, or the first and the last of several.

    Raises:
        typer.BadParameter: It is neither.
    """
    try:
        return int(text)
    except ValueError:
        pass
    seeds = read_seed_range(text)
    if seeds:
        return seeds
    hint = ""
    if seeds is not None:
        hint = f". From the lower to the higher: {seeds.stop - 1}-{seeds.start}"
    elif "," in text:
        hint = ". One seed is given: picture i of --images N is drawn from SEED + i"
    raise typer.BadParameter(f"{text!r} is no whole number, nor FIRST-LAST{hint}")
