"""Checkpoints in other formats: what a file or a model holds, written so that others read it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints.diffusers_writer import (
    ComponentWeights,
    write_diffusers_folder,
)
from fastdeploy_diffusion.checkpoints.layer_weights import build_skeleton, check_weights
from fastdeploy_diffusion.checkpoints.safetensors_writer import write_safetensors
from fastdeploy_diffusion.checkpoints.weight_file import STORAGE_DTYPES, WeightFile
from fastdeploy_diffusion.disk_room import describe_shortage
from fastdeploy_diffusion.errors import CheckpointError, DiskFullError, RequestError
from fastdeploy_diffusion.whole_file import UNFINISHED

if TYPE_CHECKING:
    from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint
    from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource

SAFETENSORS, DIFFUSERS, PDPARAMS, NPZ = FORMATS = ("safetensors", "diffusers", "pdparams", "npz")
DTYPES: Mapping[str, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_NAMES = {PDPARAMS: "model_state.pdparams", NPZ: "weights.npz"}  # the first as in PPDiffusers
_FLOAT = ("F32", "F16", "BF16")

Show = Callable[[str, int, int], None]
"""Is told what is written, how many tensors of it there are, and how many there will be."""


class Written(NamedTuple):
    """What was written of a component, or of a file of weights."""

    name: str
    tensors: int
    parameters: int
    dtype: str


def convert_file(file: WeightFile, output: Path, dtype: str | None, show: Show) -> Written:
    """Write a file of weights as ``.safetensors``, every tensor under its name.

    Args:
        output: The new file.
        dtype: How numbers are stored: a value of `DTYPES`; ``None`` as they are. Of what is
            quantized, that is float32.

    Raises:
        CheckpointError: A tensor is of a dtype that holds no numbers, or cannot be written in
            the one that is asked for.
        RequestError: The file exists, or cannot be written.
        ResourceError: There is no room.
    """
    for name, tensor in file.tensors.items():
        if tensor.dtype not in STORAGE_DTYPES:
            raise CheckpointError(
                f"{file.path}: tensor {name!r} has dtype {tensor.dtype}",
                allowed=", ".join(STORAGE_DTYPES),
                fix="give a file of weights in floating point",
            )
    shapes = {name: each.shape for name, each in file.tensors.items()}
    chosen = dtype or _find_dtype([each.dtype for each in file.tensors.values()])
    with _write_whole(output) as unfinished:
        read = _count(partial(_read_finite, file.read, chosen), output.name, len(shapes), show)
        write_safetensors(unfinished, shapes, chosen, read)
    return Written(output.name, len(shapes), sum(map(prod, shapes.values())), chosen)


def convert_model(
    checkpoint: Checkpoint,
    output: Path,
    form: str,
    dtype: str | None,
    tokenizers: Sequence[Path],
    show: Show,
) -> list[Written]:
    """Write all components of a model into a new folder.

    Args:
        form: `DIFFUSERS`, with tokenizers; or `PDPARAMS` or `NPZ`: a folder for each component,
            with its weights and ``config.json``. In ``.pdparams`` weights of linear layers are
            [in, out], as Paddle's layers keep them. NumPy has no bfloat16: ``.npz`` has float32.
        dtype: As for `convert_file`.
        tokenizers: The folders of the family's tokenizers, in their order.

    Raises:
        CheckpointError: Weights are missing, left over, or not those of their config.
        RequestError: The folder exists, or cannot be written.
        ResourceError: There is no room.
    """
    sources = {name: checkpoint.tensors(name) for name in checkpoint.family.networks}
    for name, kind in checkpoint.family.networks.items():
        config = checkpoint.read_network(name, kind.config.from_dict)
        check_weights(build_skeleton(partial(kind.make, config)), sources[name])
    stored = {
        name: dtype or _find_dtype([source.dtype(each) for each in source])
        for name, source in sources.items()
    }
    if form == DIFFUSERS:  # which has one dtype for all
        stored = dict.fromkeys(stored, _find_dtype(list(stored.values())))
    with _write_whole(output) as unfinished:
        if form == DIFFUSERS:
            _write_diffusers(checkpoint, unfinished, sources, stored, tokenizers, show)
        else:
            _write_components(checkpoint, unfinished, form, sources, stored, show)
    return [
        Written(name, len(source), sum(prod(source.shape(each)) for each in source), stored[name])
        for name, source in sources.items()
    ]


def _write_diffusers(
    checkpoint: Checkpoint,
    folder: Path,
    sources: Mapping[str, TensorSource],
    stored: Mapping[str, str],
    tokenizers: Sequence[Path],
    show: Show,
) -> None:
    def list_weights() -> Iterator[ComponentWeights]:
        for name, source in sources.items():
            shapes = {each: source.shape(each) for each in source}
            read = _count(partial(_read_finite, source.read, dtype), name, len(source), show)
            yield ComponentWeights(name, shapes, read)

    dtype = next(iter(stored.values()))
    names = [*sources, "scheduler"]
    write_diffusers_folder(
        folder,
        checkpoint.family,
        {name: checkpoint.config(name) for name in names},
        list_weights(),
        {
            name: partial(shutil.copytree, own)
            for name, own in zip(checkpoint.family.tokenizers, tokenizers, strict=True)
        },
        dtype,
    )


def _write_components(
    checkpoint: Checkpoint,
    folder: Path,
    form: str,
    sources: Mapping[str, TensorSource],
    stored: Mapping[str, str],
    show: Show,
) -> None:
    write = _write_pdparams if form == PDPARAMS else _write_npz
    for name, source in sources.items():
        (folder / name).mkdir(parents=True)
        _write_json(folder / name / "config.json", checkpoint.config(name))
        kind = checkpoint.family.networks[name]
        layer = build_skeleton(partial(kind.make, kind.config.from_dict(checkpoint.config(name))))
        read = _count(partial(_read_finite, source.read, stored[name]), name, len(source), show)
        write(folder / name / _NAMES[form], layer, source.names, read, stored[name])
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", checkpoint.config("scheduler"))


def _write_pdparams(
    path: Path,
    layer: Any,
    names: Sequence[str],
    read: Callable[[str], npt.NDArray[np.float32]],
    dtype: str,
) -> None:
    from fastdeploy_diffusion.paddle_runtime import eager_mode, find_linear_weights, paddle

    linear = find_linear_weights(layer)
    kind = next(name for name, each in DTYPES.items() if each == dtype)
    with eager_mode():
        tensors = {}
        for name in names:
            value = read(name)
            given = np.ascontiguousarray(value.T if name in linear else value)
            tensors[name] = paddle.to_tensor(given, place=paddle.CPUPlace()).astype(kind)
        paddle.save(tensors, str(path))


def _write_npz(
    path: Path,
    layer: Any,
    names: Sequence[str],
    read: Callable[[str], npt.NDArray[np.float32]],
    dtype: str,
) -> None:
    kind = np.float16 if dtype == "F16" else np.float32
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name in names:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, read(name).astype(kind), allow_pickle=False)


def _find_dtype(stored: Sequence[str]) -> str:
    """Find the dtype that holds all numbers exactly; of float64 there is none, and it is F32."""
    kinds = set(stored)
    return kinds.pop() if len(kinds) == 1 and kinds <= set(_FLOAT) else "F32"


def _read_finite(
    read: Callable[[str], npt.NDArray[np.float32]], dtype: str, name: str
) -> npt.NDArray[np.float32]:
    """Read a tensor, and refuse numbers that float16 makes infinite."""
    value = read(name)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            lost = np.isfinite(value) & ~np.isfinite(value.astype(np.float16))
        if lost.any():
            raise CheckpointError(
                f"tensor {name!r} has values up to {np.abs(value[lost]).max():.3g}",
                allowed="magnitudes up to 65504 in float16",
                fix="--dtype bfloat16, or float32",
            )
    return value


def _count(
    read: Callable[[str], npt.NDArray[np.float32]], what: str, whole: int, show: Show
) -> Callable[[str], npt.NDArray[np.float32]]:
    """Tell how far the reading of tensors is."""
    done = 0

    def read_next(name: str) -> npt.NDArray[np.float32]:
        nonlocal done
        show(what, done, whole)
        done += 1
        return read(name)

    return read_next


@contextmanager
def _write_whole(output: Path) -> Iterator[Path]:
    """Lend a name beside the output, which gets its own when it is whole."""
    if output.exists() or output.is_symlink():
        raise RequestError(f"{output} exists already", fix="choose another name, or remove it")
    if not output.absolute().parent.is_dir():
        raise RequestError(
            f"there is no folder {output.absolute().parent}", fix="make it, or choose another"
        )
    unfinished = output.with_name(output.name + UNFINISHED)
    try:
        _remove(unfinished)  # of a process that was killed
        yield unfinished
        unfinished.rename(output)
    except OSError as error:
        if shortage := describe_shortage(error):
            raise DiskFullError(
                "a converted checkpoint", output.parent, shortage, fix="choose a folder elsewhere"
            ) from error
        raise RequestError(
            f"{output} cannot be written: {error.strerror or error}", fix="choose another folder"
        ) from error
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
