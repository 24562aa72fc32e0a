"""Several processes and threads on one cache: nothing is lost, mixed or raised."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from cache_stress import stress
from file_powers import file_size_limit

from fastdeploy_diffusion.criteria import Accuracy
from fastdeploy_diffusion.engines.plan import (
    Candidate,
    ComponentPlan,
    LeftOutPass,
    UnsafePrecision,
    find_plan,
    keep_plan,
    remember_failures,
)
from fastdeploy_diffusion.errors import CacheError
from fastdeploy_diffusion.runtime import cache as cache_module
from fastdeploy_diffusion.runtime import file_lock
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.cache_entry import ENTRY_FILE, CacheKey, Proof

KEY = CacheKey({"engine": "test", "weights": "1234"})
PROOF = Proof(CacheKey({"precision": "fp32"}), Accuracy(1e-6, 1))
FILE = "sub/graph"


@pytest.fixture
def cache(tmp_path):
    return ArtifactCache(tmp_path / "cache", limit=10_000)


def keep(cache, key=KEY, content=b"built"):
    with cache.lock(key) as slot:
        return fill(slot, content)


def fill(slot, content):
    file = slot.stage() / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return slot.publish({}, proof=PROOF)


def read(cache, key=KEY):
    with cache.read(key) as entry:
        return entry and (entry.artifact / FILE).read_bytes()


@pytest.mark.serial
def test_nothing_is_lost_mixed_or_raised(tmp_path):
    found = stress(tmp_path, seconds=6)
    for what in ("published", "read", "plan", "record", "killed"):
        assert found.pop(what) > 0
    assert {what: count for what, count in found.items() if count} == {}


def test_who_sees_damage_looks_again_when_nobody_writes(cache):
    keep(cache)
    found = []
    reader = threading.Thread(target=lambda: found.append(read(cache)))
    # Held by a reader, so that the other one sees the damage, and then has to wait.
    with cache.read(KEY) as held:
        (held.artifact / FILE).write_bytes(b"spoilt")
        reader.start()
        reader.join(0.3)
        assert reader.is_alive()
        assert held.folder.exists()
        (held.artifact / FILE).write_bytes(b"built")  # as if another process had replaced it
    reader.join()
    assert found == [b"built"]


def test_what_is_read_is_neither_replaced_nor_removed(cache):
    keep(cache)
    small = ArtifactCache(cache.root, limit=0)
    writer = threading.Thread(target=keep, args=(cache, KEY, b"anew"))
    with cache.read(KEY) as entry, cache.read(KEY) as other:
        assert other.files == entry.files
        assert not cache.remove(KEY.digest)
        assert small.collect() == []
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert (entry.artifact / FILE).read_bytes() == b"built"
        assert cache.find_damage(entry) == ""
    writer.join()
    assert read(cache) == b"anew"
    assert small.collect() == [KEY.digest]
    assert read(cache) is None


def test_what_is_built_is_not_removed_nor_taken_for_damaged(cache):
    entry = keep(cache)
    with cache.lock(KEY) as slot:
        slot.stage()
        assert not cache.remove(KEY.digest)
        assert ArtifactCache(cache.root, limit=0).collect() == []
        (entry.artifact / FILE).unlink()
        assert cache.find_damage(entry) == ""
    assert cache.find_damage(entry) == f"{FILE} is missing"


def test_an_open_file_stays_as_it_was(cache):
    entry = keep(cache)
    with (entry.artifact / FILE).open("rb") as file:
        keep(cache, content=b"anew")
        assert file.read() == b"built"
    with (entry.artifact / FILE).open("rb") as file:
        assert cache.remove(KEY.digest)
        assert file.read() == b"anew"


def test_a_plan_is_replaced_in_place(cache):
    plan = ComponentPlan("denoiser", {}, (Candidate("paddle", "fp32", (), 0.5, 1e-6),))
    keep_plan(cache, KEY, plan)
    (folder,) = (entry.folder for entry in cache.entries())
    before = os.open(folder, os.O_RDONLY)  # open, so that no other folder gets its number
    unsafe = [UnsafePrecision("paddle", "fp16", "NaN"), UnsafePrecision("paddle", "bf16", "NaN")]
    left_out = [LeftOutPass("paddle", "fp32", "fold-norm", "wrong")]
    for each in unsafe:
        remember_failures(cache, KEY, "denoiser", unsafe=[each])
    remember_failures(cache, KEY, "denoiser", left_out=left_out)
    # A folder that was renamed away, and another into its place, would be missing in between.
    assert os.path.samestat(os.stat(before), folder.stat())
    os.close(before)
    # What was measured before those were known does not forget them.
    kept = keep_plan(cache, KEY, plan)
    assert (kept.unsafe, kept.left_out) == (tuple(unsafe), tuple(left_out))
    assert find_plan(cache, KEY) == kept
    assert asdict(kept)["candidates"] == asdict(plan)["candidates"]


def _publish_and_die(root: Path, moment: str) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "before its note":
        cache_module.write_entry = die
    elif moment == "before the old one goes":
        ArtifactCache._set_aside = die
    else:  # between the two renames
        rename = Path.rename
        Path.rename = lambda self, to: die() if self.suffix == ".staged" else rename(self, to)
    keep(ArtifactCache(root, limit=10_000), content=b"anew")


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("before its note", b"built"),
        ("before the old one goes", b"built"),
        ("between the renames", b"anew"),
    ],
)
def test_killed_while_it_publishes(cache, moment, left):
    keep(cache)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_publish_and_die, args=(cache.root, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with cache.lock(KEY) as slot:
        assert (slot.find().artifact / FILE).read_bytes() == left
    assert read(cache) == left
    assert cache.collect() == []
    assert sorted(path.name for path in cache.root.iterdir()) == sorted([KEY.digest, "locks"])


def test_only_what_processes_leave_is_cleared(cache):
    keep(cache)
    names = ("notes.staged", "photos.removed-1", "a.b", f"{KEY.digest}.staged")
    for name in names:
        (cache.root / name / "content").mkdir(parents=True)
    cache.collect()
    left = {path.name for path in cache.root.iterdir()}
    assert left == {KEY.digest, "locks", *names[:3]}


def _build_once(root: Path, log: Path) -> None:
    file_lock.fcntl = None
    cache = ArtifactCache(root, limit=10_000)
    with cache.lock(KEY) as slot:
        if slot.find() is None:
            with log.open("a") as lines:
                lines.write("built\n")
            time.sleep(0.3)
            fill(slot, b"built")


def test_there_are_locks_without_fcntl(cache, tmp_path, monkeypatch):
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    processes = [context.Process(target=_build_once, args=(cache.root, log)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert log.read_text() == "built\n"
    monkeypatch.setattr(file_lock, "fcntl", None)
    with cache.read(KEY) as entry:
        assert (entry.artifact / FILE).read_bytes() == b"built"
        assert not cache.remove(KEY.digest)
    assert cache.remove(KEY.digest)


FORK = """
import os, signal, sys, time
from pathlib import Path
from fastdeploy_diffusion.runtime.file_lock import hold_file
with hold_file(Path(sys.argv[1])):
    child = os.fork()
    if not child:
        time.sleep(60)
with hold_file(Path(sys.argv[1]), waits=False) as is_held:
    print(is_held)
os.kill(child, signal.SIGKILL)
"""


def test_a_fork_does_not_go_on_holding(tmp_path):
    command = [sys.executable, "-c", FORK, str(tmp_path / "lock")]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"True\n"


def test_a_proof_is_recorded_whole_or_not_at_all(cache):
    entry = keep(cache)
    with (
        file_size_limit(10),
        pytest.raises(CacheError, match="no file may be as large"),
        cache.read(KEY) as held,
    ):
        cache.record_proof(held, Proof(PROOF.key, Accuracy(3e-7, 1)))
    with cache.read(KEY) as found:
        assert found.list_proofs() == [PROOF]
    names = sorted(path.name for path in entry.folder.iterdir())
    assert names == ["artifact", ENTRY_FILE, "proofs"]
    (file,) = entry.folder.glob("proofs/*")
    with file.open() as reader, cache.read(KEY) as held:
        cache.record_proof(held, Proof(PROOF.key, Accuracy(3e-7, 1)))
        assert json.load(reader)["relative_error"] == 1e-6
