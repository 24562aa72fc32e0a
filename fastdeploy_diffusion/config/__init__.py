"""How a pipeline is built: `DiffusionConfig`, and the YAML and presets that it is read from."""

from fastdeploy_diffusion.config.diffusion_config import DiffusionConfig
from fastdeploy_diffusion.config.engine_choice import EngineChoice
from fastdeploy_diffusion.config.part_options import ComponentConfig
from fastdeploy_diffusion.config.sections import RequestDefaults

__all__ = ["ComponentConfig", "DiffusionConfig", "EngineChoice", "RequestDefaults"]
