"""The options of a ControlNet: which it is, how much it counts, and what it runs on."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from fastdeploy_diffusion.config.added_networks import Scale, read_sections, refuse_int8
from fastdeploy_diffusion.config.file_path import FilePath
from fastdeploy_diffusion.config.sections import PlaceConfig


class ControlNetOptions(PlaceConfig):
    """A ControlNet; None takes the pipeline's engine, device or precision."""

    path: FilePath = Field(
        min_length=1,
        description="path of a diffusers folder of a ControlNet, or of a .safetensors file",
    )
    scale: Scale = 1.0

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        refuse_int8(self.precision, "a ControlNet")
        return self


ControlNets = Annotated[tuple[ControlNetOptions, ...], BeforeValidator(read_sections)]
