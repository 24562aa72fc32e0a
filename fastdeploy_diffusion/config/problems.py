"""Turns pydantic's errors into one `ConfigError`: given, allowed, fix, and its place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from fastdeploy_diffusion.config.layers import Layer
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.hints import find_hint
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean

if TYPE_CHECKING:
    from fastdeploy_diffusion.config.sections import ConfigSection

# Names of our options in other tools.
_SYNONYMS = {
    "backend": "engine",
    "dtype": "precision",
    "cfg-scale": "guidance_scale",
    "model": "model_path",
    "steps": "num_inference_steps",
    "torch-dtype": "precision",
    "transformer": "denoiser",
    "unet": "denoiser",
}


def refuse(
    problem: str = "", *, allowed: str = "", fix: str, option: str = ""
) -> PydanticCustomError:
    """Make the error that a validator raises.

    Args:
        problem: By default, the message names the option and shows its value.
        allowed: By default, the option's description.
        fix: A general hint, if empty.
        option: The option to blame, where the validator sees a whole section.

    Returns:
        The error; `explain_refusals` turns it into a `ConfigError`.
    """
    context = {"problem": problem, "allowed": allowed, "fix": fix, "option": option}
    return PydanticCustomError("refused", "{problem}", context)


@contextmanager
def explain_refusals(model: "type[ConfigSection]", layers: Sequence[Layer]) -> Iterator[None]:
    """Raise one `ConfigError` that lists every refused option in place of a `ValidationError`.

    Args:
        layers: Lowest precedence first; they know where each value was given.
    """
    try:
        yield
    except ValidationError as error:
        refusals = error.errors(include_url=False)
    else:
        return
    problems = [_explain(details, model, layers) for details in refusals]
    if len(problems) == 1:
        raise problems[0]
    raise ConfigError("\n".join(str(problem) for problem in problems))


def _explain(
    details: ErrorDetails, model: "type[ConfigSection]", layers: Sequence[Layer]
) -> ConfigError:
    if not details["loc"] and details["type"] != "refused":
        return ConfigError(
            details["msg"], allowed="one mapping of options", fix="give the options by name"
        )
    context = details.get("ctx", {})
    path = tuple(str(part) for part in details["loc"])
    if context.get("option"):
        path = (*path, context["option"])
    name = ".".join(path)
    field = _find_field(model, path)
    if details["type"] == "missing":
        return ConfigError(
            f"{_blame_for_missing(layers)}{name} is missing",
            allowed=(field and field.description) or "",
            fix=f"give it: {name}=… as a keyword, or a line '{name}: …' in the YAML file",
        )
    unknown = details["type"] == "extra_forbidden"
    giver = next((layer for layer in reversed(layers) if layer.gives(path)), Layer({}))
    place = giver.locate(path, key=unknown)
    if unknown:
        hint = find_hint(name)
        missing = f": {hint.missing}" if hint and hint.missing else ""
        return ConfigError(
            f"{place}unknown option {name!r}{missing}",
            allowed=", ".join(_find_section(model, path[:-1]).option_names()),
            fix=_suggest_option(model, path) or "correct the name, or remove the option",
        )
    return ConfigError(
        place + (context.get("problem") or f"{name} is {show(details['input'])}"),
        allowed=context.get("allowed") or (field and field.description) or details["msg"],
        fix=context.get("fix") or _suggest_value(details, field),
    )


def _blame_for_missing(layers: Sequence[Layer]) -> str:
    files = [layer for layer in reversed(layers) if layer.document]
    if not files:
        return ""
    return f"{files[0].name}: " if files[0].name else files[0].locate((), key=True)


def _suggest_option(model: "type[ConfigSection]", path: tuple[str, ...]) -> str:
    if path == ("preset",):
        return "start from a preset with DiffusionConfig.from_preset(name, …)"
    *parents, name = path
    own = _find_section(model, parents).option_names()
    meant = _SYNONYMS.get(name.lower().replace("_", "-"), name)
    if meant not in own and not parents:
        for section_name in model.section_names():
            if meant in _find_section(model, (section_name,)).option_names():
                return f"did you mean '{section_name}.{meant}'?"
    hint = find_hint(name)
    return hint.fix if hint and meant == name else did_you_mean(name, own, _SYNONYMS)


def _suggest_value(details: ErrorDetails, field: FieldInfo | None) -> str:
    wants_no_text = details["type"] in ("int_type", "float_type", "bool_type")
    if wants_no_text and isinstance(details["input"], str):
        return "write it without quotes"
    return "correct it" if field and field.is_required() else "correct it, or leave it out"


def _find_section(model: "type[ConfigSection]", path: Sequence[str]) -> "type[ConfigSection]":
    for part in path:
        if part.isdecimal():  # of a list, whose elements are sections
            continue
        annotation: Any = model.model_fields[part].annotation
        model = next(iter(get_args(annotation)), annotation)
    return model


def _find_field(model: "type[ConfigSection]", path: Sequence[str]) -> FieldInfo | None:
    path = tuple(part for part in path if not part.isdecimal())
    return _find_section(model, path[:-1]).model_fields.get(path[-1]) if path else None
