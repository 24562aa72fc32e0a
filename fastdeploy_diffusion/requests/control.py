"""The control of a request: a picture for each ControlNet, and when and how much it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdeploy_diffusion.control_pictures import detect_edges
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import Size, digest_picture, read_pictures, resize
from fastdeploy_diffusion.request_fields import CONTROL_PREPROCESSORS
from fastdeploy_diffusion.requests.given_pictures import Crop
from fastdeploy_diffusion.requests.spread_numbers import spread_numbers
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean

if TYPE_CHECKING:
    from fastdeploy_diffusion.requests.request import GenerationRequest

CONTROL_FIELDS = (
    "control_image",
    "control_preprocess",
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
    "guess_mode",
)
"""Fields of requests with control; only the first may stand alone."""
_KIND = "ControlNets"
_NEEDS = "a configuration with controlnets, and SDPipeline or SDXLPipeline"


@dataclass(frozen=True, eq=False)
class Control:
    """What ControlNets are given; each tuple has one entry a ControlNet.

    Args:
        images: Of mode "RGB".
        digests: Of the images as they were given: mode, size and pixels; sha256.
        preprocessors: Names of those that were applied to the images; ``None`` where none was.
        scales: Factors of what each adds.
        starts: Shares of the steps after which each begins.
        ends: Shares of the steps after which each ends.
        guess_mode: Whether the negative prompts' rows go without, and what is added grows from a
            tenth at the finest resolution to the whole in the middle.
    """

    images: tuple[Image.Image, ...]
    digests: tuple[str, ...]
    preprocessors: tuple[str | None, ...]
    scales: tuple[float, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    guess_mode: bool

    def fit(self, size: Size, crop: Crop | None = None) -> Control:
        """Bring the images to the size of the pictures that are drawn, as diffusers does.

        Args:
            crop: Where a part of a picture is drawn alone.
        """
        if crop is None:
            fitted = tuple(resize(each, size, "stretch") for each in self.images)
        else:
            whole = (resize(each, crop.whole, "stretch") for each in self.images)
            fitted = tuple(resize(each.crop(crop.region), size, "pad") for each in whole)
        return replace(self, images=fitted)

    def find_size(self, width: Any, height: Any, multiple: int) -> tuple[Any, Any]:
        """Fill in (width, height) where the request leaves it out, with the first image's own.

        It is cut to a multiple, as in diffusers.
        """
        own = Size(*(max(side - side % multiple, multiple) for side in self.images[0].size))
        return width or own.width, height or own.height

    def normalize(self) -> list[npt.NDArray[np.float32]]:
        """Turn the images into (1, 3, H, W) float32 in [0, 1]."""
        return [
            np.ascontiguousarray(np.asarray(each)[None].transpose(0, 3, 1, 2)).astype(np.float32)
            / np.float32(255)
            for each in self.images
        ]

    def scale_residuals(
        self, step: int, steps: int, residuals: int, pooled: Sequence[bool], *, negative: bool
    ) -> npt.NDArray[np.float32]:
        """Compute the factor of each ControlNet in each place, for one step.

        Args:
            step: Counted from 0.
            residuals: Number of places.
            pooled: Of each ControlNet, whether it adds means over all pixels.
            negative: Whether it is for the rows of the negative prompts.

        Returns:
            (ControlNets, residuals) float32.
        """
        guesses = self.guess_mode or pooled[0]
        grown = np.logspace(-1, 0, residuals, dtype=np.float32)
        factors = np.zeros((len(self.scales), residuals), np.float32)
        if negative and guesses:
            return factors
        bounds = zip(self.starts, self.ends, strict=True)
        for index, (start, end) in enumerate(bounds):
            if step / steps >= start and (step + 1) / steps <= end:
                shape = grown if guesses and not pooled[index] else np.ones_like(grown)
                factors[index] = np.float32(self.scales[index]) * shape
        return factors

    def describe(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Describe what each ControlNet was given, for the metadata of a picture."""
        keys = ("model", "image_sha256", "preprocess", "scale", "start", "end")
        given = (self.digests, self.preprocessors, self.scales, self.starts, self.ends)
        values = zip(names, *given, strict=True)
        return [
            {**dict(zip(keys, each, strict=True)), "guess_mode": self.guess_mode} for each in values
        ]


def read_control(request: GenerationRequest, scales: Sequence[float] | None) -> Control | None:
    """Read the control of a request; ``None`` where it asks for none.

    Args:
        scales: Of each ControlNet that is configured, by default; ``None`` where it is not known
            which there are.

    Raises:
        RequestError: A value is not allowed, an image cannot be read, or there are not as many as
            ControlNets.
        ResourceError: An image is too large.
    """
    if request.control_image is None:
        for name in CONTROL_FIELDS[1:]:
            value = getattr(request, name)
            is_off = name == "guess_mode" and value is False
            if value is not None and not is_off:
                raise RequestError(
                    f"{name} is {show(value)}, and there is no control_image",
                    allowed=f"{name} with a control_image",
                    fix=f"give a control_image, or leave {name} out",
                )
        return None
    if scales is not None and not scales:
        raise RequestError(
            "control_image is given, and there is no ControlNet that takes it",
            allowed=_NEEDS,
            fix='controlnets=["/models/controlnet"] in the configuration, or --controlnet',
        )
    if not isinstance(request.guess_mode, bool):
        raise RequestError(f"guess_mode is {show(request.guess_mode)}", allowed="true or false")
    images = read_pictures("control_image", request.control_image)
    count = len(images) if scales is None else len(scales)
    if len(images) != count:
        raise RequestError(
            f"{len(images)} control images for {count} ControlNets",
            allowed="one for each ControlNet, in the order of the configuration",
            fix="control_image=[…] with one for each",
        )
    starts = spread_numbers(request, "control_guidance_start", [0.0] * count, _KIND)
    ends = spread_numbers(request, "control_guidance_end", [1.0] * count, _KIND)
    for start, end in zip(starts, ends, strict=True):
        if start >= end:
            raise RequestError(
                f"control_guidance_start is {start:g}, and control_guidance_end {end:g}",
                allowed="a start below the end",
            )
    preprocessors = _read_preprocessors(request.control_preprocess, count)
    return Control(
        tuple(
            detect_edges(each) if name else each.convert("RGB")
            for name, each in zip(preprocessors, images, strict=True)
        ),
        tuple(digest_picture(each) for each in images),
        preprocessors,
        spread_numbers(request, "controlnet_conditioning_scale", scales or [1.0] * count, _KIND),
        starts,
        ends,
        request.guess_mode,
    )


def _read_preprocessors(given: Any, count: int) -> tuple[str | None, ...]:
    """List the name of each ControlNet's preprocessor, or ``None`` where it has none."""
    names = list(given) if isinstance(given, list | tuple) else [given] * count
    if len(names) != count:
        raise RequestError(
            f"control_preprocess has {len(names)} names for {count} ControlNets",
            allowed=f"one name, or {count}",
        )
    for name in names:
        if name is not None and (not isinstance(name, str) or name not in CONTROL_PREPROCESSORS):
            raise RequestError(
                f"control_preprocess is {show(given)}",
                allowed=", ".join(CONTROL_PREPROCESSORS),
                fix=did_you_mean(name, CONTROL_PREPROCESSORS)
                or "give control pictures of other kinds, as depth and poses, as they are to be",
            )
    return tuple(names)
