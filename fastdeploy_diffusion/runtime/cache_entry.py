"""An entry of the cache of builds: its artifact, the note beside it, and its proofs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.checksum import measure_files
from fastdeploy_diffusion.criteria import Accuracy
from fastdeploy_diffusion.whole_file import write_whole

ENTRY_FILE = "entry.json"
ARTIFACT_FOLDER = "artifact"
_PROOF_FOLDER = "proofs"


@dataclass(frozen=True)
class CacheKey:
    """Everything that a build depends on: JSON values; another value of any is another build."""

    ingredients: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The sha256 of the ingredients, as hexadecimal digits."""
        text = json.dumps(self.ingredients, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Proof:
    """The result of an accuracy check of an artifact.

    Args:
        key: All that its numbers depend on beside the artifact: weights, precision, device …
        accuracy: What was found, which is within the tolerance.
    """

    key: CacheKey
    accuracy: Accuracy


@dataclass(frozen=True)
class CacheEntry:
    """A finished build.

    Args:
        record: The notes given to ``publish``.
        files: Size in bytes and checksum of every file of the artifact, by relative path.
        model: Name of the model that it was built for first; no part of the key, for other
            models may have the same network.
        used: When it was last asked for, in seconds since the epoch.
        made: When its artifact was written, in nanoseconds since the epoch: tells builds of a
            key apart.
    """

    folder: Path
    ingredients: Mapping[str, Any]
    record: Mapping[str, Any]
    files: Mapping[str, tuple[int, int]]
    model: str
    used: float
    made: int

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

    def list_inodes(self) -> dict[tuple[int, int], int]:
        """List the bytes of each file by device and inode, for entries may share files."""
        inodes = {}
        for name, (size, _) in self.files.items():
            with suppress(OSError):  # damaged, or removed meanwhile
                found = (self.artifact / name).stat()
                inodes[found.st_dev, found.st_ino] = size
        return inodes

    def find_proof(self, key: CacheKey) -> Proof | None:
        """Look up the proof of a key; ``None`` without a check."""
        return _read_proof(self._locate_proof(key))

    def list_proofs(self) -> list[Proof]:
        """List all proofs, in no order."""
        files = sorted((self.folder / _PROOF_FOLDER).glob("*.json"))
        return [proof for file in files if (proof := _read_proof(file))]

    def write_proof(self, proof: Proof) -> None:
        """Keep a proof beside the artifact; others stay.

        Raises:
            OSError: It cannot be written.
        """
        file = self._locate_proof(proof.key)
        file.parent.mkdir(exist_ok=True)
        content = {**asdict(proof.accuracy), "ingredients": proof.key.ingredients}
        write_whole(file, json.dumps(content, indent=2, ensure_ascii=False).encode())

    def _locate_proof(self, key: CacheKey) -> Path:
        return self.folder / _PROOF_FOLDER / f"{key.digest}.json"

    def find_damage(self) -> str:
        """Describe the first change since the build; empty if there is none."""
        try:
            found = {
                path.relative_to(self.artifact).as_posix()
                for path in self.artifact.rglob("*")
                if path.is_file()
            }
            for name in sorted(found ^ self.files.keys()):
                return f"{name} is {'missing' if name in self.files else 'not part of it'}"
            measured = measure_files([self.artifact / name for name in self.files])
            for (name, expected), found_now in zip(self.files.items(), measured, strict=True):
                if found_now != expected:
                    return f"{name} has changed"
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
        return ""


def read_entry(folder: Path) -> CacheEntry | None:
    """Read the note of an entry; ``None`` if it is missing or unreadable."""
    if folder.suffix:  # half built, or half removed
        return None
    try:
        path = folder / ENTRY_FILE
        entry = json.loads(path.read_text(encoding="utf-8"))
        files = {name: (int(size), int(sum_)) for name, (size, sum_) in entry["files"].items()}
        used = path.stat().st_mtime
        made = (folder / ARTIFACT_FOLDER).stat().st_mtime_ns
        model, record = str(entry.get("model", "")), entry.get("record", {})
        return CacheEntry(folder, entry["ingredients"], record, files, model, used, made)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_entry(entry: CacheEntry) -> None:
    """Replace the note of an entry atomically.

    Raises:
        OSError: It cannot be written; the one before is unchanged.
    """
    content = {
        "model": entry.model,
        "ingredients": entry.ingredients,
        "record": entry.record,
        "files": entry.files,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_whole(entry.folder / ENTRY_FILE, text.encode())


def _read_proof(file: Path) -> Proof | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        key = CacheKey(dict(content.pop("ingredients")))
        return Proof(key, Accuracy(**content))
    except (OSError, ValueError, KeyError, TypeError):
        return None
