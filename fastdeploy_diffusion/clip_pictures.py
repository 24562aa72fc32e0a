"""Pictures as CLIP's vision towers take them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdeploy_diffusion.errors import ResourceError
from fastdeploy_diffusion.pictures_in import LARGEST_PICTURE, Size

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def prepare_pictures(pictures: Sequence[Image.Image], size: int) -> npt.NDArray[np.float32]:
    """Resize, crop and normalise pictures, bit for bit as transformers' ``CLIPImageProcessor``.

    The shorter side becomes ``size`` with Pillow's bicubic filter, and the middle of the longer one
    stays. This is the processor's Pillow backend; torchvision rounds in other places.

    Args:
        pictures: Of mode "RGB".
        size: Of the tower, in pixels.

    Returns:
        (B, 3, size, size) float32.

    Raises:
        ResourceError: One is so narrow that it would be larger than `LARGEST_PICTURE` on its way.
    """
    return np.stack([_prepare(each, size) for each in pictures])


def _prepare(picture: Image.Image, size: int) -> npt.NDArray[np.float32]:
    shorter = min(picture.size)
    width, height = (int(size * side / shorter) for side in picture.size)
    if width * height > LARGEST_PICTURE:
        raise ResourceError(
            f"a picture of {Size(*picture.size)} is {Size(width, height)} when its shorter side is "
            f"{size}",
            allowed=f"up to {LARGEST_PICTURE:,} pixels",
            fix="cut it to a form that is nearer to a square",
        )
    scaled = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(scaled.crop((left, top, left + size, top + size)))
    shares = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    normal: npt.NDArray[np.float32] = (shares - _MEAN) / _DEVIATION
    return np.ascontiguousarray(normal.transpose(2, 0, 1))
