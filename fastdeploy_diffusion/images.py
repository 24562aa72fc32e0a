"""Pictures: arrays to Pillow images, and files with the settings that made them."""

import errno
import json
import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fastdeploy_diffusion.errors import (
    DiffusionError,
    EngineError,
    RequestError,
    ResourceError,
)
from fastdeploy_diffusion.exif_texts import read_texts, write_texts
from fastdeploy_diffusion.request_fields import FIELDS

METADATA_KEY = "fastdeploy_diffusion"
METADATA_VERSION = 1

# What Pillow saves under the endings of files. WebP keeps every pixel, in less room than PNG; JPEG
# does not, but keeps the colour of each.
_WEBP = ("WEBP", {"lossless": True})
_JPEG = ("JPEG", {"quality": 95, "subsampling": 0})
_FORMATS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    ".png": ("PNG", {}),
    ".webp": _WEBP,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
}
IMAGE_SUFFIXES = tuple(_FORMATS)
"""Endings of the files that `save_image` writes."""

_PARAMETERS_KEY = "parameters"  # where image viewers for Stable Diffusion look

# The keyword arguments of text_to_image that make a picture again, and their types.
SETTINGS = {
    name: each.kind for name, each in FIELDS.items() if each.kind is not None and each.is_noted
}


def denormalize(decoded: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn a VAE's output into colours.

    Args:
        decoded: (B, 3, H, W) float32, nominally in [-1, 1]; values beyond are clipped.

    Returns:
        (B, H, W, 3) float32 in [0, 1].

    Raises:
        EngineError: the array has another shape, or holds NaN or Inf, which would be clipped to
            a black or white picture.
    """
    if decoded.ndim != 4 or decoded.shape[1] != 3:
        raise EngineError(f"decoded images of shape {decoded.shape}", allowed="(B, 3, H, W)")
    _check_finite(decoded)
    colours = np.clip(decoded * np.float32(0.5) + np.float32(0.5), 0.0, 1.0)
    return np.ascontiguousarray(colours.transpose(0, 2, 3, 1))


def to_pil(array: npt.NDArray[np.float32]) -> list[Image.Image]:
    """Turn colours into Pillow images, rounded as diffusers' ``numpy_to_pil`` rounds.

    Args:
        array: (B, H, W, 3) float32 in [0, 1].

    Returns:
        B images of mode "RGB".

    Raises:
        EngineError: the array has another shape, holds NaN or Inf, or leaves [0, 1].
    """
    if array.ndim != 4 or array.shape[3] != 3:
        raise EngineError(f"images of shape {array.shape}", allowed="(B, H, W, 3)")
    _check_finite(array)
    if array.size and (array.min() < 0.0 or array.max() > 1.0):
        raise EngineError(
            f"the images hold values from {array.min():g} to {array.max():g}",
            allowed="0 to 1",
            fix="pass the VAE's output through denormalize()",
        )
    pixels = (array * 255).round().astype(np.uint8)
    return [Image.fromarray(image) for image in pixels]


def write_metadata(
    image: Image.Image, settings: Mapping[str, Any], run: Mapping[str, Any] | None = None
) -> None:
    """Write settings and run into an image's metadata, which ``image.save("x.png")`` keeps.

    ``image.info`` gets the two texts that a PNG file shows when it is opened: a JSON object under
    ``METADATA_KEY`` and a readable summary under "parameters". Images derived from this one
    (``resize``, ``copy``) inherit ``info``, but only ``save_image`` writes it for them, and into
    JPEG and WebP files. To save with a ``pnginfo`` of your own, save a copy: Pillow prefers the
    one noted here.

    Args:
        image: Changed in place.
        settings: Keyword arguments of ``text_to_image`` that make this one image again; those
            that are None are left out.
        run: What really ran, for the record: engine, device, fallbacks, model …; JSON values.

    Raises:
        RequestError: a setting that is not in ``SETTINGS``, or a value that JSON or Unicode text
            cannot hold.
    """
    chosen = {key: value for key, value in settings.items() if value is not None}
    _check_settings(chosen, "the settings")
    content = {"version": METADATA_VERSION, "settings": chosen, "run": dict(run or {})}
    try:
        # ASCII, so that the text survives programs that know only Latin-1 PNG chunks.
        text = json.dumps(content, allow_nan=False)
        summary = _summarise(chosen)
        summary.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"the metadata cannot be written: {error}",
            allowed="Unicode strings, finite numbers, booleans, null, lists and mappings",
        ) from None
    image.info |= {METADATA_KEY: text, _PARAMETERS_KEY: summary}
    # Pillow writes no text of `info` by itself, but what `encoderinfo` holds.
    image.encoderinfo = {"pnginfo": _collect_text(image)}


def read_metadata(source: str | Path | Image.Image) -> dict[str, Any]:
    """Read what ``write_metadata`` noted: {"version", "settings", "run"}.

    Raises:
        RequestError: the file is no readable image, or has no metadata of this library, or
            damaged ones, or those of a newer version.
    """
    name = "the image" if isinstance(source, Image.Image) else str(source)
    text = _load_info(source).get(METADATA_KEY)
    if not isinstance(text, str):
        raise RequestError(
            f"{name} has no metadata of {METADATA_KEY}",
            allowed="PNG files, and JPEG and WebP files of save_image and the command line, that "
            "no other program has saved again",
        )
    try:
        content = json.loads(text)
        version, settings, run = (content[key] for key in ("version", "settings", "run"))
        if type(version) is not int or not isinstance(settings, dict) or not isinstance(run, dict):
            raise TypeError("its parts have the wrong types")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(f"the metadata of {name} are damaged: {error}") from None
    if version != METADATA_VERSION:
        raise RequestError(
            f"the metadata of {name} have version {version}",
            allowed=f"version {METADATA_VERSION}",
            fix="update fastdeploy-diffusion",
        )
    _check_settings(settings, f"the metadata of {name}")
    return {"version": version, "settings": settings, "run": run}


def read_settings(source: str | Path | Image.Image) -> dict[str, Any]:
    """Read the keyword arguments that make an image again: ``text_to_image(**settings)``.

    Raises:
        RequestError: as ``read_metadata``.
    """
    settings: dict[str, Any] = read_metadata(source)["settings"]
    return settings


def save_image(image: Image.Image, path: str | Path, *, overwrite: bool = False) -> None:
    """Write an image with its metadata; the file appears whole or not at all.

    Args:
        image: Metadata in ``image.info`` are kept, also where ``image`` is a resized copy.
        path: Its ending names the format: ``.png`` or ``.webp``, which keep every pixel, or
            ``.jpg`` or ``.jpeg``, which do not.

    Raises:
        RequestError: the file exists, its folder does not, it cannot be written, or the format has
            no room for the metadata.
        ResourceError: there is no space left.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise RequestError(f"{path} is no picture by its name", allowed=", ".join(IMAGE_SUFFIXES))
    name, options = _FORMATS[path.suffix.lower()]
    check_folder(path.parent)
    _check_free(path, overwrite)
    # Beside the target: a rename is atomic only within a file system.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with partial.open("xb") as file:
            # The copy has no encoderinfo, which would win over the argument.
            _encode(image.copy(), file, name, options)
        if overwrite or not _link(partial, path):
            _check_free(path, overwrite)  # another process may write it during encoding
            os.replace(partial, path)
    except OSError as error:
        raise explain_unwritten(path, error) from None
    finally:
        partial.unlink(missing_ok=True)


def _encode(image: Image.Image, file: IO[bytes], name: str, options: Mapping[str, Any]) -> None:
    if name == "PNG":
        image.save(file, format=name, pnginfo=_collect_text(image))
        return
    info = _collect_info(image)
    texts = [info.get(key) for key in (METADATA_KEY, _PARAMETERS_KEY)]
    exif = write_texts(METADATA_KEY, *map(str, texts)) if None not in texts else Image.Exif()
    try:
        image.save(file, format=name, exif=exif, **options)
    except ValueError as error:
        raise RequestError(
            f"a {name} file cannot hold the picture: {error}",
            allowed="settings of 64 KiB at most",
            fix="save it as .png or .webp",
        ) from None


def check_folder(folder: Path) -> None:
    """Refuse a folder that is missing, or is something else.

    Raises:
        RequestError: The message says which, and how to make it.
    """
    if folder.is_dir():
        return
    existing = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if existing.is_dir():
        fix = f"mkdir -p {shlex.quote(str(folder))}"
        raise RequestError(f"there is no folder {folder}", fix=fix)
    what = "a file" if existing.is_file() else "no folder"
    problem = f"{existing} is {what}: no picture can lie in it"
    raise RequestError(problem, allowed="a folder", fix="choose another name, or another folder")


def explain_unwritten(path: Path, error: OSError) -> DiffusionError:
    """Make the error for a file or folder that cannot be written."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            f"{path} cannot be written: {reason}",
            fix="make room there, or choose a folder on another disk",
        )
    return RequestError(f"{path} cannot be written: {reason}", fix="choose another folder")


def _link(partial: Path, path: Path) -> bool:
    """Link a file to a name unless it is taken, atomically; False without hard links."""
    try:
        os.link(partial, path)
    except FileExistsError:
        _check_free(path, overwrite=False)
        raise
    except OSError:
        return False
    return True


def _check_free(path: Path, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:
        raise RequestError(
            f"{path} exists already", fix="choose another name, or ask for overwrite"
        )


def _check_finite(array: npt.NDArray[np.float32]) -> None:
    wrong = [i for i, image in enumerate(array) if not np.isfinite(image).all()]
    if wrong:
        raise EngineError(
            f"NaN or Inf in image {', '.join(map(str, wrong))} of {len(array)}",
            allowed="finite numbers",
            fix="run the VAE in a higher precision (fp32)",
        )


def _check_settings(settings: Mapping[str, Any], owner: str) -> None:
    for key, value in settings.items():
        if key not in SETTINGS:
            raise RequestError(f"{owner} name an unknown {key!r}", allowed=", ".join(SETTINGS))
        kinds = (int, float) if SETTINGS[key] is float else (SETTINGS[key],)
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds == (bool,)):
            allowed = f"a value of type {SETTINGS[key].__name__}"
            raise RequestError(f"{owner} hold {key} = {value!r}", allowed=allowed)


def _collect_text(image: Image.Image) -> PngInfo:
    text, info = PngInfo(), _collect_info(image)
    for key in (METADATA_KEY, _PARAMETERS_KEY):
        if isinstance(info.get(key), str):
            text.add_text(key, info[key])  # tEXt where Latin-1 does, else iTXt
    return text


def _collect_info(image: Image.Image) -> dict[Any, Any]:
    """Collect what an image carries, also in EXIF."""
    found = {} if METADATA_KEY in image.info else read_texts(image, METADATA_KEY)
    own = {METADATA_KEY: found["text"], _PARAMETERS_KEY: found["comment"]} if found else {}
    return {**image.info, **own}


def _load_info(source: str | Path | Image.Image) -> dict[Any, Any]:
    if isinstance(source, Image.Image):
        return _collect_info(source)
    try:
        with Image.open(source) as image:
            image.load()  # text chunks may stand behind the pixels
            return _collect_info(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError(f"{source} cannot be read as an image: {error}") from None


def _summarise(settings: Mapping[str, Any]) -> str:
    """Write the text in the form of AUTOMATIC1111's web UI, which other tools parse."""
    numbers = {
        "Steps": settings.get("num_inference_steps"),
        "CFG scale": settings.get("guidance_scale"),
        "CFG rescale": settings.get("guidance_rescale"),
        "Seed": settings.get("seed"),
        "Size": "{width}x{height}".format_map(settings)
        if {"width", "height"} <= set(settings)
        else None,
        "Eta": settings.get("eta"),
        # diffusers counts the layers that are skipped, the others the layer that is used.
        "Clip skip": settings["clip_skip"] + 1 if "clip_skip" in settings else None,
    }
    lines = [settings.get("prompt", "")]
    if settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    lines.append(
        ", ".join(f"{key}: {value}" for key, value in numbers.items() if value is not None)
    )
    return "\n".join(lines).replace("\0", "\ufffd")  # PNG text may hold no NUL
