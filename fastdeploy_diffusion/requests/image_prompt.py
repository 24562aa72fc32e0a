"""The image prompt of a request: pictures for each IP-Adapter, and how much they count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import digest_picture, read_pictures
from fastdeploy_diffusion.requests.spread_numbers import spread_numbers
from fastdeploy_diffusion.shown import show

if TYPE_CHECKING:
    from fastdeploy_diffusion.requests.request import GenerationRequest

IMAGE_PROMPT_FIELDS = ("ip_adapter_image", "ip_adapter_scale")
"""Fields of requests with an image prompt; only the first may stand alone."""
_NEEDS = "a configuration with ip_adapters, and SDPipeline or SDXLPipeline"


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """What IP-Adapters are given; each tuple has one entry an adapter.

    Args:
        images: One or more for each; of mode "RGB".
        digests: Of the images as they were given: mode, size and pixels; sha256.
        scales: Factors of what each adds.
    """

    images: tuple[tuple[Image.Image, ...], ...]
    digests: tuple[tuple[str, ...], ...]
    scales: tuple[float, ...]

    def describe(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Describe what each adapter was given, for the metadata of a picture."""
        values = zip(names, self.digests, self.scales, strict=True)
        return [
            {"model": name, "image_sha256": list(digests), "scale": scale}
            for name, digests, scale in values
        ]


def read_image_prompt(
    request: GenerationRequest, scales: Sequence[float] | None, counts: Sequence[int] = ()
) -> ImagePrompt | None:
    """Read the image prompt of a request; ``None`` where it has none.

    Args:
        scales: Of each IP-Adapter that is configured, by default; ``None`` where it is not known
            which there are.
        counts: The only numbers of pictures that all of them can be given; any, if empty.

    Raises:
        RequestError: A value is not allowed, an image cannot be read, or there are not as many as
            IP-Adapters.
        ResourceError: An image is too large.
    """
    given = request.ip_adapter_image
    if given is None:
        if request.ip_adapter_scale is not None:
            raise RequestError(
                f"ip_adapter_scale is {show(request.ip_adapter_scale)}, and there is no "
                "ip_adapter_image",
                allowed="ip_adapter_scale with an ip_adapter_image",
                fix="give an ip_adapter_image, or leave ip_adapter_scale out",
            )
        return None
    if scales is not None and not scales:
        raise RequestError(
            "ip_adapter_image is given, and there is no IP-Adapter that takes it",
            allowed=_NEEDS,
            fix='ip_adapters=["/models/ip-adapter.safetensors"] in the configuration, or '
            "--ip-adapter",
        )
    entries = list(given) if isinstance(given, list | tuple) else [given]
    count = len(entries) if scales is None else len(scales)
    if len(entries) != count:
        several = "ip_adapter_image=[[…, …]]: a list of pictures for the one adapter"
        raise RequestError(
            f"ip_adapter_image has {len(entries)} entries for {count} IP-Adapters",
            allowed="one for each IP-Adapter, in the order of the configuration: a picture, or a "
            "list of pictures",
            fix=several if count == 1 and entries else "ip_adapter_image=[…] with one for each",
        )
    images = [
        read_pictures("ip_adapter_image" if count == 1 else f"ip_adapter_image[{index}]", each)
        for index, each in enumerate(entries)
    ]
    shown = [len(own) for own in images]
    if counts and not any(shown == [each] * len(shown) for each in counts):
        built, most = " or ".join(map(str, counts)), max(shown)
        raise RequestError(
            f"the IP-Adapters are given {', '.join(map(str, shown))} pictures, and the bundle was "
            f"built for {built}",
            allowed=f"{built} for each IP-Adapter",
            fix="give as many, or make a bundle with it: fastdeploy-diffusion bundle "
            f"--ip-images {most},…",
        )
    return ImagePrompt(
        tuple(tuple(each.convert("RGB") for each in own) for own in images),
        tuple(tuple(map(digest_picture, own)) for own in images),
        spread_numbers(request, "ip_adapter_scale", scales or [1.0] * count, "IP-Adapters"),
    )
