"""Builds kept on disk: found again only if everything that they depend on is the same.

An entry is a folder named after the digest of its key, with the artifact in ``artifact/`` and
``entry.json`` beside it, which holds the key's ingredients, the proof of the build, and a checksum
of every file. Entries are built beside their place and renamed into it, so a killed build leaves
nothing that could be taken for an entry.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from fastdeploy_diffusion.errors import CacheError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ENTRY_FILE = "entry.json"
ARTIFACT_FOLDER = "artifact"
_STAGED = ".staged"
# Locks are never removed: one process would wait for a file that another no longer sees.
_LOCKS = "locks"
# Folders beside the entries, of what saves time and decides nothing of a build.
DIGESTS, TENSORRT_TIMINGS, CINN_KERNELS = "digests", "tensorrt-timings", "cinn-kernels"
EMBEDDINGS = "embeddings"
_NOTES = (DIGESTS, TENSORRT_TIMINGS, CINN_KERNELS, EMBEDDINGS)


class CacheWarning(UserWarning):
    """Builds cannot be kept, or a kept one cannot be used; the message says why."""


@dataclass(frozen=True)
class CacheKey:
    """Everything that a build depends on; another value of any ingredient is another build.

    Args:
        ingredients: JSON values by name.
    """

    ingredients: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The sha256 of the ingredients, as hexadecimal digits."""
        text = json.dumps(self.ingredients, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class CacheEntry:
    """A finished build.

    Args:
        folder: Where it lies.
        ingredients: What it was built from.
        proof: What its check found, as it was given to ``publish``.
        files: Size in bytes and checksum of every file of the artifact, by relative path.
        used: When it was last asked for, in seconds since the epoch.
    """

    folder: Path
    ingredients: Mapping[str, Any]
    proof: Mapping[str, Any]
    files: Mapping[str, tuple[int, int]]
    used: float

    @property
    def artifact(self) -> Path:
        """Folder of the artifact."""
        return self.folder / ARTIFACT_FOLDER

    @property
    def digest(self) -> str:
        """Digest of the key."""
        return self.folder.name

    @property
    def size(self) -> int:
        """Bytes of the artifact."""
        return sum(size for size, _ in self.files.values())

    def find_damage(self) -> str:
        """Say what is not as it was when it was built; nothing if all is."""
        try:
            found = {
                path.relative_to(self.artifact).as_posix()
                for path in self.artifact.rglob("*")
                if path.is_file()
            }
            for name in sorted(found ^ self.files.keys()):
                return f"{name} is {'missing' if name in self.files else 'not part of it'}"
            measured = _measure([self.artifact / name for name in self.files])
            for (name, expected), found_now in zip(self.files.items(), measured, strict=True):
                if found_now != expected:
                    return f"{name} has changed"
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
        return ""


class ArtifactCache:
    """A folder of builds, shared by any number of processes.

    Args:
        root: The folder; made when the first build is kept.
        limit: Bytes that all entries may take together.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        self.limit = limit

    @contextmanager
    def lock(self, key: CacheKey) -> Iterator[None]:
        """Hold a key, so that of several processes one builds and the others wait.

        The system releases it when the process ends, however it ends.

        Raises:
            CacheError: The folder cannot be written.
        """
        with _explain(self.root):
            (self.root / _LOCKS).mkdir(parents=True, exist_ok=True)
            file = (self.root / _LOCKS / key.digest).open("a")
        with file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def find(self, key: CacheKey) -> CacheEntry | None:
        """Give the entry of a key, whole and unchanged, or nothing.

        A damaged one is removed. Finding counts as use.
        """
        entry = self._read(self.root / key.digest)
        if entry is None:
            return None
        if entry.find_damage() or entry.ingredients != json.loads(json.dumps(key.ingredients)):
            self.remove(entry.digest)
            return None
        with suppress(OSError):  # a read-only cache serves too, but does not know its last use
            os.utime(entry.folder / ENTRY_FILE)
        return entry

    def stage(self, key: CacheKey) -> Path:
        """Give an empty folder to build in; whoever calls holds the key's lock.

        Raises:
            CacheError: The folder cannot be written.
        """
        staged = self.root / f"{key.digest}{_STAGED}"
        with _explain(self.root):
            # What a killed build has left.
            shutil.rmtree(staged, ignore_errors=True)
            (staged / ARTIFACT_FOLDER).mkdir(parents=True)
        return staged / ARTIFACT_FOLDER

    def discard(self, key: CacheKey) -> None:
        """Remove what was staged for a key, whose lock is held."""
        shutil.rmtree(self.root / f"{key.digest}{_STAGED}", ignore_errors=True)

    def publish(self, key: CacheKey, proof: Mapping[str, Any]) -> CacheEntry:
        """Turn what was built in the staged folder into the key's entry, and make room for it.

        Args:
            key: The key, whose lock is held.
            proof: What the check of the build found; JSON values.

        Raises:
            CacheError: The folder cannot be written, or the disk is full.
        """
        staged, folder = self.root / f"{key.digest}{_STAGED}", self.root / key.digest
        artifact = staged / ARTIFACT_FOLDER
        with _explain(self.root):
            paths = [path for path in sorted(artifact.rglob("*")) if path.is_file()]
            files = {
                path.relative_to(artifact).as_posix(): list(each)
                for path, each in zip(paths, _measure(paths), strict=True)
            }
            _write_entry(staged, {"ingredients": key.ingredients, "proof": proof, "files": files})
            shutil.rmtree(folder, ignore_errors=True)
            staged.rename(folder)
        published = self._read(folder)
        if published is None:
            raise CacheError(f"{folder} vanished while it was written")
        self.collect(keep=key.digest)
        return published

    def record_proof(self, entry: CacheEntry, proof: Mapping[str, Any]) -> None:
        """Note what a check has found of an entry that was published without one.

        Args:
            entry: The entry; it must not be changed by others meanwhile, except by the same check.
            proof: What the check found; JSON values.

        Raises:
            CacheError: The folder cannot be written.
        """
        with _explain(self.root):
            files = {name: list(each) for name, each in entry.files.items()}
            content = {"ingredients": entry.ingredients, "proof": proof, "files": files}
            _write_entry(entry.folder, content)

    def entries(self) -> list[CacheEntry]:
        """All entries, the one used last first."""
        folders = self.root.iterdir() if self.root.is_dir() else ()
        found = [entry for folder in folders if (entry := self._read(folder))]
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def remove(self, digest: str) -> None:
        """Remove an entry, if it is there.

        Raises:
            CacheError: It cannot be removed.
        """
        with _explain(self.root):
            if (self.root / digest).exists():
                shutil.rmtree(self.root / digest)

    def remove_notes(self) -> None:
        """Remove what is remembered beside the entries: digests, kernels, embeddings of texts.

        Raises:
            CacheError: They cannot be removed.
        """
        with _explain(self.root):
            for name in _NOTES:
                if (self.root / name).exists():
                    shutil.rmtree(self.root / name)

    def collect(self, keep: str = "") -> list[str]:
        """Remove what was used longest ago, until the rest is within the limit.

        Args:
            keep: Digest of an entry that stays, however large it is.

        Returns:
            Digests of what was removed.

        Raises:
            CacheError: An entry cannot be removed.
        """
        removed, total = [], 0
        for entry in self.entries():
            total += entry.size
            if total > self.limit and entry.digest != keep:
                self.remove(entry.digest)
                removed.append(entry.digest)
        return removed

    def _read(self, folder: Path) -> CacheEntry | None:
        if folder.suffix == _STAGED:
            return None
        try:
            path = folder / ENTRY_FILE
            entry = json.loads(path.read_text(encoding="utf-8"))
            files = {name: (int(size), int(sum_)) for name, (size, sum_) in entry["files"].items()}
            used = path.stat().st_mtime
            return CacheEntry(folder, entry["ingredients"], entry["proof"], files, used)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def default_cache_folder() -> Path:
    """Where builds are kept unless a configuration says otherwise: the user's own cache folder."""
    return Path(user_cache_dir("fastdeploy-diffusion", appauthor=False))


def _write_entry(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the note beside an artifact; a reader sees the old one or the new one, whole."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    unfinished = folder / f"{ENTRY_FILE}.{os.getpid()}"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(folder / ENTRY_FILE)


def _measure(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Size in bytes and CRC-32 of files: gigabytes of them are read at each start.

    It is damage that must be noticed, and every burst of up to 32 wrong bits is.
    """
    with ThreadPoolExecutor() as pool:  # zlib releases Python's lock
        return list(pool.map(_measure_file, paths))


def _measure_file(path: Path) -> tuple[int, int]:
    size, checksum = 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum


@contextmanager
def _explain(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"the cache of builds in {root} cannot be written: {error.strerror or error}",
            fix="make room there, or give another folder as cache_dir",
        ) from error
