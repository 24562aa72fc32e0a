"""The limits of requests that follow from a model."""

from dataclasses import dataclass

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.families.family import Defaults
from fastdeploy_diffusion.requests.shape_ranges import ShapeRanges


@dataclass(frozen=True)
class ModelLimits:
    """The defaults and limits of requests that follow from a model's configs.

    Args:
        height: Default, in pixels: the size of training, or the one that the ranges are tuned for.
        width: Likewise.
        multiple: Both sizes must be multiples of it.
        ranges: Sizes that one build serves; ``None`` if every size has a build of its own.
        sizes: The only ones, (width, height) in pixels, that a bundle was built for; all if empty.
        chunks: The only numbers of a text's chunks that a bundle was built for; all if empty.
        model: Its path, for messages.
        is_packed: Whether a token of the denoiser stands for two by two of the latents, so that
            ``multiple`` is twice what the autoencoder shrinks by.
        needs_mask: Whether the denoiser takes a mask and a masked picture beside the latents.
        is_refiner: Whether it draws over pictures and latents alone, with an aesthetic score in
            place of the target's size.
        refined_from: Where a refiner takes over by default; ``None`` where there is none.
        edits: Whether the denoiser takes a picture beside the latents, which it edits; ``None``
            where that is not known.
        control_scales: Default scale of each ControlNet; ``None`` where it is not known which there
            are.
        ip_adapter_scales: The same of each IP-Adapter.
        shown: The only numbers of pictures for each IP-Adapter that a bundle was built for; all if
            empty.
    """

    height: int
    width: int
    multiple: int
    latent_channels: int
    defaults: Defaults
    ranges: ShapeRanges | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    model: str = ""
    is_packed: bool = False
    chunks: tuple[int, ...] = ()
    needs_mask: bool = False
    edits: bool | None = False
    is_refiner: bool = False
    refined_from: float | None = None
    control_scales: tuple[float, ...] | None = ()
    ip_adapter_scales: tuple[float, ...] | None = ()
    shown: tuple[int, ...] = ()

    @property
    def allowed_sizes(self) -> str:
        """Describe the sizes in pixels that can be drawn."""
        allowed, token = f"multiples of {self.multiple}", f"{self.multiple} x {self.multiple}"
        why = f": each token of {self.model} stands for {token} pixels"
        return allowed + why if self.is_packed else allowed

    def check_kind(self, *, has_picture: bool, has_mask: bool) -> None:
        """Refuse requests without a mask or a picture, where the denoiser takes one.

        Raises:
            RequestError: There is none, or a mask that it does not take.
        """
        if self.edits and (has_mask or not has_picture):
            raise RequestError(
                f"{self.model} edits pictures by instructions, and "
                + ("a mask is given" if has_mask else "there is no picture"),
                allowed="pipeline.image_to_image(prompt, image)",
                fix="take a text-to-image model for other requests",
            )
        if self.needs_mask and not has_mask:
            raise RequestError(
                f"{self.model} is an inpainting model, and there is no mask",
                allowed="pipeline.inpaint(prompt, image, mask)",
                fix="take a text-to-image model, which also draws over pictures",
            )

    def check_image_prompt(self, is_given: bool) -> None:
        """Refuse requests without a picture for IP-Adapters, where there are some.

        Raises:
            RequestError: There is none.
        """
        if self.ip_adapter_scales and not is_given:
            raise RequestError(
                f"the configuration has {len(self.ip_adapter_scales)} IP-Adapters, and there is no "
                "ip_adapter_image",
                allowed="a picture for each of them",
                fix="give ip_adapter_image=… (--ip-image), or leave ip_adapters out",
            )

    def shape_latents(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one picture's latents, packed as (tokens, channels); its sizes are in pixels."""
        rows, columns = height // self.multiple, width // self.multiple
        if self.is_packed:
            return rows * columns, 4 * self.latent_channels
        return self.latent_channels, rows, columns
