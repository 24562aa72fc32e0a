"""A bundle as a checkpoint: the model's configs, and weights that are made for its graphs."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint, Config
from fastdeploy_diffusion.checkpoints.controlnet import ControlNetCheckpoint
from fastdeploy_diffusion.checkpoints.image_encoder import ImageEncoderCheckpoint
from fastdeploy_diffusion.checkpoints.ip_adapter import IPAdapterCheckpoint
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.config.diffusion_config import COMPONENTS
from fastdeploy_diffusion.errors import CheckpointError, ConfigError
from fastdeploy_diffusion.families.networks.clip import CLIPVisionConfig
from fastdeploy_diffusion.families.networks.controlnet import ControlNetConfig
from fastdeploy_diffusion.families.networks.ip_adapter import IPAdapterConfig
from fastdeploy_diffusion.families.registry import FAMILIES
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.runtime.bundle import (
    MODEL_FOLDER,
    REFINER_FOLDER,
    Bundle,
    read_bundle,
)

# The options that are decided when a bundle is made.
_PLACES = ("engine", "device", "precision")
BUILT_OPTIONS = (
    *(
        *_PLACES,
        "passes",
        "refiner",
        "target",
        "enable_dynamic_shape",
        "shapes",
        "paddle",
        "tensorrt",
    ),
    *(*COMPONENTS, "text_encoder_2", "prediction_type", "variant", "tokenizer_path"),
    *("controlnets", "ip_adapters"),
)


class BundledWeights(TensorSource):
    """The weights of a component of a bundle, by their digests.

    Attributes:
        folder: Of the bundle.
        bundle: Its content.
        name: The component.
    """

    def __init__(self, folder: Path, bundle: Bundle, name: str) -> None:
        self.folder, self.bundle, self.name = folder, bundle, name
        if name not in bundle.components:
            raise CheckpointError(
                f"the bundle {folder} has no {name}, which turns given pictures into latents",
                allowed=", ".join(bundle.components),
                fix="make it again: fastdeploy-diffusion bundle --encoder",
            )
        weights = bundle.components[name].weights
        views = {}
        if weights is not None:
            file = SafetensorsFile(folder / weights)
            views = {digest: TensorView(file, digest) for digest in file.tensors}
        super().__init__(str(folder), views)

    def digest(self) -> str:
        """Return the digest of the weights that it was made of."""
        return self.bundle.components[self.name].digest

    def of(self, name: str) -> "BundledWeights":
        """Open the weights of another component of the bundle.

        Raises:
            CheckpointError: The bundle has none of this name.
        """
        return self if name == self.name else BundledWeights(self.folder, self.bundle, name)


class BundleFolder(Checkpoint):
    """A folder with ``bundle.yaml``.

    Raises:
        CheckpointError: It is damaged, or of another version of the format.
    """

    is_built: ClassVar[bool] = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundle = bundle = read_bundle(path)
        given = dict(bundle.config)
        if "refiner" in given:
            given["refiner"] = {**given["refiner"], "path": str(path / REFINER_FOLDER)}
        options = DiffusionConfig(model_path=path, **given)
        self._options = options.model_dump(exclude_unset=True, exclude={"model_path"})
        if bundle.family not in FAMILIES:
            raise CheckpointError(
                f"{path} is a bundle of the family {bundle.family}",
                allowed=", ".join(FAMILIES),
                fix="run it with a version of fastdeploy-diffusion that has this family",
            )
        self.family = family = FAMILIES[bundle.family]
        self.components = family.components
        self.pipeline_options = MappingProxyType(bundle.pipeline_options)
        model = path / MODEL_FOLDER
        self._configs = {
            "scheduler": read_json_object(model / "scheduler" / "scheduler_config.json"),
            **{
                name: read_json_object(model / name / "config.json")
                for name in self.family.networks
            },
        }
        self._sources = {
            each.network: BundledWeights(path, bundle, name)
            for name, each in bundle.components.items()
        }

    @property
    def name(self) -> str:
        """The model's name in metadata."""
        return self.bundle.model

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The sizes of pictures, (width, height), that it was built for."""
        return () if self.bundle.config.get("enable_dynamic_shape") else tuple(self.bundle.sizes)

    @property
    def chunks(self) -> tuple[int, ...]:
        """The numbers of a text's chunks that it was built for."""
        return () if self.bundle.config.get("enable_dynamic_shape") else tuple(self.bundle.chunks)

    @property
    def shown(self) -> tuple[int, ...]:
        """The numbers of pictures for each IP-Adapter that it was built for, at open sizes, too."""
        return tuple(self.bundle.shown)

    def folder(self, component: str) -> Path | None:
        """Locate the folder of a component's configs."""
        return self.path / MODEL_FOLDER / component

    def read_network(self, component: str, read: Callable[[dict[str, Any]], Config]) -> Config:
        """Read the config of a component; its weights are compared where the bundle is made."""
        return self.read_config(component, read)

    def open_controlnet(self, path: Path, name: str) -> ControlNetCheckpoint:
        """Open a ControlNet of the bundle."""
        config = ControlNetConfig.from_dict(self._read_added(name))
        return ControlNetCheckpoint(path, config, self.tensors(name))

    def open_ip_adapter(self, path: Path, name: str) -> IPAdapterCheckpoint:
        """Open an IP-Adapter of the bundle."""
        config = IPAdapterConfig.from_dict(self._read_added(name))
        return IPAdapterCheckpoint(path, config, self.tensors(name))

    def open_image_encoder(self, path: Path) -> ImageEncoderCheckpoint:
        """Open a vision tower of the bundle, whose path is the component's name."""
        config = CLIPVisionConfig.from_dict(self._read_added(path.name))
        return ImageEncoderCheckpoint(path, config, self.tensors(path.name))

    def _read_added(self, name: str) -> dict[str, Any]:
        return read_json_object(self.path / MODEL_FOLDER / name / "config.json")

    def digest(self) -> str:
        """Return the digest of the weights that the bundle was made of."""
        return self.bundle.model_digest

    def complete(self, config: DiffusionConfig) -> DiffusionConfig:
        """Fill in the options that were decided when the bundle was made.

        Raises:
            ConfigError: The configuration asks for something else.
        """
        given = config.model_dump(exclude_unset=True)
        if config.memory == "streamed":
            raise ConfigError(
                f"memory is 'streamed', and {self.path} is a bundle, of whole components",
                allowed="resident, staged",
                fix="memory='staged'",
            )
        for name in BUILT_OPTIONS:
            if name in given and not self._agrees(name, given[name]):
                raise ConfigError(
                    f"{name} is {given[name]!r}, and {self.path} is a bundle, whose {name} was "
                    "decided when it was made",
                    fix=f"leave {name} out, or make a bundle with it: fastdeploy-diffusion bundle",
                )
        defaults = {**self._options.get("defaults", {}), **given.get("defaults", {})}
        chosen = {key: value for key, value in given.items() if key not in BUILT_OPTIONS}
        return DiffusionConfig(**{**self._options, **chosen, "defaults": defaults})

    def _agrees(self, name: str, value: Any) -> bool:
        if name in _PLACES:
            built = {getattr(each, name) for each in self.bundle.components.values()}
            return value == "auto" or built == {value}
        return bool(value == self._options.get(name))
