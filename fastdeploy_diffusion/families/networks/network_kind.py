"""A class of networks that components are of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastdeploy_diffusion.families.keys.rules import KeyRule
from fastdeploy_diffusion.families.networks.network_config import NetworkConfig
from fastdeploy_diffusion.lazy import load

_STEMS = {"transformers": "model", "diffusers": "diffusion_pytorch_model"}


@dataclass(frozen=True)
class NetworkKind:
    """A class of networks, under the name that ``model_index.json`` has for it.

    Args:
        name: The class; the Paddle layer, which takes the config, has the same name.
        library: Of the class: ``transformers`` or ``diffusers``.
        role: The options of a configuration that apply: ``text_encoder``, ``denoiser``, ``vae``; or
            of a network beside them, what it is.
        config: Reads its ``config.json``.
        module: Of the layer, in ``models/``.
        rules: Names of tensors in folders of diffusers, where they are not the canonical ones.
        tower: Prefix of all names but the projection's in such folders.
    """

    name: str
    library: str
    role: str
    config: type[NetworkConfig]
    module: str
    rules: Sequence[KeyRule] = ()
    tower: str = ""

    @property
    def stem(self) -> str:
        """The name of the files that hold the weights, without suffixes."""
        return _STEMS[self.library]

    @property
    def layer(self) -> str:
        """The path of the Paddle layer."""
        return f"fastdeploy_diffusion.models.{self.module}:{self.name}"

    def make(self, config: NetworkConfig) -> Any:
        """Make the Paddle layer of a config that ``config`` has read."""
        return load(self.layer)(config)
