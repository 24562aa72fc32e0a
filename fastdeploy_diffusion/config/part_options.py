"""The options of a component: where it is read from, and what it runs on."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from fastdeploy_diffusion.config.file_path import FilePath
from fastdeploy_diffusion.config.sections import ConfigSection, MayBeEmpty, PlaceConfig

if TYPE_CHECKING:
    from fastdeploy_diffusion.config.diffusion_config import DiffusionConfig

PARTS = ("text_encoder", "text_encoder_2", "denoiser", "vae")
_PATH = "model_path"
_PATH_HELP = "path of a file of weights, or of a component's folder, in place of the model's own"


class ComponentConfig(PlaceConfig):
    """Options of a component; None takes the pipeline's, and the model's own weights."""

    model_path: FilePath | None = Field(default=None, min_length=1, description=_PATH_HELP)


class WeightsConfig(ConfigSection):
    """Where a component is read from that runs as another one does."""

    model_path: FilePath | None = Field(default=None, min_length=1, description=_PATH_HELP)


Part = Annotated[ComponentConfig, MayBeEmpty]
Weights = Annotated[WeightsConfig, MayBeEmpty]


def options_of(what: str) -> Any:
    """Make the section of a component."""
    return Field(
        default=ComponentConfig(),
        title=f"options of {what}, where they differ from the pipeline's",
        description="a section with engine, device, precision, model_path",
    )


def list_parts(config: "DiffusionConfig") -> dict[str, str]:
    """List the components that are not read from the model itself, with their paths."""
    paths = {name: getattr(config, name).model_path for name in PARTS}
    return {name: path for name, path in paths.items() if path is not None}


def drop_parts(options: dict[str, Any]) -> None:
    """Leave out of options where components are read from."""
    for name in PARTS:
        if section := options.get(name):
            section.pop(_PATH, None)
