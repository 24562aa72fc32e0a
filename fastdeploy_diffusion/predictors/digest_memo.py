"""Digests of weights, remembered: a checkpoint's gigabytes are hashed once, not at each start."""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from fastdeploy_diffusion.checkpoints import TensorSource
from fastdeploy_diffusion.runtime.cache import DIGESTS
from fastdeploy_diffusion.whole_file import write_whole

# A file that was changed this short a time ago could change again and look the same.
_SETTLED_NANOSECONDS = 2 * 10**9


def recall_digest(source: TensorSource, root: Path) -> str:
    """Recall ``source.digest()`` from an earlier time, if its files are still the same.

    The source knows its tensors' digests afterwards.

    Args:
        root: The cache's folder; if it cannot be written, the digest is computed each time.

    Raises:
        CheckpointError: A file changed after it was opened.
    """
    described = source.describe()
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    memo = root / DIGESTS / hashlib.sha256(text.encode()).hexdigest()
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        kept = json.loads(memo.read_text(encoding="utf-8"))
        if kept["tensors"].keys() == set(source):
            source.remember_digests(kept["tensors"])
            return str(kept["all"])
    digest = source.digest()
    changed = max((max(each[3:]) for each in described["files"].values()), default=0)
    if time.time_ns() - changed > _SETTLED_NANOSECONDS:
        with suppress(OSError):
            memo.parent.mkdir(parents=True, exist_ok=True)
            content = {"all": digest, "tensors": source.list_digests()}
            write_whole(memo, json.dumps(content).encode())
    return digest
