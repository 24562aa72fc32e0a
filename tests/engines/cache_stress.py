"""Several processes that publish, read, replace and remove in one cache, and count what is lost.

For longer than the test does: ``python tests/engines/cache_stress.py --seconds 300``.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from fastdeploy_diffusion.criteria import Accuracy
from fastdeploy_diffusion.engines.plan import (
    ComponentPlan,
    UnsafePrecision,
    find_plan,
    keep_plan,
    remember_failures,
)
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.cache_entry import CacheKey, Proof

PROCESSES = 4
_BUILDS = [CacheKey({"build": number}) for number in range(2)]
_PLANS = [CacheKey({"plan": number}) for number in range(2)]
# More than fit together, so that each that is published drives others out.
_CROWD = [CacheKey({"crowd": number}) for number in range(6)]
_STOP = "stop"
_FILES, _FILE_BYTES = ("a", "sub/b", "c"), 20_000


def stress(root: Path, seconds: float) -> Counter[str]:
    """Let processes loose on caches in an empty folder; one more is killed again and again.

    Returns:
        How many entries were published and records kept; and how many of them were ``lost``: not
        found although nobody had removed them, or gone while somebody held them. ``mixed`` are
        entries with files of two builds; anything that was raised counts under ``error: …``.
    """
    context = multiprocessing.get_context("spawn")

    def start(number: int) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=_work, args=(root, number))
        process.start()
        return process

    def wait_for(number: int) -> None:
        while not (root / f"{number}.log").exists():
            time.sleep(0.01)

    workers = [start(number) for number in range(PROCESSES)]
    for number in range(PROCESSES):
        wait_for(number)
    until, kills = time.time() + seconds, 0
    while time.time() < until:
        victim = start(PROCESSES + kills)
        wait_for(PROCESSES + kills)
        time.sleep(random.uniform(0, 0.3))
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        kills += 1
    (root / _STOP).touch()
    for worker in workers:
        worker.join()
    found = Counter[str]({"killed": kills})
    found["error: exit code"] += sum(worker.exitcode != 0 for worker in workers)
    records = []
    for log in root.glob("*.log"):
        for line in log.read_text(encoding="utf-8").splitlines():
            what, *record = json.loads(line)
            found[what] += 1
            if record:
                records.append(record)
    for plan, key in enumerate(_PLANS):
        kept = find_plan(_open(root), key)
        known = {(each.engine, each.precision) for each in kept.unsafe} if kept else set()
        mine = {(engine, precision) for at, engine, precision in records if at == plan}
        found["lost record"] += len(mine - known)
    for key in _BUILDS:
        found["lost build"] += _is_lost(_open(root), key)
    return found


def _open(root: Path) -> ArtifactCache:
    return ArtifactCache(root / "cache", limit=10**9)


def _work(root: Path, number: int) -> None:
    choose = random.Random(number)
    crowded = ArtifactCache(root / "crowded", limit=3 * len(_FILES) * _FILE_BYTES)
    with (root / f"{number}.log").open("w", encoding="utf-8", buffering=1) as log:

        def note(*what: object) -> None:
            log.write(json.dumps(what) + "\n")

        tasks = (
            lambda: _publish(_open(root), choose.choice(_BUILDS), note, stays=True),
            lambda: _look(_open(root), choose.choice(_BUILDS), note),
            lambda: _publish(crowded, choose.choice(_CROWD), note, stays=False),
            lambda: _look(crowded, choose.choice(_CROWD), note),
            lambda: _remember(_open(root), choose.randrange(len(_PLANS)), number, note),
            lambda: _tune(_open(root), choose.choice(_PLANS), note),
            lambda: find_plan(_open(root), choose.choice(_PLANS)),
            lambda: crowded.remove(choose.choice(_CROWD).digest),
            lambda: crowded.collect(),
        )
        while not (root / _STOP).exists():
            try:
                choose.choice(tasks)()
            except Exception as error:
                note(f"error: {type(error).__name__}: {str(error).splitlines()[0]}")


def _publish(cache, key, note, *, stays):
    stamp = f"{os.getpid()} {time.time_ns()} ".encode()
    with cache.lock(key) as slot:
        folder = slot.stage()
        for name in _FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(stamp.ljust(_FILE_BYTES))
        slot.publish({})
    note("published")
    if stays and _is_lost(cache, key):
        note("lost build")


def _is_lost(cache, key):
    with cache.read(key) as entry:
        if entry is not None:
            return False
    with cache.lock(key) as slot:  # somebody was killed who replaced it
        return slot.find() is None


def _look(cache, key, note):
    """Read file by file, as an engine does that loads a build."""
    with cache.read(key) as entry:
        if entry is None:
            return
        stamps = set()
        for name in _FILES:
            try:
                stamps.add((entry.artifact / name).read_bytes())
            except FileNotFoundError:
                note("lost while it was held")
                return
            time.sleep(0.002)
        note("read" if len(stamps) == 1 else "mixed")
        proof = Proof(CacheKey({"precision": f"p{random.randrange(3)}"}), Accuracy(1e-6, 1))
        cache.record_proof(entry, proof)
        if entry.find_proof(proof.key) != proof:
            note("lost proof")


def _remember(cache, plan, number, note):
    unsafe = UnsafePrecision(str(number), str(time.time_ns()), "denoiser: NaN")
    remember_failures(cache, _PLANS[plan], "denoiser", unsafe=[unsafe])
    note("record", plan, unsafe.engine, unsafe.precision)


def _tune(cache, key, note):
    keep_plan(cache, key, ComponentPlan("denoiser", {}, ()))
    note("plan")
    if find_plan(cache, key) is None:
        note("lost plan")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    with tempfile.TemporaryDirectory() as folder:
        for what, count in sorted(stress(Path(folder), parser.parse_args().seconds).items()):
            print(f"{count:8} {what}")
