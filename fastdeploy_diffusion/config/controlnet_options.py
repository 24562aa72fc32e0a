"""The options of a ControlNet: which it is, how much it counts, and what it runs on."""

import os
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from typing_extensions import Self

from fastdeploy_diffusion.config.problems import refuse
from fastdeploy_diffusion.config.sections import ComponentConfig
from fastdeploy_diffusion.precision import PRECISIONS


def _read_path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


FilePath = Annotated[str, BeforeValidator(_read_path), AfterValidator(os.path.expanduser)]


class ControlNetOptions(ComponentConfig):
    """A ControlNet; None takes the pipeline's engine, device or precision."""

    path: FilePath = Field(
        min_length=1,
        description="path of a diffusers folder of a ControlNet, or of a .safetensors file",
    )
    scale: float = Field(
        default=1.0,
        ge=0,
        le=10,
        allow_inf_nan=False,
        title="factor of what it adds, where a request does not say it",
        description="a number of 0 to 10",
    )

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        if self.precision in PRECISIONS and PRECISIONS[str(self.precision)].is_quantized:
            raise refuse(
                f"the precision of a ControlNet is {self.precision!r}, by which nothing is "
                "calibrated that takes a control picture",
                allowed=", ".join(n for n, each in PRECISIONS.items() if not each.is_quantized),
                fix="leave precision out: beside a denoiser in int8, it runs in floating point",
                option="precision",
            )
        return self


def _read_controlnets(value: Any) -> Any:
    """Turn a list of options, or of paths alone, into the tuple of an option."""
    if not isinstance(value, list | tuple):
        return value
    return tuple({"path": each} if isinstance(each, str | os.PathLike) else each for each in value)


ControlNets = Annotated[tuple[ControlNetOptions, ...], BeforeValidator(_read_controlnets)]
