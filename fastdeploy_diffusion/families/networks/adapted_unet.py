"""The config of UNets that attend to the tokens of IP-Adapters as well."""

from dataclasses import dataclass, fields

from typing_extensions import Self

from fastdeploy_diffusion.families.networks.census import Census, Site
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig


@dataclass(frozen=True)
class AdaptedUNetConfig(UNet2DConditionConfig):
    """A UNet's config, and how many IP-Adapters it runs with."""

    ip_adapters: int = 0

    @classmethod
    def of(cls, config: UNet2DConditionConfig, ip_adapters: int) -> Self:
        """Add the number of IP-Adapters to a UNet's own config."""
        own = {field.name: getattr(config, field.name) for field in fields(config)}
        return cls(**own, ip_adapters=ip_adapters)

    def census(self) -> Census:
        """Count the places that passes rewrite: more attentions, for each IP-Adapter."""
        own = super().census()
        return {**own, Site.IMAGE_ATTENTION: self.ip_adapters * own[Site.CROSS_ATTENTION]}
