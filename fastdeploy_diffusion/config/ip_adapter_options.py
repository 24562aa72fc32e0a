"""The options of an IP-Adapter: which it is, with which vision tower, and how much it counts."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from fastdeploy_diffusion.config.added_networks import Scale, read_sections, refuse_int8
from fastdeploy_diffusion.config.file_path import FilePath
from fastdeploy_diffusion.config.sections import PlaceConfig


class IPAdapterOptions(PlaceConfig):
    """An IP-Adapter and its vision tower; None takes the pipeline's engine, device or precision."""

    path: FilePath = Field(
        min_length=1, description="path of a .safetensors file of an IP-Adapter, base or plus"
    )
    image_encoder_path: FilePath | None = Field(
        default=None,
        min_length=1,
        title="its vision tower; the folder image_encoder beside the file if left out",
        description="path of a folder with a CLIPVisionModelWithProjection of transformers",
    )
    scale: Scale = 1.0

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        refuse_int8(self.precision, "an IP-Adapter")
        return self


IPAdapters = Annotated[
    tuple[IPAdapterOptions, ...],
    BeforeValidator(read_sections),
    Field(
        title="IP-Adapters, in the order of a request's pictures for them",
        description="a list of paths, or of sections with path, image_encoder_path, scale, engine, "
        "device, precision",
    ),
]
