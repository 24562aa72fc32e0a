"""The pictures that a request gives: one for each picture to draw, in its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import (
    RESIZE_MODES,
    ResizeMode,
    Size,
    digest_picture,
    flatten,
    normalize,
    read_pictures,
    resize,
)

_MODES = " or ".join(f"resize_mode={each!r}" for each in RESIZE_MODES)


class Region(NamedTuple):
    """A part of a picture, in pixels; without the last column and row."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> Size:
        """Its width and height."""
        return Size(self.right - self.left, self.bottom - self.top)


class Crop(NamedTuple):
    """The size of a picture, and the part of it that is drawn alone."""

    whole: Size
    region: Region


@dataclass(frozen=True, eq=False)
class GivenPictures:
    """The pictures to start from, and how much of them is to change.

    Args:
        images: Each once, of mode "RGB".
        chosen: For each picture to draw, the index of its own.
        digests: Of the images as they were given: mode, size and pixels; sha256.
        strength: Share of the steps that change them, above 0 to 1.
        steps: Number of those steps.
        resize_mode: ``None`` to refuse images of another size.
        is_encoded: Whether the VAE's encoder makes latents of them; latents are enlarged without.
    """

    images: tuple[Image.Image, ...]
    chosen: tuple[int, ...]
    digests: tuple[str, ...]
    strength: float
    steps: int
    resize_mode: ResizeMode | None
    is_encoded: bool = True

    def fit(self, size: Size) -> GivenPictures:
        """Bring the images to the size of the pictures that are drawn.

        Raises:
            RequestError: One has another size, and there is no ``resize_mode``.
        """
        for each in self.images:
            if each.size != size and self.resize_mode is None:
                raise RequestError(
                    f"image is {Size(*each.size)}, and the picture is to be {size}",
                    allowed="an image of the size that is drawn",
                    fix=f"leave height and width out, or say how to resize it: {_MODES}",
                )
        mode = self.resize_mode or "stretch"
        return replace(self, images=tuple(resize(each, size, mode) for each in self.images))

    def find_size(self, width: Any, height: Any, multiple: int) -> tuple[Any, Any]:
        """Fill in (width, height) where the request leaves it out.

        It is the images' own; with a ``resize_mode``, cut to a multiple.

        Raises:
            RequestError: The images are of several sizes, or not of a multiple.
        """
        if width is not None and height is not None:
            return width, height
        sizes = dict.fromkeys(Size(*each.size) for each in self.images)
        if len(sizes) > 1:
            raise RequestError(
                f"the images are of {len(sizes)} sizes: {', '.join(map(str, sizes))}",
                fix=f"give height and width, and {_MODES}",
            )
        (own,) = sizes
        below = Size(*(max(side - side % multiple, multiple) for side in own))
        if width is None and height is None and below != own and self.resize_mode is None:
            above = Size(*(-(-side // multiple) * multiple for side in own))
            raise RequestError(
                f"image is {own}",
                allowed=f"multiples of {multiple}: {below} and {above} are nearest",
                fix=f"say how to resize it: {_MODES}, for the smaller one of these; for another, "
                "give height and width, too",
            )
        return width or below.width, height or below.height

    def find_crop(self) -> Crop | None:
        """Find the part that is drawn alone, where it is the same of all; ``None`` for the whole.

        Raises:
            RequestError: It is another of each picture.
        """
        return None

    def normalize(self) -> npt.NDArray[np.float32]:
        """Turn the images into (N, 3, H, W) float32 in [-1, 1]; each once."""
        return normalize(self.images)

    def describe(self, picture: int) -> dict[str, Any]:
        """Describe what a picture was made of, for its metadata."""
        return {"image_sha256": self.digests[self.chosen[picture]]}


def read_given(
    given: Any, prompts: int, per_prompt: int, strength: float, steps: int, mode: ResizeMode | None
) -> GivenPictures:
    """Read the pictures of a request.

    Args:
        given: One for all prompts, or one each.
        per_prompt: Pictures to draw of each prompt.
        steps: Number of those that change it.

    Raises:
        RequestError: One cannot be read, or there are too few or too many.
        ResourceError: One is too large.
    """
    pictures = read_pictures("image", given)
    chosen = spread(len(pictures), prompts, per_prompt)
    return GivenPictures(
        tuple(flatten(each) for each in pictures),
        chosen,
        tuple(digest_picture(each) for each in pictures),
        strength,
        steps,
        mode,
    )


def spread(count: int, prompts: int, per_prompt: int) -> tuple[int, ...]:
    """Choose one of some pictures for each picture to draw, by its index.

    Raises:
        RequestError: There is neither one nor as many as prompts.
    """
    if count not in (1, prompts):
        raise RequestError(
            f"{count} images for {prompts} prompts",
            allowed="one" if prompts == 1 else f"one, or {prompts}",
            fix="give a list of prompts, one for each image",
        )
    indexes: Sequence[int] = range(prompts) if count > 1 else [0] * prompts
    return tuple(index for index in indexes for _ in range(per_prompt))
