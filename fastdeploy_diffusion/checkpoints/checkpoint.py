"""The interface of checkpoints, independent of their layout on disk."""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from fastdeploy_diffusion.checkpoints.controlnet import ControlNetCheckpoint, open_controlnet
from fastdeploy_diffusion.checkpoints.image_encoder import (
    ImageEncoderCheckpoint,
    open_image_encoder,
)
from fastdeploy_diffusion.checkpoints.ip_adapter import IPAdapterCheckpoint, open_ip_adapter
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import BadInputError, CheckpointError
from fastdeploy_diffusion.families.family import Family
from fastdeploy_diffusion.families.networks.network_config import NetworkConfig

Config = TypeVar("Config")
Network = TypeVar("Network", bound=NetworkConfig)


class Checkpoint(ABC):
    """An opened checkpoint; weights stay on disk until they are read.

    Attributes:
        family: Its record.
        components: Names for ``config``, ``tensors`` or ``folder``.
        pipeline_options: Behaviour of the whole pipeline, such as ``force_zeros_for_empty_prompt``.
    """

    is_built: ClassVar[bool] = False  # whether nothing is left to build, for which Paddle is needed
    path: Path
    family: Family
    components: tuple[str, ...]
    pipeline_options: Mapping[str, Any]
    _sources: Mapping[str, TensorSource]
    _configs: Mapping[str, Mapping[str, Any]]

    @abstractmethod
    def folder(self, component: str) -> Path | None:
        """Locate a component's folder (tokenizers have own files); None for a single file."""

    @property
    def name(self) -> str:
        """The model's name in metadata."""
        return Path(self.path).name

    @property
    def part_names(self) -> dict[str, str]:
        """The names of components that come from elsewhere, in metadata."""
        return {}

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The only sizes of pictures, (width, height), that can be drawn; all, if empty."""
        return ()

    @property
    def chunks(self) -> tuple[int, ...]:
        """The only numbers of a text's chunks that can be drawn; all, if empty."""
        return ()

    @property
    def shown(self) -> tuple[int, ...]:
        """The only numbers of pictures for each IP-Adapter; all, if empty."""
        return ()

    def complete(self, config: DiffusionConfig) -> DiffusionConfig:
        """Fill in what the checkpoint decides of how it is run; here, nothing."""
        return config

    def config(self, component: str) -> dict[str, Any]:
        """Read a component's ``config.json``, or ``scheduler_config.json`` for ``scheduler``.

        Raises:
            CheckpointError: The checkpoint has no such component, or it has no config.
        """
        return copy.deepcopy(dict(self._get(self._configs, component, "config")))

    def read_config(self, component: str, read: Callable[[dict[str, Any]], Config]) -> Config:
        """Read and parse a component's config.

        Args:
            read: Parses the config; raises where it asks for something that is not implemented.

        Raises:
            CheckpointError: As ``config``.
            BadInputError: As ``read``; the message names the component's file.
        """
        try:
            return read(self.config(component))
        except BadInputError as error:
            raise type(error)(
                f"{self._find_config(component)}: {error.problem}",
                allowed=error.allowed,
                fix=error.fix or f"use the {component} that this model was published with",
            ) from error

    def read_network(self, component: str, read: Callable[[dict[str, Any]], Network]) -> Network:
        """Read the config of a component with weights, and compare its layers with theirs.

        No layer is made here: a config that asks for a million layers fails at once.

        Raises:
            CheckpointError: As ``config``, or the weights are of another number of layers.
            BadInputError: As ``read``; the message names the component's file.
        """
        config = self.read_config(component, read)
        source = self.tensors(component)
        found = source.count_layers()
        absent = tuple(
            prefix
            for prefix in config.dispensable
            if not any(name.startswith(prefix) for name in source)
        )
        for key, name, count in config.stacks:
            if name.startswith(absent):
                continue
            if found.get(name, 0) != count:
                raise CheckpointError(
                    f"{self._find_config(component)}: {key} makes {count} layers of {name}, and "
                    f"{source.origin} has weights for {found.get(name, 0)}",
                    fix="the config must be that of these weights: take the files of one model",
                )
        return config

    def _find_config(self, component: str) -> Path:
        folder = self.folder(component)
        file = "scheduler_config.json" if component == "scheduler" else "config.json"
        return self.path if folder is None else folder / file

    def tensors(self, component: str) -> TensorSource:
        """Open a component's weights under the names of diffusers and transformers.

        CLIP's text encoders come without the ``text_model.`` prefix.

        Raises:
            CheckpointError: The checkpoint has no such component, or it has no weights.
        """
        source: TensorSource = self._get(self._sources, component, "weights")
        return source

    def open_controlnet(self, path: Path, name: str) -> ControlNetCheckpoint:
        """Open a ControlNet that is added to the checkpoint's networks; raises as its function.

        Args:
            path: As a configuration gives it.
            name: Of the component that it becomes.
        """
        return open_controlnet(path)

    def open_ip_adapter(self, path: Path, name: str) -> IPAdapterCheckpoint:
        """Open an IP-Adapter, as `open_controlnet`."""
        return open_ip_adapter(path)

    def open_image_encoder(self, path: Path) -> ImageEncoderCheckpoint:
        """Open the vision tower of IP-Adapters, as `open_controlnet`."""
        return open_image_encoder(path)

    def digest(self) -> str:
        """Hash all weights in use (names, dtypes, shapes, values); sha256 as hexadecimal digits.

        Raises:
            CheckpointError: A file changed after the checkpoint was opened.
        """
        total = hashlib.sha256()
        for component in self.family.networks:
            total.update(f"{component} {self._sources[component].digest()}\n".encode())
        return total.hexdigest()

    def _get(self, table: Mapping[str, Any], component: str, kind: str) -> Any:
        if component in table:
            return table[component]
        raise CheckpointError(
            f"{self.path}: no {kind} for a component {component!r}", allowed=", ".join(table)
        )
