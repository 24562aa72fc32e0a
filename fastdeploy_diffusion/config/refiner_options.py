"""The options of SDXL's refiner: which it is, where it takes over, and what it runs on."""

import os
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from fastdeploy_diffusion.config.file_path import FilePath
from fastdeploy_diffusion.config.problems import refuse
from fastdeploy_diffusion.config.sections import PlaceConfig
from fastdeploy_diffusion.precision import PRECISIONS


class RefinerOptions(PlaceConfig):
    """SDXL's refiner; None takes the pipeline's engine, device or precision."""

    path: FilePath = Field(
        min_length=1,
        description="path of a diffusers folder of SDXL's refiner, or of a .safetensors file",
    )
    denoising_end: float = Field(
        default=0.8,
        gt=0,
        le=1,
        allow_inf_nan=False,
        title="share of the noise's schedule after which it takes over, where a request does not "
        "say it",
        description="a number above 0, up to 1",
    )

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        if self.precision in PRECISIONS and PRECISIONS[str(self.precision)].is_quantized:
            raise refuse(
                f"the precision of the refiner is {self.precision!r}, which is calibrated by "
                "pictures of texts alone, and the refiner draws none",
                allowed=", ".join(n for n, each in PRECISIONS.items() if not each.is_quantized),
                fix="leave precision out: beside a base in int8, it runs in floating point",
                option="precision",
            )
        return self


def _read_refiner(value: Any) -> Any:
    """Turn a path alone into a section."""
    return {"path": value} if isinstance(value, str | os.PathLike) else value


Refiner = Annotated[RefinerOptions, BeforeValidator(_read_refiner)]
