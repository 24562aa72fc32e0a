"""The options of an IP-Adapter: which it is, with which vision tower, and how much it counts."""

import os
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from fastdeploy_diffusion.config.controlnet_options import FilePath
from fastdeploy_diffusion.config.problems import refuse
from fastdeploy_diffusion.config.sections import ComponentConfig
from fastdeploy_diffusion.precision import PRECISIONS


class IPAdapterOptions(ComponentConfig):
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
                f"the precision of an IP-Adapter is {self.precision!r}, by which nothing is "
                "calibrated that takes a picture",
                allowed=", ".join(n for n, each in PRECISIONS.items() if not each.is_quantized),
                fix="leave precision out",
                option="precision",
            )
        return self


def _read_ip_adapters(value: Any) -> Any:
    """Turn a list of options, or of paths alone, into the tuple of an option."""
    if not isinstance(value, list | tuple):
        return value
    return tuple({"path": each} if isinstance(each, str | os.PathLike) else each for each in value)


IPAdapters = Annotated[
    tuple[IPAdapterOptions, ...],
    BeforeValidator(_read_ip_adapters),
    Field(
        title="IP-Adapters, in the order of a request's pictures for them",
        description="a list of paths, or of sections with path, image_encoder_path, scale, engine, "
        "device, precision",
    ),
]
