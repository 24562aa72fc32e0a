"""Pictures that are given: files, bytes, Pillow images and arrays, as 8-bit colours of a size."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fastdeploy_diffusion.errors import DiffusionError, RequestError, ResourceError
from fastdeploy_diffusion.shown import show

GivenPicture: TypeAlias = Image.Image | str | os.PathLike[str] | bytes | npt.NDArray[Any]
"""One picture; an array may hold several."""
ImagePrompted: TypeAlias = GivenPicture | Sequence[GivenPicture | Sequence[GivenPicture]]
"""Pictures for IP-Adapters: one, or for each adapter one or a list."""
ResizeMode = Literal["stretch", "crop", "pad"]

RESIZE_MODES = ("stretch", "crop", "pad")
LARGEST_PICTURE = 50_000_000
"""Of pixels; decoded, they take 12 bytes each as numbers."""
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Of files. Others of Pillow run programs, or are read by few."""

_KINDS = "a Pillow image, a path, the bytes of a file, or a numpy array"
_WHITE = (255, 255, 255)
_LATENT_CHANNELS = 4
_CHANNELS = (1, 3, 4)


class Size(NamedTuple):
    """The size of a picture in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height} (width x height)"


def read_pictures(name: str, given: Any) -> list[Image.Image]:
    """Read one picture, or several: a list, or an array (B, H, W, C).

    Args:
        name: For messages.

    Returns:
        Images of mode "RGB", or "RGBA" where there is transparency, in their upright position.

    Raises:
        RequestError: It is no picture, or a damaged one.
        ResourceError: It is larger than `LARGEST_PICTURE`.
    """
    if isinstance(given, np.ndarray) and given.ndim == 4:
        given = list(given)
    if isinstance(given, list | tuple):
        if not given:
            raise RequestError(f"{name} is an empty list", allowed=f"{_KINDS}, or a list of them")
        return [read_picture(f"{name}[{index}]", each) for index, each in enumerate(given)]
    return [read_picture(name, given)]


def read_picture(name: str, given: Any) -> Image.Image:
    """Read one picture; arguments and errors are those of `read_pictures`."""
    if isinstance(given, Image.Image):
        return _convert(name, given)
    if isinstance(given, np.ndarray):
        return _convert_array(name, given)
    if isinstance(given, bytes | bytearray):
        return _decode(f"{name} ({len(given)} bytes)", io.BytesIO(given))
    if isinstance(given, str | os.PathLike):
        return _decode(f"{name} {os.fspath(given)}", _find_file(name, given))
    raise RequestError(f"{name} is {show(given)}", allowed=_KINDS)


def is_latents(given: Any) -> bool:
    """Tell an array of latents, (B, C, H, W) float32, from one of pictures, (B, H, W, C)."""
    return (
        isinstance(given, np.ndarray)
        and given.ndim == 4
        and given.dtype == np.float32
        and given.shape[1] == _LATENT_CHANNELS
        and given.shape[3] not in _CHANNELS
    )


def flatten(picture: Image.Image) -> Image.Image:
    """Lay a picture with transparency on white; returns mode "RGB"."""
    if picture.mode == "RGB":
        return picture
    ground = Image.new("RGBA", picture.size, (*_WHITE, 255))
    return Image.alpha_composite(ground, picture).convert("RGB")


def resize(picture: Image.Image, size: Size, mode: ResizeMode) -> Image.Image:
    """Resize a picture with Lanczos' filter, as the modes of diffusers do.

    Args:
        mode: ``stretch`` changes its form; ``crop`` keeps the form and cuts what is beyond, alike
            on both sides; ``pad`` keeps all, and repeats the pixels of the border beyond.
    """
    if picture.size == size:
        return picture
    if mode == "stretch":
        return picture.resize(size, Image.Resampling.LANCZOS)
    is_wider = size.width * picture.height > picture.width * size.height
    if is_wider == (mode == "crop"):
        inner = Size(size.width, max(picture.height * size.width // picture.width, 1))
    else:
        inner = Size(max(picture.width * size.height // picture.height, 1), size.height)
    scaled = picture.resize(inner, Image.Resampling.LANCZOS)
    left, top = (wanted // 2 - found // 2 for wanted, found in zip(size, inner, strict=True))
    if mode == "crop":
        return scaled.crop((-left, -top, size.width - left, size.height - top))
    borders = (
        (top, size.height - inner.height - top),
        (left, size.width - inner.width - left),
    )
    channels = ((0, 0),) * (len(scaled.getbands()) > 1)
    return Image.fromarray(np.pad(np.asarray(scaled), (*borders, *channels), mode="edge"))


def normalize(pictures: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
    """Turn images of mode "RGB" and one size into (B, 3, H, W) float32 in [-1, 1]."""
    pixels = np.stack([np.asarray(each) for each in pictures]).astype(np.float32) / 255
    scaled: npt.NDArray[np.float32] = 2 * pixels.transpose(0, 3, 1, 2) - 1
    return np.ascontiguousarray(scaled)


def extend_picture(
    given: GivenPicture, left: int, top: int, right: int, bottom: int
) -> tuple[Image.Image, Image.Image]:
    """Add pixels on the sides of a picture, which repeat its border.

    Returns:
        The larger picture, and a mask that is white where pixels were added.

    Raises:
        RequestError: A number is not allowed, or all are 0; or as `read_picture`.
    """
    sides = {"left": left, "top": top, "right": right, "bottom": bottom}
    for name, pixels in sides.items():
        if type(pixels) is not int or not 0 <= pixels <= LARGEST_PICTURE:
            raise RequestError(f"{name} is {show(pixels)}", allowed="a number of pixels: 0 or more")
    if not any(sides.values()):
        raise RequestError(
            "nothing is to be added", fix="give left, top, right or bottom in pixels"
        )
    picture = flatten(read_picture("image", given))
    size = picture.width + left + right, picture.height + top + bottom
    _check_size("the larger picture", size)
    borders = (top, bottom), (left, right)
    whole = np.pad(np.asarray(picture), (*borders, (0, 0)), mode="edge")
    kept = np.zeros((picture.height, picture.width), np.uint8)
    mask = np.pad(kept, borders, constant_values=255)
    return Image.fromarray(whole), Image.fromarray(mask)


def read_mask(name: str, picture: Image.Image) -> Image.Image:
    """Turn a picture into a mask of mode "L", in which white is 255.

    Raises:
        RequestError: It is transparent in parts, which may be meant either way.
    """
    if invert_alpha(picture) is not None:
        raise RequestError(
            f"{name} is transparent in parts",
            allowed="a mask without transparency: white where something is to be painted",
            fix="lay it on black or white first, whichever is meant",
        )
    return picture.convert("L")


def invert_alpha(picture: Image.Image) -> Image.Image | None:
    """Invert the alpha channel to a mask of mode "L"; ``None`` if every pixel is opaque."""
    if picture.mode != "RGBA":
        return None
    mask = ImageOps.invert(picture.getchannel("A"))
    return mask if mask.getbbox() else None  # the bounding box of non-zero pixels


def digest_picture(picture: Image.Image) -> str:
    """Hash mode, size and pixels; sha256 as hexadecimal digits."""
    content = hashlib.sha256(f"{picture.mode} {picture.width} x {picture.height}\n".encode())
    content.update(picture.tobytes())
    return content.hexdigest()


def _find_file(name: str, given: str | os.PathLike[str]) -> Path:
    path, text = Path(given), os.fspath(given)
    try:
        if path.is_file():
            return path
        what = "a folder" if path.is_dir() else "no file that exists"
    except (OSError, ValueError) as error:  # a name that no file has
        what = f"no file: {getattr(error, 'strerror', None) or error}"
    if text.startswith(("http://", "https://")):
        raise RequestError(f"{name} is an address, {text}", allowed=_KINDS, fix="download it first")
    raise RequestError(f"{name} is {show(text)}, {what}", allowed=_KINDS)


def _decode(name: str, source: Path | io.BytesIO) -> Image.Image:
    try:
        with Image.open(source, formats=FORMATS) as image:
            _check_size(name, image.size)  # before its pixels are decoded
            image.load()
            return _convert(name, image)
    except DiffusionError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _refuse_size(name, str(error)) from None
    except Exception as error:  # Pillow's parsers raise what they meet in a damaged file
        raise RequestError(
            f"{name} cannot be read as a picture: {error}",
            allowed=f"a whole file of the format {', '.join(FORMATS)}",
        ) from None


def _check_size(name: str, size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise RequestError(f"{name} is {Size(*size)}", allowed="a picture with pixels")
    if size[0] * size[1] > LARGEST_PICTURE:
        raise _refuse_size(name, str(Size(*size)))


def _refuse_size(name: str, found: str) -> ResourceError:
    return ResourceError(
        f"{name} is too large: {found}",
        allowed=f"up to {LARGEST_PICTURE:,} pixels",
        fix="give a smaller picture",
    )


def _convert(name: str, image: Image.Image) -> Image.Image:
    """Convert an image of any mode, turned as its EXIF says."""
    _check_size(name, image.size)
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        return _convert_deep(name, np.asarray(upright))
    if upright.mode == "F":
        return _convert_array(name, np.asarray(upright))
    has_alpha = upright.has_transparency_data
    try:
        return upright.convert("RGBA" if has_alpha else "RGB")
    except ValueError as error:
        problem = f"{name} is of the mode {upright.mode}, which has no colours: {error}"
        raise RequestError(problem, fix="convert it to RGB") from None


def _convert_deep(name: str, values: npt.NDArray[Any]) -> Image.Image:
    """Convert grey values of 16 bits."""
    if values.min() < 0 or values.max() > 65535:
        raise RequestError(
            f"{name} holds values from {values.min()} to {values.max()}",
            allowed="0 to 65535, 16 bits",
        )
    return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")


def _convert_array(name: str, array: npt.NDArray[Any]) -> Image.Image:
    allowed = (
        "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or several as (B, H, W, C), of uint8, of "
        "uint16, or of floating point from 0 to 1"
    )
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if channels not in (1, 3, 4) or array.dtype.kind not in "ufb" or array.size == 0:
        raise RequestError(f"{name} is an array of {array.dtype} {array.shape}", allowed=allowed)
    _check_size(name, (array.shape[1], array.shape[0]))
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # NaN is not, either
            raise RequestError(
                f"{name} is an array with values from {array.min():g} to {array.max():g}",
                allowed=allowed,
                fix="divide bytes by 255, or give them as uint8; from -1 to 1, (array + 1) / 2",
            )
        array = (array * 255).round()
    elif array.dtype.kind == "b":
        array = array * np.uint8(255)
    elif array.dtype.itemsize == 2:
        array = (array / 257).round()
    elif array.dtype.itemsize > 2:
        raise RequestError(f"{name} is an array of {array.dtype}", allowed=allowed)
    pixels = np.ascontiguousarray(array.astype(np.uint8))
    grey_or_colours = pixels.reshape(array.shape[:2]) if channels == 1 else pixels
    image = Image.fromarray(grey_or_colours)
    return image if channels == 4 else image.convert("RGB")
