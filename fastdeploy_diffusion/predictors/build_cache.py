"""The cache of builds that a configuration asks for."""

import hashlib
from pathlib import Path

from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.runtime.cache import DIGESTS, ArtifactCache, default_cache_folder
from fastdeploy_diffusion.runtime.checked_files import CheckedFiles

_GIB = 2**30


def open_cache(config: DiffusionConfig) -> ArtifactCache | None:
    """Open the cache that a configuration asks for; ``None`` if it keeps no builds."""
    if not config.cache:
        return None
    root = Path(config.cache_dir) if config.cache_dir else default_cache_folder()
    return ArtifactCache(root, int(config.cache_limit_gib * _GIB))


def recall_checked_files(folder: Path, cache: ArtifactCache | None) -> CheckedFiles | None:
    """Open the memo of a folder's checked files, which lies in the cache; ``None`` without one."""
    if cache is None:
        return None
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()
    return CheckedFiles(cache.root / DIGESTS / f"{name}.checked")
