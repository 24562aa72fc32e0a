"""The methods of a pipeline that draw, one for each kind of request."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from PIL import Image
from typing_extensions import Unpack, overload

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import GivenPicture
from fastdeploy_diffusion.predictors.drivers import Generation
from fastdeploy_diffusion.predictors.result import GenerationResult, Pictures
from fastdeploy_diffusion.requests.request import PICTURE_FIELDS, GenerationRequest, OutputType
from fastdeploy_diffusion.requests.settings import PictureSettings, show_fields


class DrawingMethods:
    """Methods that serve a request to its end."""

    request_class: ClassVar[type[GenerationRequest]] = GenerationRequest

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        shown = show_fields(DrawingMethods.image_to_image, cls.request_class, ("prompt", "image"))
        cls.image_to_image = shown  # type: ignore[method-assign]

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
        if unnamed:
            raise RequestError(
                f"{len(unnamed)} settings are given without their names",
                allowed="the prompt by place, and each setting by name",
                fix="text_to_image(prompt, height=…, width=…)",
            )
        for name in PICTURE_FIELDS:
            if settings.get(name) is not None:
                raise RequestError(
                    f"text_to_image takes no {name}",
                    fix="pipeline.image_to_image(prompt, image, …) starts from a picture",
                )
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
        if unnamed:
            raise RequestError(
                f"{len(unnamed)} settings are given without their names",
                allowed="the prompt and the picture by place, and each setting by name",
                fix="image_to_image(prompt, image, strength=…)",
            )
        if image is None:
            raise RequestError("image is None", fix="pipeline.text_to_image(prompt) needs none")
        return self._serve(prompt, {**settings, "image": image})

    def _serve(self, prompt: Any, settings: dict[str, Any]) -> Pictures:
        result = self.generate(prompt, **settings)
        is_one = isinstance(prompt, str) and settings.get("num_images_per_prompt", 1) == 1
        return result.images[0] if is_one and isinstance(result.images, list) else result.images
