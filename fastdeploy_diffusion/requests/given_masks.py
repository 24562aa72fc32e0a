"""The masks of a request: what is to be painted anew, and how the rest is put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import (
    Size,
    digest_picture,
    invert_alpha,
    read_mask,
    read_pictures,
    resize,
)
from fastdeploy_diffusion.requests.given_pictures import Crop, GivenPictures, Region

_HALF = 128  # of 255: from here on, a mask's pixel is painted anew


@dataclass(frozen=True, eq=False)
class GivenMasks(GivenPictures):
    """Pictures of which a part is to be painted anew: where the mask is white.

    Args:
        masks: Of mode "L", one for each image, of its size.
        mask_digests: Of the masks as they were given.
        padding: Pixels around what the mask covers, if that alone is drawn, at the full size.
        overlay: Whether what the mask leaves is put back, bit for bit.
        originals: Images and masks in their own size, once the others are brought to another.
        regions: Of each original, the part that is drawn.
    """

    masks: tuple[Image.Image, ...] = ()
    mask_digests: tuple[str, ...] = ()
    padding: int | None = None
    overlay: bool = False
    originals: tuple[tuple[Image.Image, Image.Image], ...] = ()
    regions: tuple[Region, ...] = ()

    def find_size(self, width: Any, height: Any, multiple: int) -> tuple[Any, Any]:
        """Fill in (width, height); a part of a picture is drawn in the model's own size."""
        if self.padding is None:
            return super().find_size(width, height, multiple)
        if len({each.size for each in self.images}) > 1:
            raise RequestError(
                "the images are of several sizes, and padding_mask_crop gives them back whole",
                fix="give one at a time",
            )
        return width, height

    def fit(self, size: Size) -> GivenMasks:
        """Bring images and masks to the size that is drawn; raises as for images alone."""
        if self.padding is None:
            fitted = super().fit(size)
            assert isinstance(fitted, GivenMasks)
            mode = self.resize_mode or "stretch"
            masks = tuple(resize(each, size, mode) for each in self.masks)
            pairs = tuple(zip(fitted.images, masks, strict=True))
            return replace(fitted, masks=masks, originals=pairs)
        regions = tuple(_find_region(each, size, self.padding) for each in self.masks)
        return replace(
            self,
            images=_cut(self.images, regions, size),
            masks=_cut(self.masks, regions, size),
            originals=tuple(zip(self.images, self.masks, strict=True)),
            regions=regions,
        )

    def find_crop(self) -> Crop | None:
        """Find the part that is drawn alone; raises as for pictures without masks."""
        if len(set(self.regions)) > 1:
            raise RequestError(
                "control_image is given, and padding_mask_crop draws another part of the picture "
                "for each mask",
                allowed="masks that cover one part, or one mask",
                fix="give one mask at a time, or leave padding_mask_crop out",
            )
        if not self.regions:
            return None
        image, _ = self.originals[0]
        return Crop(Size(*image.size), self.regions[0])

    def binarize(self) -> npt.NDArray[np.float32]:
        """Turn the masks into (N, 1, H, W) float32: 1 where they are white, and 0 elsewhere."""
        white: npt.NDArray[np.bool_] = np.stack([np.asarray(each) >= _HALF for each in self.masks])
        return white[:, None].astype(np.float32)

    def put_back(self, colours: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Put what the masks leave over pictures, (B, H, W, 3) float32 in [0, 1]."""
        if not self.overlay:
            return colours
        whole = []
        for picture, index in zip(colours, self.chosen, strict=True):
            drawn = Image.fromarray((picture * 255).round().astype(np.uint8))
            image, mask = self.originals[index]
            if self.regions:
                region = self.regions[index]
                part = resize(drawn, region.size, "crop")
                drawn = Image.new("RGB", image.size)
                drawn.paste(part, region[:2])
            whole.append(_overlay(drawn, image, mask))
        pixels: npt.NDArray[np.uint8] = np.stack([np.asarray(each) for each in whole])
        laid: npt.NDArray[np.float32] = pixels.astype(np.float32) / np.float32(255)
        return laid

    def describe(self, picture: int) -> dict[str, Any]:
        """Describe what a picture was made of, for its metadata."""
        digest = self.mask_digests[self.chosen[picture]]
        return {**super().describe(picture), "mask_sha256": digest}


def add_masks(
    pictures: GivenPictures, given: Any, blur: int, padding: int | None, overlay: bool
) -> GivenMasks:
    """Read the masks of given pictures: one for all of them, or one each.

    Args:
        blur: Radius in pixels by which the edges are blurred, for what is put back.

    Raises:
        RequestError: A mask cannot be read, is of another size, or leaves nothing to paint.
        ResourceError: A mask is too large.
    """
    masks = [read_mask("mask", each) for each in read_pictures("mask", given)]
    count, images = len(masks), len(pictures.images)
    if images != count and 1 not in (images, count):
        raise RequestError(f"{count} masks for {images} images", allowed=f"one, or {images}")
    pairs = max(count, images)
    chosen = pictures.chosen
    if images < pairs:  # one image with several masks
        drawn = len(chosen)
        if drawn % pairs:
            raise RequestError(
                f"{count} masks for one image, and {drawn} pictures to draw",
                allowed=f"one mask, or a prompt for each of {count}",
            )
        chosen = tuple(index // (drawn // pairs) for index in range(drawn))
    own, whole = _repeat(pictures.images, pairs), _repeat(masks, pairs)
    for image, mask in zip(own, whole, strict=True):
        if image.size != mask.size:
            raise RequestError(
                f"the mask is {Size(*mask.size)}, and the image {Size(*image.size)}",
                allowed="a mask of the image's size",
            )
        if np.asarray(mask).max() < _HALF:
            raise RequestError(
                "the mask is black: nothing would be painted anew",
                allowed="white where something is to be painted",
                fix="give the mask inverted, if its black is what you mean",
            )
    blurred = [each.filter(ImageFilter.GaussianBlur(blur)) if blur else each for each in whole]
    return GivenMasks(
        images=own,
        chosen=chosen,
        digests=_repeat(pictures.digests, pairs),
        strength=pictures.strength,
        steps=pictures.steps,
        resize_mode=pictures.resize_mode,
        masks=tuple(blurred),
        mask_digests=_repeat([digest_picture(each) for each in masks], pairs),
        padding=padding,
        overlay=overlay or padding is not None,
    )


def find_alpha(given: Any) -> list[Image.Image]:
    """Make a mask of each picture's alpha channel: transparent pixels are painted anew.

    Raises:
        RequestError: A picture is opaque; or as `read_pictures`.
    """
    masks = [invert_alpha(each) for each in read_pictures("image", given)]
    if any(each is None for each in masks):
        raise RequestError(
            "there is no mask, and the image has no transparency that would be one",
            allowed="a mask that is white where something is to be painted, or an image that is "
            "transparent there",
            fix="give mask=…",
        )
    return [each for each in masks if each is not None]


def _repeat(values: Sequence[Any], count: int) -> tuple[Any, ...]:
    return tuple(values) if len(values) == count else tuple(values) * count


def _cut(
    pictures: Sequence[Image.Image], regions: Sequence[Region], size: Size
) -> tuple[Image.Image, ...]:
    pairs = zip(pictures, regions, strict=True)
    return tuple(resize(each.crop(region), size, "pad") for each, region in pairs)


def _find_region(mask: Image.Image, size: Size, padding: int) -> Region:
    """Find a mask's bounding box with padding, widened to the aspect ratio of the drawn size.

    As ``VaeImageProcessor.get_crop_region`` of diffusers.
    """
    box = mask.getbbox()
    assert box is not None  # it is not black
    left, right = max(box[0] - padding, 0), min(box[2] + padding, mask.width)
    top, bottom = max(box[1] - padding, 0), min(box[3] + padding, mask.height)
    width, height = right - left, bottom - top
    if width * size.height > height * size.width:
        more = int(width / (size.width / size.height) - height)
        top, bottom = _widen(top, bottom, more, mask.height)
    else:
        more = int(height * (size.width / size.height) - width)
        left, right = _widen(left, right, more, mask.width)
    return Region(left, top, right, bottom)


def _widen(first: int, last: int, more: int, most: int) -> tuple[int, int]:
    """Widen an interval alike at both ends, and shift it into 0 to ``most``."""
    first, last = first - more // 2, last + more - more // 2
    first, last = first - max(last - most, 0), last - max(last - most, 0)
    return max(first, 0), min(last - min(first, 0), most)


def _overlay(drawn: Image.Image, image: Image.Image, mask: Image.Image) -> Image.Image:
    """Lay what a mask leaves of an image over a drawn picture."""
    kept = Image.new("RGBa", image.size)
    kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    laid = Image.alpha_composite(drawn.convert("RGBA"), kept.convert("RGBA"))
    return laid.convert("RGB")
