"""The methods of a pipeline that draw, one for each kind of request."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from PIL import Image
from typing_extensions import Unpack, overload

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import GivenPicture, extend_picture, is_latents
from fastdeploy_diffusion.predictors.drivers import Generation
from fastdeploy_diffusion.predictors.result import GenerationResult, Pictures
from fastdeploy_diffusion.requests.given_masks import find_alpha
from fastdeploy_diffusion.requests.request import (
    MASK_FIELDS,
    PICTURE_FIELDS,
    GenerationRequest,
    OutputType,
)
from fastdeploy_diffusion.requests.settings import MaskSettings, PictureSettings, show_fields


class DrawingMethods:
    """Methods that serve a request to its end."""

    request_class: ClassVar[type[GenerationRequest]] = GenerationRequest

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own, base = cls.request_class, DrawingMethods
        pictures = show_fields(base.image_to_image, own, ("prompt", "image"), without=MASK_FIELDS)
        cls.image_to_image = pictures  # type: ignore[method-assign]
        masks = show_fields(base.inpaint, own, ("prompt", "image", "mask"))
        cls.inpaint = masks  # type: ignore[method-assign]

    @abstractmethod
    def stream(
        self, request: GenerationRequest | str | Sequence[str], **settings: Any
    ) -> Generation:
        """Serve a request step by step."""

    def __call__(self, prompt: str | Sequence[str], **settings: Any) -> GenerationResult:
        """Serve a request as ``generate``; the result has ``images``, as in diffusers."""
        return self.generate(prompt, **settings)

    def generate(
        self, request: GenerationRequest | str | Sequence[str], **settings: Any
    ) -> GenerationResult:
        """Serve a request; returns its pictures with timings and report.

        Args:
            request: A request, or the prompt of one.
            **settings: With a prompt, as for ``text_to_image``.

        Raises:
            RequestError: A setting is unknown or not allowed.
            EngineError: A network failed.
            CancelledError: ``cancel`` was called.
        """
        return self.stream(request, **settings).result()

    def text_to_image(self, prompt: Any, *unnamed: Any, **settings: Any) -> Pictures:
        """Draw a prompt; settings and result are documented by each family's pipeline."""
        _refuse_unnamed(unnamed, "the prompt", "text_to_image(prompt, height=…, width=…)")
        fix = "pipeline.image_to_image(prompt, image, …) starts from a picture"
        _refuse_fields("text_to_image", PICTURE_FIELDS, settings, fix)
        return self._serve(prompt, settings)

    @overload
    def image_to_image(
        self,
        prompt: str,
        image: GivenPicture,
        *,
        num_images_per_prompt: Literal[1] = 1,
        output_type: Literal["pil"] = "pil",
        **settings: Unpack[PictureSettings],
    ) -> Image.Image: ...
    @overload
    def image_to_image(
        self,
        prompt: str | Sequence[str],
        image: GivenPicture | Sequence[GivenPicture],
        *,
        num_images_per_prompt: int = 1,
        output_type: OutputType = "pil",
        **settings: Unpack[PictureSettings],
    ) -> Pictures: ...
    def image_to_image(self, prompt: Any, image: Any, *unnamed: Any, **settings: Any) -> Pictures:
        """Draw a prompt over a picture, of which ``strength`` says how much changes.

        With ``denoising_start``, SDXL and its refiner take latents, too: (B, 4, H/8, W/8) float32,
        as ``output_type="latent"`` with ``denoising_end`` gives them.

        Returns:
            One Pillow image for one picture, a list for several; an array for another
            ``output_type``.

        Raises:
            RequestError: A setting is unknown or not allowed, or the picture cannot be read.
            ResourceError: The picture is too large.
            CheckpointError: The checkpoint has no encoder.
            EngineError: A network failed.
            CancelledError: ``cancel`` was called.
        """
        example = "image_to_image(prompt, image, strength=…)"
        _refuse_unnamed(unnamed, "the prompt and the picture", example)
        fix = "pipeline.inpaint(prompt, image, mask, …) paints a part anew"
        _refuse_fields("image_to_image", MASK_FIELDS, settings, fix)
        if is_latents(image):
            if settings.get("denoising_start") is None:
                raise RequestError(
                    f"image is an array of latents, {image.shape}, without denoising_start",
                    allowed="a picture; on SDXL, latents with denoising_start",
                    fix="pipeline.text_to_image(prompt, latents=…) starts from noise of your own",
                )
            return self._serve(prompt, {**settings, "latents": image})
        return self._serve(prompt, {**settings, "image": _require_image(image)})

    @overload
    def inpaint(
        self,
        prompt: str,
        image: GivenPicture,
        mask: GivenPicture | None = None,
        *,
        num_images_per_prompt: Literal[1] = 1,
        output_type: Literal["pil"] = "pil",
        **settings: Unpack[MaskSettings],
    ) -> Image.Image: ...
    @overload
    def inpaint(
        self,
        prompt: str | Sequence[str],
        image: GivenPicture | Sequence[GivenPicture],
        mask: GivenPicture | Sequence[GivenPicture] | None = None,
        *,
        num_images_per_prompt: int = 1,
        output_type: OutputType = "pil",
        **settings: Unpack[MaskSettings],
    ) -> Pictures: ...
    def inpaint(
        self, prompt: Any, image: Any, mask: Any = None, *unnamed: Any, **settings: Any
    ) -> Pictures:
        """Paint a part of a picture anew: where the mask is white.

        Without a mask, it is what is transparent in the picture.

        Returns:
            One Pillow image for one picture, a list for several; an array for another
            ``output_type``.

        Raises:
            RequestError: A setting is unknown or not allowed, a picture or mask cannot be read, or
                they do not fit together.
            ResourceError: A picture is too large.
            CheckpointError: The checkpoint has no encoder.
            EngineError: A network failed.
            CancelledError: ``cancel`` was called.
        """
        example = "inpaint(prompt, image, mask, strength=…)"
        _refuse_unnamed(unnamed, "the prompt, the picture and the mask", example)
        given = _require_image(image)
        mask = find_alpha(given) if mask is None else mask
        return self._serve(prompt, {**settings, "image": given, "mask": mask})

    def outpaint(
        self,
        prompt: str,
        image: GivenPicture,
        *,
        left: int = 0,
        top: int = 0,
        right: int = 0,
        bottom: int = 0,
        **settings: Unpack[MaskSettings],
    ) -> Pictures:
        """Paint beyond the border of a picture, which itself stays as it is, bit for bit.

        Args:
            prompt: What to draw.
            image: The picture.
            left: Pixels to add on this side.
            top: Likewise.
            right: Likewise.
            bottom: Likewise.
            **settings: As for ``inpaint``.

        Returns:
            As ``inpaint``, whose errors these are, too.
        """
        whole, mask = extend_picture(_require_image(image), left, top, right, bottom)
        return self._serve(prompt, {"overlay": True, **settings, "image": whole, "mask": mask})

    def _serve(self, prompt: Any, settings: dict[str, Any]) -> Pictures:
        result = self.generate(prompt, **settings)
        is_one = isinstance(prompt, str) and settings.get("num_images_per_prompt", 1) == 1
        return result.images[0] if is_one and isinstance(result.images, list) else result.images


def _refuse_unnamed(unnamed: Sequence[Any], by_place: str, example: str) -> None:
    if unnamed:
        raise RequestError(
            f"{len(unnamed)} settings are given without their names",
            allowed=f"{by_place} by place, and each setting by name",
            fix=example,
        )


def _refuse_fields(
    method: str, fields: Sequence[str], settings: Mapping[str, Any], fix: str
) -> None:
    for name in fields:
        if settings.get(name) is not None:
            raise RequestError(f"{method} takes no {name}", fix=fix)


def _require_image(image: Any) -> Any:
    if image is None:
        raise RequestError("image is None", fix="pipeline.text_to_image(prompt) needs none")
    return image
