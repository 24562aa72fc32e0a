"""Remembers which weights fit their network: to compare them, Paddle makes the layer."""

import os.path
from contextlib import suppress
from pathlib import Path

from fastdeploy_diffusion.compiler.code_digest import digest_code
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.runtime.cache import DIGESTS
from fastdeploy_diffusion.runtime.cache_entry import CacheKey

_CHECKS = "fastdeploy_diffusion.checkpoints.layer_weights"


def is_noted(network: Network, root: Path) -> bool:
    """Tell whether the names and shapes of a network's weights are known to fit."""
    return os.path.isfile(_find_note(network, root))


def note_fit(network: Network, root: Path) -> None:
    """Note beside a network's builds that its weights fit; nothing if it cannot be written."""
    note = _find_note(network, root)
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def _find_note(network: Network, root: Path) -> Path:
    """Name a file by everything that the comparison depends on."""
    source = network.source
    key = CacheKey(
        {
            **network.describe(),
            "code": digest_code([_CHECKS, *network.modules]),
            "shapes": {name: source.shape(name) for name in source},
        }
    )
    return root / DIGESTS / f"{key.digest}.fits"
