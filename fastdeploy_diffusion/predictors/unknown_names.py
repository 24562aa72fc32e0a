"""Errors for attributes that a pipeline does not have, above all those of diffusers."""

from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.errors import UnknownAttributeError
from fastdeploy_diffusion.hints import find_hint
from fastdeploy_diffusion.suggest import did_you_mean


class AnswersUnknownNames:
    """Refuses to get or set a missing public attribute, with a hint what to write."""

    # Not for type checkers, which would then believe that every attribute is there.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__} has no {name!r}")
            raise _refuse(self, name, f"{type(self).__name__} has no {name!r}")

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_"):
                problem = f"{name} cannot be set: a pipeline that is made would not change"
                raise _refuse(self, name, problem)
            super().__setattr__(name, value)


def _refuse(pipeline: object, name: str, problem: str) -> UnknownAttributeError:
    hint = find_hint(name)
    names = [each for each in dir(type(pipeline)) if not each.startswith("_")]
    if hint is None:
        return UnknownAttributeError(
            problem, allowed=", ".join(names), fix=did_you_mean(name, names)
        )
    if hint.missing:
        problem = f"{problem}: {hint.missing}"
    return UnknownAttributeError(problem, fix=hint.fix)
