"""The cache of builds: found only if everything agrees, whole, and safe among processes."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from fastdeploy_diffusion.criteria import Accuracy
from fastdeploy_diffusion.errors import CacheError
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.cache_entry import ENTRY_FILE, CacheKey, Proof

KEY = CacheKey({"engine": "test", "weights": "1234"})
RECORD = {"passes": {"merge-qkv": 4}}
PROOF = Proof(CacheKey({"precision": "fp32"}), Accuracy(1e-6, 1))


@pytest.fixture
def cache(tmp_path):
    return ArtifactCache(tmp_path / "cache", limit=10_000)


def keep(cache, key=KEY, content=b"built", name="sub/graph"):
    with cache.lock(key) as slot:
        file = slot.stage() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return slot.publish(RECORD, proof=PROOF)


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
    assert found.record == RECORD
    assert found.find_proof(PROOF.key) == PROOF
    assert found.ingredients == KEY.ingredients
    assert found.size == 5
    assert [entry.digest for entry in cache.entries()] == [KEY.digest]


def test_a_damaged_proof_is_none(cache):
    entry = keep(cache)
    (file,) = entry.folder.glob("proofs/*")
    for content in ("{", "[]", '{"ingredients": {}}', '{"ingredients": {}, "relative_error": "x"}'):
        file.write_text(content)
        found = find(cache)
        assert found.find_proof(PROOF.key) is None
        assert found.list_proofs() == []
    cache.record_proof(found, PROOF)
    assert found.find_proof(PROOF.key) == PROOF


def test_publishing_again_replaces(cache):
    cache.record_proof(keep(cache), Proof(CacheKey({"precision": "bf16"}), Accuracy(1e-3, 1)))
    keep(cache, content=b"anew", name="other")
    assert list(find(cache).files) == ["other"]
    assert find(cache).list_proofs() == [PROOF]


def test_a_proof_that_comes_later_is_recorded_beside_the_others(cache):
    entry = keep(cache)
    other = Proof(CacheKey({"precision": "bf16"}), Accuracy(3e-3, 1))
    assert entry.find_proof(other.key) is None
    cache.record_proof(entry, other)
    cache.record_proof(entry, Proof(PROOF.key, Accuracy(3e-7, 1)))
    found = find(cache)
    assert found.find_proof(other.key) == other
    assert found.find_proof(PROOF.key).accuracy.relative_error == 3e-7
    assert {each.key.ingredients["precision"] for each in found.list_proofs()} == {"fp32", "bf16"}
    assert (found.files, found.ingredients) == (entry.files, entry.ingredients)
    names = sorted(path.name for path in found.folder.iterdir())
    assert names == ["artifact", ENTRY_FILE, "proofs"]
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


def test_what_fills_the_limit_exactly_stays(cache):
    older, newer = (keep(cache, CacheKey({"number": number})) for number in range(2))
    moment = time.time() - 30
    os.utime(older.folder / ENTRY_FILE, (moment, moment))
    cache.limit = older.size + newer.size
    assert cache.collect() == []
    cache.limit -= 1
    assert cache.collect() == [older.digest]


def test_a_build_larger_than_the_limit_is_kept_alone(cache):
    keep(cache)
    large = CacheKey({"large": True})
    keep(cache, large, b"x" * 20_000)
    assert [entry.digest for entry in cache.entries()] == [large.digest]


def test_large_files_that_are_the_same_take_the_disk_once(tmp_path):
    cache = ArtifactCache(tmp_path / "cache", limit=2**40)
    weights, others = b"w" * 2**20, b"v" * 2**20
    keys = [CacheKey({"number": number}) for number in range(4)]
    contents = (weights, weights, others, b"small")
    entries = [keep(cache, *each, "w") for each in zip(keys, contents, strict=True)]
    inodes = [(entry.artifact / "w").stat().st_ino for entry in entries]
    assert inodes[0] == inodes[1]
    assert len(set(inodes)) == 3
    assert cache.measure(entries) == 2 * 2**20 + len(b"small")
    assert all(entry.size == len(content) for entry, content in zip(entries, contents, strict=True))
    cache.limit = cache.measure(entries)
    assert cache.collect() == []  # what is shared counts once
    cache.remove(entries[0].digest)
    assert (find(cache, keys[1]).artifact / "w").read_bytes() == weights


def test_a_copy_stays_where_no_file_can_be_linked(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    cache = ArtifactCache(tmp_path / "cache", limit=2**40)
    entries = [keep(cache, CacheKey({"number": n}), b"w" * 2**20) for n in range(2)]
    assert cache.measure(entries) == 2 * 2**20
    assert [entry.find_damage() for entry in entries] == ["", ""]


def test_a_damaged_file_is_not_linked(tmp_path):
    cache = ArtifactCache(tmp_path / "cache", limit=2**40)
    first = keep(cache, CacheKey({"number": 0}), b"w" * 2**20, "w")
    (first.artifact / "w").write_bytes(b"v" * 2**20)
    second = keep(cache, CacheKey({"number": 1}), b"w" * 2**20, "w")
    assert (second.artifact / "w").read_bytes() == b"w" * 2**20


def _build_slowly(root: Path, log: Path) -> None:
    cache = ArtifactCache(root, limit=10_000)
    with cache.lock(KEY) as slot:
        if slot.find() is None:
            file = slot.stage() / "graph"
            with log.open("a") as lines:
                lines.write(f"{os.getpid()}\n")
            time.sleep(0.5)
            file.write_bytes(b"built")
            slot.publish(RECORD)


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
