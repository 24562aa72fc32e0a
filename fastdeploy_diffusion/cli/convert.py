"""``convert``: a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdeploy_diffusion.cli.errors import explain_errors
from fastdeploy_diffusion.errors import CheckpointError, ConfigError
from fastdeploy_diffusion.suggest import did_you_mean

if TYPE_CHECKING:
    from fastdeploy_diffusion.checkpoints.conversion import Written

_FORMATS = "safetensors, diffusers, pdparams or npz"
_DTYPES = "float32, float16 or bfloat16"


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A file of weights, or a model.")],
    output: Annotated[str, typer.Argument(metavar="OUT", help="A new file or folder.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help=f"{_FORMATS}. safetensors writes one file with the names that IN has; the others "
            "a folder with all components of a model.",
        ),
    ],
    dtype: Annotated[
        str | None, typer.Option(help=f"{_DTYPES}; as IN has its weights if left out.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="As for `generate`, where a single file has none."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write a checkpoint in another format: every tensor, with its exact values.

    Nothing is executed that a .ckpt or .bin file holds.
    """
    with explain_errors(debug):
        from fastdeploy_diffusion.cli.json_text import to_json
        from fastdeploy_diffusion.cli.table import align

        written = _convert(
            Path(source).expanduser(), Path(output).expanduser(), to, dtype, tokenizer
        )
        if as_json:
            print(to_json({"output": output, "written": [each._asdict() for each in written]}))
            return
        rows = [
            (each.name, f"{each.tensors} tensors", f"{each.parameters:,} numbers", each.dtype)
            for each in written
        ]
        print("\n".join([output, *align(rows)]))


def _convert(
    source: Path, output: Path, to: str, dtype: str | None, tokenizer: str | None
) -> list[Written]:
    from fastdeploy_diffusion.checkpoints import conversion, open_checkpoint
    from fastdeploy_diffusion.checkpoints.weight_files import WEIGHT_SUFFIXES, open_weight_file
    from fastdeploy_diffusion.cli.pipeline import require_paddle
    from fastdeploy_diffusion.cli.progress import show_progress

    for option, value, allowed in (
        ("--to", to, conversion.FORMATS),
        ("--dtype", dtype, tuple(conversion.DTYPES)),
    ):
        if value is not None and value not in allowed:
            raise ConfigError(
                f"{option} is {value!r}",
                allowed=", ".join(allowed),
                fix=did_you_mean(value, allowed) or "take one of these",
            )
    stored = None if dtype is None else conversion.DTYPES[dtype]
    if to == conversion.SAFETENSORS:
        if source.is_dir():
            raise CheckpointError(
                f"{source} is a folder, whose components have names of their own",
                allowed=f"a file of weights: {', '.join(WEIGHT_SUFFIXES)}",
                fix=f"give one of its files, or take --to {conversion.DIFFUSERS}",
            )
        if output.suffix.lower() != ".safetensors":
            raise ConfigError(
                f"OUT is {output}",
                allowed="a name that ends in .safetensors",
                fix=f"{output}.safetensors",
            )
        file = open_weight_file(source, ", ".join(WEIGHT_SUFFIXES), "a file of weights")
        with show_progress("converting") as show:
            return [conversion.convert_file(file, output, stored, show)]
    checkpoint = open_checkpoint(source)
    if checkpoint.is_built:
        raise CheckpointError(
            f"{source} is a bundle, whose weights are those of its engine",
            allowed="a diffusers folder, or a file with all components",
            fix="give the model that it was made from",
        )
    require_paddle()
    from fastdeploy_diffusion.config import DiffusionConfig
    from fastdeploy_diffusion.pipelines.tokenizer_folders import find_tokenizers

    folders: tuple[Path, ...] = ()
    if to == conversion.DIFFUSERS:
        config = DiffusionConfig(
            model_path=source, **({"tokenizer_path": tokenizer} if tokenizer else {})
        )
        folders = find_tokenizers(checkpoint, config)
    with show_progress("converting") as show:
        return conversion.convert_model(checkpoint, output, to, stored, folders, show)
