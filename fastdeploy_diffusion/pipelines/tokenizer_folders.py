"""Finds the folders of a checkpoint's tokenizers."""

from pathlib import Path

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.model_files import find_folder


def find_tokenizer(checkpoint: Checkpoint, config: DiffusionConfig) -> Path:
    """Find the folder of the one tokenizer that a family has.

    Raises:
        CheckpointError: A single file carries none, and the configuration names none.
    """
    folder = config.tokenizer_path or checkpoint.folder("tokenizer")
    if folder is None:
        raise CheckpointError(
            f"{checkpoint.path} is a single file, which carries no tokenizer",
            allowed="tokenizer_path, a folder with tokenizer.json or vocab.json and merges.txt",
            fix='DiffusionConfig(…, tokenizer_path="…/tokenizer"): the tokenizer folder of any '
            "diffusers folder of the same family",
        )
    return Path(folder)


def find_tokenizers(checkpoint: Checkpoint, config: DiffusionConfig) -> tuple[Path, Path]:
    """Find the folders of both tokenizers that a family has.

    Args:
        config: May name a folder that holds both.

    Raises:
        CheckpointError: One of them is not there.
    """
    model, names = checkpoint.family.title, tuple(checkpoint.family.tokenizers)
    if config.tokenizer_path is not None:
        folders = Path(config.tokenizer_path) / names[0], Path(config.tokenizer_path) / names[1]
        if not all(map(find_folder, folders)):
            traits = [
                f"{name} ({each.trait})" for name, each in checkpoint.family.tokenizers.items()
            ]
            raise CheckpointError(
                f"tokenizer_path is {config.tokenizer_path}, which lacks {' or '.join(names)}",
                allowed=f"a folder with the folders {' and '.join(traits)}",
                fix=f"give any diffusers folder of {model}, not one of its components",
            )
        return folders
    own = [checkpoint.folder(name) for name in names]
    if own[0] is None or own[1] is None:
        raise CheckpointError(
            f"{checkpoint.path} is a single file, which carries no tokenizers",
            allowed="tokenizer_path, a folder with the folders tokenizer and tokenizer_2",
            fix=f'DiffusionConfig(…, tokenizer_path="…"): any diffusers folder of {model}',
        )
    return own[0], own[1]
