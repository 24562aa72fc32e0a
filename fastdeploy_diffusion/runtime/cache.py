"""The cache of builds on disk: an entry is found only if everything it depends on is the same.

An entry is a folder named after the digest of its key, with the artifact in ``artifact/`` and
``entry.json`` beside it, which holds the key's ingredients and a checksum of every file. An
artifact may serve many weights and precisions: each that was checked has a file in ``proofs/``.
Processes share the folder by one protocol:

* Each key has a lock file. Reading an entry holds it shared for as long as files are opened or
  loaded by their names; building, replacing or removing one holds it exclusively.
* An entry appears by one rename, of a folder in which it was built, and disappears by one: what it
  replaces is set aside first, and removed under another name. So a killed process leaves a whole
  entry or none, and what a process has mapped stays as it is.
* ``entry.json`` and proofs are replaced as a whole, so that each is the old one or the new one.
* Weights, which entries have in common, lie beside them (`WeightStore`), with one lock for all.
* Large files that are the same in several entries are hard links to one; nothing is ever written
  into them, so that they stay as they are until the last of these entries goes.
* Without write access, entries are read all the same, without a lock if there is none.
"""

import filecmp
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from fastdeploy_diffusion.checksum import measure_files
from fastdeploy_diffusion.disk_room import describe_shortage
from fastdeploy_diffusion.errors import CacheError
from fastdeploy_diffusion.runtime.cache_entry import (
    ARTIFACT_FOLDER,
    ENTRY_FILE,
    CacheEntry,
    CacheKey,
    Proof,
    read_entry,
    write_entry,
)
from fastdeploy_diffusion.runtime.file_lock import hold_file
from fastdeploy_diffusion.runtime.weight_store import (
    WeightStore,
    find_damages,
    measure_weights,
    sweep,
)

_STAGED = ".staged"
_REMOVED = ".removed"
# Remains of killed processes, and no other file in a folder of the user's.
_HALF_BUILT = re.compile(rf"[0-9a-f]{{64}}\{_STAGED}")
_ASIDE = re.compile(rf"([0-9a-f]{{64}}|[a-z-]+)\{_REMOVED}-[0-9a-f]{{16}}")
_LOCKS = "locks"
_LARGE = 1 << 20  # bytes of files that are worth a link
MAKE_ROOM = (
    "make room (fastdeploy-diffusion cache rm), or give another folder as cache_dir, or set "
    "cache: false"
)
"""Advice for a cache without room."""
# Folders beside the entries, of what saves time and decides nothing of a build.
DIGESTS, TENSORRT_TIMINGS, CINN_KERNELS = "digests", "tensorrt-timings", "cinn-kernels"
EMBEDDINGS, CALIBRATIONS, NATIVE = "embeddings", "calibrations", "native"
REFERENCES = "references"
WEIGHTS = "weights"
_NOTES = (
    DIGESTS,
    TENSORRT_TIMINGS,
    CINN_KERNELS,
    EMBEDDINGS,
    CALIBRATIONS,
    NATIVE,
    REFERENCES,
)


class CacheWarning(UserWarning):
    """Builds cannot be kept, or a kept one cannot be used; the message says why."""


