"""Weights beside the builds of a cache: counted once, and gone with the last build of theirs."""

import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from fastdeploy_diffusion.checkpoints import TensorSource
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorView
from fastdeploy_diffusion.runtime.cache import ArtifactCache, CacheKey
from fastdeploy_diffusion.runtime.recipe import Derivation, Weight, derive

SHARED = Weight(Derivation(("a", "b"), "concatenate"))
OWN = {digit: Weight(Derivation(("a",), "tile", {"times": [int(digit), 1]})) for digit in "23"}
SIZE = 4 * 64 * 64  # of a tensor

# A process that builds, binds and removes, as often as it is told; it ends with 1 if a weight is
# not what it should be.
WORKER = """
import random, sys
from pathlib import Path
import numpy as np
from test_cache_weights import SHARED, OWN, bind, key_of, open_source
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.recipe import derive
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
cache, source = ArtifactCache(folder / "cache", 1 << 30), open_source(folder)
choose = random.Random(seed)
for _ in range(60):
    digit = choose.choice("23")
    with cache.read(key_of(digit)) as entry:
        if entry:
            arrays = bind(cache.open_store(entry.digest), source, digit)
            np.testing.assert_array_equal(arrays["shared"], derive(SHARED, source))
            np.testing.assert_array_equal(arrays["own"], derive(OWN[digit], source))
    if entry is None:
        with cache.lock(key_of(digit)) as slot:
            if slot.find() is None:
                slot.stage()
                bind(slot.open_store(), source, digit)
                slot.publish({})
    elif choose.random() < 0.3:
        cache.remove(key_of(digit).digest)
"""


def open_source(folder):
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        random = np.random.default_rng(0)
        save_file({name: random.standard_normal((64, 64)) for name in "ab"}, path)
    file = SafetensorsFile(path)
    return TensorSource("checkpoint", {name: TensorView(file, name) for name in "ab"})


def key_of(digit):
    return CacheKey({"build": digit})


def bind(store, source, digit):
    return store.bind({"shared": SHARED, "own": OWN[digit]}, source, is_mapped=True).arrays


def publish(cache, source, digit):
    with cache.lock(key_of(digit)) as slot:
        (slot.stage() / "graph").write_bytes(b"graph")
        bind(slot.open_store(), source, digit)
        return slot.publish({})


@pytest.fixture
def kept(tmp_path):
    """A cache of two builds, one of whose weights both have."""
    cache, source = ArtifactCache(tmp_path / "cache", 1 << 30), open_source(tmp_path)
    return cache, source, [publish(cache, source, digit) for digit in "23"]


def count_shares(cache):
    """Tensors' worth of weights that are kept."""
    return sum(cache.measure_weights().values()) // SIZE


def test_a_weight_counts_once_and_goes_with_the_last_build(kept):
    cache, _, (first, second) = kept
    assert count_shares(cache) == 2 + 2 + 3
    assert [sum(cache.measure_weights(each).values()) // SIZE for each in (first, second)] == [4, 5]
    assert cache.remove(first.digest)
    assert count_shares(cache) == 2 + 3
    assert cache.remove(second.digest)
    assert count_shares(cache) == 0


def test_the_limit_counts_every_weight_once(kept):
    cache, _, (first, second) = kept
    total = sum(cache.measure_weights().values()) + first.size + second.size
    cache.limit = total
    assert cache.collect() == []
    cache.limit = total - 1
    assert cache.collect() == [first.digest]  # which was used longest ago
    assert count_shares(cache) == 2 + 3


def test_weights_of_what_is_being_built_stay(kept):
    cache, source, (first, second) = kept
    with cache.lock(key_of("2")) as slot:
        slot.stage()
        bind(slot.open_store(), source, "2")
        cache.remove(second.digest)
        assert count_shares(cache) == 2 + 2
    assert first.digest == key_of("2").digest


def test_damage_is_told_by_the_weights_name(kept):
    cache, _, _ = kept
    assert cache.find_damaged_weights() == {}
    file = next((cache.root / "weights").glob("*.npy"))
    file.write_bytes(file.read_bytes() + b"more")
    assert cache.find_damaged_weights() == {file.name: "it has changed"}


@pytest.mark.slow
def test_processes_that_build_bind_and_remove_get_the_right_numbers(tmp_path):
    source = open_source(tmp_path)
    path = ":".join(sys.path)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, tmp_path, str(seed)],
            env={"PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    results = [(worker.communicate()[1], worker.returncode) for worker in workers]
    assert results == [("", 0)] * 3
    cache = ArtifactCache(tmp_path / "cache", 1 << 30)
    for digit in "23":
        publish(cache, source, digit)
    assert count_shares(cache) == 2 + 2 + 3
    assert derive(SHARED, source).nbytes == 2 * SIZE
