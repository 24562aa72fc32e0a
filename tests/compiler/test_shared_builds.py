"""Builds for several sizes share what does not depend on the size."""

import pytest

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.runtime.cache import ArtifactCache


def measure(folder):
    """The bytes that a folder takes on the disk."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({found.st_ino: found.st_size for found in files}.values())


@pytest.mark.slow
def test_weights_in_builds_of_paddle_take_the_disk_once(tmp_path):
    config = DiffusionConfig.from_preset("shapes", engine="paddle", cache_dir=tmp_path / "cache")
    taken = []
    with open_pipeline(config) as pipeline:
        for width in (64, 96):
            pipeline.build(64, width)
            taken.append(measure(tmp_path / "cache"))
    assert taken[1] < 1.15 * taken[0]
    cache = ArtifactCache(tmp_path / "cache", limit=0)
    entries = cache.entries()
    assert len(entries) == 5  # the text encoder's does not depend on the size
    assert cache.measure(entries) < 1.1 * taken[0] < sum(entry.size for entry in entries)