class ArtifactCache:
    """A folder of builds, shared by any number of processes and threads.

    Args:
        root: The folder; made when the first build is kept.
        limit: Bytes that all entries may take together.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        self.limit = limit

    @contextmanager
    def read(self, key: CacheKey) -> Iterator[CacheEntry | None]:
        """Lend the entry of a key, whole and unchanged, or ``None``, until the block ends.

        No process replaces or removes it meanwhile, and a build in progress is waited for. A
        damaged one is removed, where that can be done. Reading counts as use.
        """
        with self._share(key.digest):
            entry, is_damaged = self._find(key)
            if not is_damaged:
                yield entry
                return
        # Whoever holds it alone looks again: another process may have replaced it by now.
        with suppress(CacheError), self.lock(key) as slot:
            slot.find()
        with self._share(key.digest):
            entry, is_damaged = self._find(key)
            yield None if is_damaged else entry

    @contextmanager
    def lock(self, key: CacheKey) -> Iterator["CacheSlot"]:
        """Hold a key alone, so that of several processes one builds and the others wait.

        The system releases it when the process ends, however it ends.

        Raises:
            CacheError: The folder cannot be written.
        """
        with self._hold(key.digest):
            yield CacheSlot(self, key)

    def record_proof(self, entry: CacheEntry, proof: Proof) -> None:
        """Note what a check has found of an entry that was published before.

        Args:
            entry: The entry, inside the block that `read` lends it for. Other readers may do the
                same check, and note the same.

        Raises:
            CacheError: The folder cannot be written.
        """
        with _explain(self.root):
            entry.write_proof(proof)

    def entries(self) -> list[CacheEntry]:
        """List all entries, the one used last first."""
        folders = self.root.iterdir() if self.root.is_dir() else ()
        found = [entry for folder in folders if (entry := read_entry(folder))]
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def find_damage(self, entry: CacheEntry) -> str:
        """List what changed in an entry since its build; empty if nothing did.

        Empty, too, while another process builds, replaces or removes it.
        """
        with self._share(entry.digest, waits=False) as is_held:
            return entry.find_damage() if is_held and read_entry(entry.folder) else ""

    def open_store(self, digest: str) -> WeightStore:
        """Open the weight store for an entry that is lent, or for a slot that is held."""
        return WeightStore(self.root / WEIGHTS, digest, lambda: self._share(WEIGHTS))

    def measure_weights(self, entry: CacheEntry | None = None) -> dict[str, int]:
        """Measure each weight, in bytes, that is kept, or that an entry was bound with."""
        return measure_weights(self.root / WEIGHTS, entry.digest if entry else "")

    def measure(self, entries: Sequence[CacheEntry]) -> int:
        """Measure the bytes that entries take on the disk: files that they share count once."""
        return sum(
            {key: size for each in entries for key, size in each.list_inodes().items()}.values()
        )

    def find_damaged_weights(self) -> dict[str, str]:
        """List damaged weights; they are made anew when they are used."""
        return find_damages(self.root / WEIGHTS)

    def remove(self, digest: str) -> bool:
        """Remove an entry that no process builds or loads now, and weights that no other refers to.

        Returns:
            Whether it is gone.

        Raises:
            CacheError: It cannot be removed.
        """
        is_gone = self._remove_entry(digest)
        self._sweep_weights()
        return is_gone

    def remove_notes(self) -> None:
        """Remove the notes beside the entries: digests, kernels, references, calibrations.

        Raises:
            CacheError: They cannot be removed.
        """
        for name in _NOTES:
            self._remove(name)

    def collect(self, keep: str = "") -> list[str]:
        """Remove the least recently used entries, until the rest is within the limit.

        Weights and shared files count once, for the entry that was used last. Entries that a
        process builds or loads now stay. Remains of killed processes are removed, too.

        Args:
            keep: Digest of an entry that stays, however large it is.

        Returns:
            Digests of what was removed.

        Raises:
            CacheError: An entry cannot be removed.
        """
        self._clear_remains()
        removed, total = [], 0
        counted: set[Any] = set()
        for entry in self.entries():
            sizes: dict[Any, int] = {**self.measure_weights(entry), **entry.list_inodes()}
            total += sum(sizes[key] for key in sizes.keys() - counted)
            counted |= sizes.keys()
            if total > self.limit and entry.digest != keep and self._remove_entry(entry.digest):
                removed.append(entry.digest)
        self._sweep_weights()
        return removed

    def _remove_entry(self, digest: str) -> bool:
        with self._hold(digest, waits=False) as is_held:
            if is_held:
                self._remove(digest)
            return is_held

    def _sweep_weights(self) -> None:
        """Remove weights that no entry refers to; later, if a process adds weights now."""
        folder = self.root / WEIGHTS
        if folder.is_dir():
            with self._hold(WEIGHTS, waits=False) as is_held, _explain(self.root):
                if is_held:
                    sweep(folder, self._is_kept)

    def _is_kept(self, digest: str) -> bool:
        return any((self.root / f"{digest}{ending}").is_dir() for ending in ("", _STAGED))

    @contextmanager
    def _hold(self, digest: str, *, waits: bool = True) -> Iterator[bool]:
        """Lock a digest exclusively; yields whether it is held."""
        with ExitStack() as stack:
            with _explain(self.root):
                path = self.root / _LOCKS / digest
                path.parent.mkdir(parents=True, exist_ok=True)
                is_held = stack.enter_context(hold_file(path, waits=waits))
            yield is_held

    @contextmanager
    def _share(self, digest: str, *, waits: bool = True) -> Iterator[bool]:
        """Lock a digest with other readers; yields whether no process holds it exclusively."""
        with ExitStack() as stack:
            is_free = True
            # Nothing is kept yet, or who may not write there has no lock to hold.
            with suppress(OSError):
                (self.root / _LOCKS).mkdir(exist_ok=True)
                path = self.root / _LOCKS / digest
                is_free = stack.enter_context(hold_file(path, is_shared=True, waits=waits))
            yield is_free

    def _find(self, key: CacheKey) -> tuple[CacheEntry | None, bool]:
        """Look up a locked digest: the entry, if it is there, and whether it is damaged."""
        folder = self.root / key.digest
        entry = read_entry(folder)
        if entry is None:
            return None, folder.exists()
        if entry.find_damage() or entry.ingredients != json.loads(json.dumps(key.ingredients)):
            return entry, True
        with suppress(OSError):  # a read-only cache serves too, but does not know its last use
            os.utime(entry.folder / ENTRY_FILE)
        return entry, False

    def _set_aside(self, name: str) -> Path | None:
        """Rename a folder out of the way; returns the new name, if it was there."""
        aside = self.root / f"{name}{_REMOVED}-{secrets.token_hex(8)}"
        with _explain(self.root):
            try:
                return (self.root / name).rename(aside)
            except FileNotFoundError:
                return None

    def _remove(self, name: str) -> None:
        if aside := self._set_aside(name):
            shutil.rmtree(aside, ignore_errors=True)  # what stays is cleared another time

    def _clear_remains(self) -> None:
        """Remove what killed processes left half built or half removed."""
        for folder in self.root.glob("*.*"):
            if _ASIDE.fullmatch(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
            elif _HALF_BUILT.fullmatch(folder.name):
                with self._hold(folder.stem, waits=False) as is_held:
                    if is_held:
                        shutil.rmtree(folder, ignore_errors=True)


class CacheSlot:
    """The place of one key in a cache, locked exclusively."""

    def __init__(self, cache: ArtifactCache, key: CacheKey) -> None:
        self._cache = cache
        self._key = key
        self._folder = cache.root / key.digest
        self._staged = cache.root / f"{key.digest}{_STAGED}"

    def find(self) -> CacheEntry | None:
        """Find the entry, whole and unchanged, or ``None``; a damaged one is removed.

        What a process was about to publish when it was killed is published now.

        Raises:
            CacheError: It cannot be removed.
        """
        if (self._staged / ENTRY_FILE).exists() and not self._folder.exists():
            with _explain(self._cache.root):
                self._staged.rename(self._folder)
        entry, is_damaged = self._cache._find(self._key)
        if is_damaged:
            self._cache._remove(self._key.digest)
            return None
        return entry

    def open_store(self) -> WeightStore:
        """Open the weight store for the build in this slot."""
        return self._cache.open_store(self._key.digest)

    def stage(self) -> Path:
        """Make an empty folder to build in.

        Raises:
            CacheError: The folder cannot be written.
        """
        with _explain(self._cache.root):
            self.discard()  # what a killed build has left
            (self._staged / ARTIFACT_FOLDER).mkdir(parents=True)
        return self._staged / ARTIFACT_FOLDER

    def discard(self) -> None:
        """Remove what was staged."""
        shutil.rmtree(self._staged, ignore_errors=True)

    def publish(
        self, record: Mapping[str, Any], model: str = "", proof: Proof | None = None
    ) -> CacheEntry:
        """Turn the staged folder into the entry, and make room for it.

        Args:
            proof: What its check found; ``None`` if it could not be checked here.

        Raises:
            CacheError: The folder cannot be written, or the disk is full.
        """
        artifact = self._staged / ARTIFACT_FOLDER
        with _explain(self._cache.root):
            paths = [path for path in sorted(artifact.rglob("*")) if path.is_file()]
            names = [path.relative_to(artifact).as_posix() for path in paths]
            files = dict(zip(names, measure_files(paths), strict=True))
            self._link(artifact, files)
            ingredients = self._key.ingredients
            entry = CacheEntry(self._staged, ingredients, record, files, model, used=0.0, made=0)
            if proof:
                entry.write_proof(proof)
            write_entry(entry)
            earlier = self._cache._set_aside(self._key.digest)
            self._staged.rename(self._folder)
        if earlier:
            shutil.rmtree(earlier, ignore_errors=True)
        published = read_entry(self._folder)
        if published is None:
            raise CacheError(f"{self._folder} vanished while it was written")
        with suppress(CacheError):  # the entry is kept, even if others cannot be removed
            self._cache.collect(keep=self._key.digest)
        return published

    def _link(self, artifact: Path, files: Mapping[str, tuple[int, int]]) -> None:
        """Replace large files by links to the same ones in other entries."""
        large = {name: measured for name, measured in files.items() if measured[0] >= _LARGE}
        if not large:
            return
        others: dict[tuple[int, int], Path] = {}
        for entry in self._cache.entries():
            others |= {measured: entry.artifact / name for name, measured in entry.files.items()}
        for name, measured in large.items():
            # Without links (another entry goes now, or the file system has none) it stays a copy.
            with suppress(OSError):
                path, other = artifact / name, others.get(measured)
                if other and filecmp.cmp(path, other, shallow=False):
                    link = path.with_name(f"{path.name}.link")
                    os.link(other, link)
                    link.replace(path)

    def keep_record(self, record: Mapping[str, Any], model: str = "") -> None:
        """Keep JSON values alone, without files, in place of earlier ones.

        There is a record at any time, even if this process is killed.

        Raises:
            CacheError: The folder cannot be written.
        """
        entry = self.find()
        if entry is None:
            self.stage()
            self.publish(record, model)
            return
        with _explain(self._cache.root):
            write_entry(replace(entry, record=record, model=model or entry.model))


def default_cache_folder() -> Path:
    """Locate the user's cache folder, where builds are kept by default."""
    return Path(user_cache_dir("fastdeploy-diffusion", appauthor=False))


@contextmanager
def _explain(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if shortage := describe_shortage(error):
            raise CacheError(f"{shortage} in {root}", fix=MAKE_ROOM) from error
        raise CacheError(
            f"the cache of builds in {root} cannot be written: {error.strerror or error}",
            fix="give another folder as cache_dir, or set cache: false",
        ) from error
