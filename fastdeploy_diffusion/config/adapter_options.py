"""The options of an adapter: which LoRA it is, and how much it counts."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from fastdeploy_diffusion.config.added_networks import read_sections
from fastdeploy_diffusion.config.file_path import FilePath
from fastdeploy_diffusion.config.sections import ConfigSection

_Number = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class AdapterOptions(ConfigSection):
    """A LoRA, LoCon, LoHa, LoKr, DoRA or full difference."""

    path: FilePath = Field(
        min_length=1,
        description="path of the file of a LoRA, or of a folder as diffusers and PEFT write it",
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        title="its name for set_adapters; the file's without suffix if left out",
        description="text",
    )
    strength: _Number | dict[str, _Number] = Field(
        default=1.0,
        title="factor of what it adds",
        description="a number, mostly 0 to 1, or numbers by parts of the model: unet, "
        "unet.mid_block, text_encoder",
    )
    strict: bool = Field(
        default=True,
        title="whether tensors that have no use are an error, and not a warning",
        description="true or false",
    )


Adapters = Annotated[
    tuple[AdapterOptions, ...],
    BeforeValidator(read_sections),
    Field(
        title="LoRAs, LoCons and their kin, which change the weights",
        description="a list of paths, or of sections with path, name, strength, strict",
    ),
]
