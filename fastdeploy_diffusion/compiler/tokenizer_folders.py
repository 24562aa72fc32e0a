"""The folders of a pipeline's tokenizers, and the digest of what they hold."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor

# Of vocabularies and options; a folder may hold anything else, too.
_KINDS = frozenset({".json", ".model", ".txt"})


def list_tokenizer_folders(pipeline: DiffusionPredictor[Any]) -> dict[str, Path]:
    """List the folder of each tokenizer, by its name in the checkpoint's family."""
    checkpoint, given = pipeline.checkpoint, pipeline.config.tokenizer_path
    names = list(checkpoint.family.tokenizers)
    folders = {}
    for name in names:
        folder = checkpoint.folder(name)
        if given is not None:
            folder = Path(given) if len(names) == 1 else Path(given) / name
        assert folder is not None  # or the pipeline would not have opened
        folders[name] = folder
    return folders


def digest_tokenizers(pipeline: DiffusionPredictor[Any]) -> str:
    """Hash the files of vocabularies and options: sha256 (hex), wherever their folders lie."""
    total = hashlib.sha256()
    for name, folder in list_tokenizer_folders(pipeline).items():
        for file in sorted(folder.iterdir()):
            if file.suffix in _KINDS and file.is_file():
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                total.update(f"{name}/{file.name} {content}\n".encode())
    return total.hexdigest()
