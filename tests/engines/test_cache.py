"""The cache of builds: found only if everything agrees, whole, and safe among processes."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines import cache_key
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.cache import ArtifactCache, CacheKey
from fastdeploy_diffusion.engines.cache_entry import ENTRY_FILE
from fastdeploy_diffusion.engines.cache_key import make_cache_key
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import CacheError
from fastdeploy_diffusion.program import TensorSpec

KEY = CacheKey({"engine": "test", "weights": "1234"})
PROOF = {"relative_error": 1e-6}


@pytest.fixture
def cache(tmp_path):
    return ArtifactCache(tmp_path / "cache", limit=10_000)


def keep(cache, key=KEY, content=b"built", name="sub/graph"):
    with cache.lock(key) as slot:
        file = slot.stage() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return slot.publish(PROOF)


def find(cache, key=KEY):
    with cache.read(key) as entry:
        return entry


def test_a_kept_build_is_found(cache):
    assert find(cache) is None
    assert cache.entries() == []
    kept = keep(cache)
    found = find(cache)
    assert found.artifact == kept.artifact
    assert (found.artifact / "sub" / "graph").read_bytes() == b"built"
    assert found.proof == PROOF
    assert found.ingredients == KEY.ingredients
    assert found.size == 5
    assert [entry.digest for entry in cache.entries()] == [KEY.digest]


def test_publishing_again_replaces(cache):
    keep(cache)
    keep(cache, content=b"anew", name="other")
    assert list(find(cache).files) == ["other"]


def test_a_proof_that_comes_later_is_recorded(cache):
    entry = keep(cache)
    cache.record_proof(entry, {"relative_error": 3e-7})
    found = find(cache)
    assert found.proof == {"relative_error": 3e-7}
    assert (found.files, found.ingredients) == (entry.files, entry.ingredients)
    assert sorted(path.name for path in found.folder.iterdir()) == ["artifact", ENTRY_FILE]
    cache.remove(KEY.digest)
    with pytest.raises(CacheError, match="cannot be written"):
        cache.record_proof(entry, PROOF)


@pytest.mark.parametrize("damage", ["flipped", "cut", "removed", "added", "entry", "renamed"])
def test_a_damaged_entry_is_removed(cache, damage):
    entry = keep(cache)
    file = entry.artifact / "sub" / "graph"
    if damage == "flipped":
        file.write_bytes(b"bualt")
    elif damage == "cut":
        file.write_bytes(b"buil")
    elif damage == "removed":
        file.unlink()
    elif damage == "added":
        (entry.artifact / "more").touch()
    elif damage == "entry":
        (entry.folder / ENTRY_FILE).write_text("{")
    else:  # an entry under another key's name
        other = CacheKey({"engine": "other"})
        entry.folder.rename(entry.folder.with_name(other.digest))
        assert find(cache, other) is None
    assert find(cache) is None
    keep(cache)
    assert find(cache) is not None


def test_what_was_used_longest_ago_goes_first(cache):
    keys = [CacheKey({"number": number}) for number in range(3)]
    for age, key in zip((30, 20, 10), keys, strict=True):
        entry = keep(cache, key, b"x" * 4000)
        moment = time.time() - age
        os.utime(entry.folder / ENTRY_FILE, (moment, moment))
        if key is keys[0]:
            assert find(cache, keys[0]) is not None
            os.utime(entry.folder / ENTRY_FILE, (moment, moment))
    # The third did not fit: the first, used longest ago, had gone.
    assert [find(cache, key) is not None for key in keys] == [False, True, True]
    assert find(cache, keys[1]) is not None  # used now: the third is older
    keep(cache, CacheKey({"number": 3}), b"x" * 4000)
    assert [find(cache, key) is not None for key in keys] == [False, True, False]


def test_a_build_larger_than_the_limit_is_kept_alone(cache):
    keep(cache)
    large = CacheKey({"large": True})
    keep(cache, large, b"x" * 20_000)
    assert [entry.digest for entry in cache.entries()] == [large.digest]


def _build_slowly(root: Path, log: Path) -> None:
    cache = ArtifactCache(root, limit=10_000)
    with cache.lock(KEY) as slot:
        if slot.find() is None:
            file = slot.stage() / "graph"
            with log.open("a") as lines:
                lines.write(f"{os.getpid()}\n")
            time.sleep(0.5)
            file.write_bytes(b"built")
            slot.publish(PROOF)


def test_of_two_processes_one_builds(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_build_slowly, args=(tmp_path / "cache", log)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(log.read_text().splitlines()) == 1


def _build_for_ever(root: Path, ready: Path) -> None:
    cache = ArtifactCache(root, limit=10_000)
    with cache.lock(KEY) as slot:
        (slot.stage() / "half").write_bytes(b"half a bu")
        ready.touch()
        time.sleep(600)


def test_a_killed_build_leaves_nothing_in_the_way(tmp_path, cache):
    ready = tmp_path / "ready"
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_build_for_ever, args=(cache.root, ready))
    process.start()
    while not ready.exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert find(cache) is None
    assert cache.entries() == []
    keep(cache)
    assert list(find(cache).files) == ["sub/graph"]
    assert sorted(path.name for path in cache.root.iterdir()) == sorted([KEY.digest, "locks"])


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").touch()
    cache = ArtifactCache(tmp_path / "file" / "cache", limit=10_000)
    assert find(cache) is None
    with pytest.raises(CacheError, match="cannot be written") as caught, cache.lock(KEY):
        pass
    assert "cache_dir" in caught.value.fix


def make_key(**changes):
    given = {
        "engine": create_engine("paddle"),
        "spec": BuildSpec(Device("cpu")),
        "component": "denoiser",
        "signature": {"inputs": (TensorSpec("sample", (None, 4), "float32"),)},
        "network": {"config": {"width": 4}, "weights": "1234"},
    }
    return make_cache_key(**{**given, **changes})


def test_the_same_build_has_the_same_key():
    assert make_key().digest == make_key().digest
    assert make_key(spec=BuildSpec(Device("cpu"), threads=1)).digest == make_key().digest
    json.dumps(make_key().ingredients)


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": create_engine("openvino")},
        {"spec": BuildSpec(Device("cpu"), "bf16")},
        {"component": "vae_decoder"},
        {"signature": {"inputs": (TensorSpec("sample", (None, 5), "float32"),)}},
        {"network": {"config": {"width": 5}, "weights": "1234"}},
        {"network": {"config": {"width": 4}, "weights": "1235"}},
    ],
)
def test_another_ingredient_is_another_key(changes):
    assert make_key(**changes).digest != make_key().digest


def test_another_version_code_or_processor_is_another_key(monkeypatch):
    before = make_key().digest
    with monkeypatch.context() as change:
        change.setattr(cache_key, "_find_version", lambda package: "99")
        assert make_key().digest != before
    with monkeypatch.context() as change:
        change.setattr(cache_key, "_digest_code", lambda: "other code")
        assert make_key().digest != before
    with monkeypatch.context() as change:
        change.setattr(cache_key, "_identify", lambda *given: {"kind": "cpu", "machine": "other"})
        assert make_key().digest != before
    assert make_key().digest == before


def test_a_target_stands_for_the_gpu_and_its_driver(monkeypatch):
    def key(target):
        spec = BuildSpec(Device("gpu", 7), target=target)
        return make_key(engine=create_engine("tensorrt"), spec=spec)

    # Any GPU of the architecture finds it, so that no GPU of this machine is asked.
    monkeypatch.setenv("PATH", "")
    before = key("sm86")
    assert before.ingredients["device"]["target"] == "sm86"
    assert key("sm89").digest != before.digest
    for package in ("tensorrt", "tensorrt_rtx_cu12_bindings", "paddle2onnx"):
        versions = {package: "99"}
        with monkeypatch.context() as change:
            change.setattr(cache_key, "_find_version", versions.get)
            other = key("sm86")
            change.setattr(cache_key, "_find_version", lambda package: None)
            assert other.digest != key("sm86").digest


def test_the_code_digest_sees_every_file(tmp_path, monkeypatch):
    for name in ("engines/cache_key.py", "models/unet.py", "program.py", "size_range.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first")
    monkeypatch.setattr(cache_key, "__file__", str(tmp_path / "engines" / "cache_key.py"))
    digest = cache_key._digest_code.__wrapped__
    before = digest()
    for name in ("models/unet.py", "program.py", "size_range.py"):
        (tmp_path / name).write_text(f"second {name}")
        assert digest() != before
        before = digest()


def test_a_gpu_that_cannot_be_identified_has_no_key(monkeypatch):
    monkeypatch.setenv("PATH", "")
    cache_key._identify.cache_clear()
    with pytest.raises(CacheError, match="nvidia-smi"):
        make_key(spec=replace(BuildSpec(Device("cpu")), device=Device("gpu", 7)))
