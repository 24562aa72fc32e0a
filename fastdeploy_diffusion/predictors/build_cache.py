"""The cache of builds that a configuration asks for."""

from pathlib import Path

from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.runtime.cache import ArtifactCache, default_cache_folder

_GIB = 2**30


def open_cache(config: DiffusionConfig) -> ArtifactCache | None:
    """Open the cache that a configuration asks for; ``None`` if it keeps no builds."""
    if not config.cache:
        return None
    root = Path(config.cache_dir) if config.cache_dir else default_cache_folder()
    return ArtifactCache(root, int(config.cache_limit_gib * _GIB))
