"""Finds the folders of a checkpoint's tokenizers."""

from pathlib import Path

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.model_files import find_folder


def find_tokenizers(checkpoint: Checkpoint, config: DiffusionConfig) -> tuple[Path, ...]:
    """Find the folder of each tokenizer that the checkpoint's family has.

    Args:
        config: May name the folder of a family's one tokenizer, or a folder that holds all.

    Raises:
        CheckpointError: One of them is not there.
    """
    family, given = checkpoint.family, config.tokenizer_path
    names, model = list(family.tokenizers), f"any diffusers folder of {family.title}"
    traits = [f"{name} ({each.trait})" for name, each in family.tokenizers.items()]
    allowed, example = f"a folder with the folders {' and '.join(traits)}", "…"
    if len(names) == 1:
        allowed = "a folder with tokenizer.json or vocab.json and merges.txt"
        example = f"…/{names[0]}"
    if given is None:
        own = tuple(folder for name in names if (folder := checkpoint.folder(name)))
        if len(own) < len(names):
            raise CheckpointError(
                f"{checkpoint.path} is a single file, which carries no tokenizers",
                allowed=f"tokenizer_path, {allowed}",
                fix=f'DiffusionConfig(…, tokenizer_path="{example}"), of {model}',
            )
        return own
    if len(names) == 1:
        return (Path(given),)
    folders = tuple(Path(given) / name for name in names)
    if not all(map(find_folder, folders)):
        raise CheckpointError(
            f"tokenizer_path is {given}, which lacks {' or '.join(names)}",
            allowed=allowed,
            fix=f"give {model}, not one of its components",
        )
    return folders
