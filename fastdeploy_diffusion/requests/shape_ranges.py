"""The ranges of sizes that one build serves."""

from dataclasses import dataclass
from typing import Any

from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.size_range import Size, SizeRange, fits, multiply


@dataclass(frozen=True)
class ShapeRanges:
    """The ranges that one build serves.

    Args:
        batch: Rows of the denoiser; guidance counts every picture twice.
        height: Of the latents.
        width: Of the latents.
        chunks: Of each text.
        scale: Pixels of the picture per pixel of the latents.
    """

    batch: SizeRange
    height: SizeRange
    width: SizeRange
    chunks: SizeRange
    scale: int

    @property
    def texts(self) -> SizeRange:
        """Number of texts that are encoded at once."""
        return SizeRange("batch", 1, 1, self.batch.max)

    def count_tokens(self, length: int) -> Size:
        """Make the range of a text's tokens, for chunks of a length; of one number, no range."""
        smallest, usual, largest = self.chunks.min, self.chunks.opt, self.chunks.max
        if smallest == largest:
            return largest * length
        return SizeRange("tokens", smallest * length, usual * length, largest * length)

    def check_chunks(self, chunks: int) -> None:
        """Refuse a number of chunks outside the range.

        Raises:
            RequestError: Names the allowed range.
        """
        if not fits(chunks, self.chunks):
            raise RequestError(
                f"the texts of this request take {chunks} chunks of tokens",
                allowed=f"{self.chunks}, which enable_dynamic_shape builds for",
                fix="give another range as shapes.chunks; or, for fewer chunks than that, "
                "prompt_syntax='weighted' and prompt_chunks",
            )

    def check(self, *, rows: int, height: int, width: int) -> None:
        """Refuse sizes outside the ranges.

        Raises:
            RequestError: Names the allowed range.
        """
        for sizes, size in ((self.height, height), (self.width, width)):
            if not fits(size, sizes):
                raise RequestError(
                    f"{sizes.name} is {size * self.scale}",
                    allowed=f"{multiply(sizes, self.scale)}, which enable_dynamic_shape builds for",
                    fix=f"give another range as shapes.{sizes.name}",
                )
        if not fits(rows, self.batch):
            raise RequestError(
                f"the pictures of this request are {rows} rows of the denoiser",
                allowed=f"{self.batch}, which enable_dynamic_shape builds for (guidance counts "
                "every picture twice)",
                fix="ask for another number of pictures at once, or give another range as "
                "shapes.batch",
            )


def resolve_ranges(
    config: DiffusionConfig, height: int, width: int, scale: int
) -> ShapeRanges | None:
    """Fill in the ranges that a configuration leaves to the model.

    Args:
        height: The model's own, in pixels.
        width: The model's own, in pixels.
        scale: Pixels of the picture per pixel of the latents.

    Returns:
        The ranges, by default from half to one and a half times the model's own size; ``None`` if
        every size has a build of its own.

    Raises:
        ConfigError: A size is no multiple of the scale.
    """
    if not config.enable_dynamic_shape:
        return None
    shapes = config.shapes
    return ShapeRanges(
        SizeRange("batch", *_spread(shapes.batch)),
        _resolve("height", shapes.height, height, scale),
        _resolve("width", shapes.width, width, scale),
        SizeRange("chunks", *_spread(shapes.chunks)),
        scale,
    )


def _resolve(name: str, given: Any, own: int, scale: int) -> SizeRange:
    if given is None:
        latents = own // scale
        return SizeRange(name, max(latents // 2, 1), latents, latents + latents // 2)
    sizes = _spread(given)
    for size in sizes:
        if size % scale:
            raise ConfigError(
                f"shapes.{name} has {size}",
                allowed=f"multiples of {scale}",
                fix=f"{size - size % scale or scale} or {size - size % scale + scale}",
            )
    return SizeRange(name, *(size // scale for size in sizes))


def _spread(given: Any) -> tuple[int, int, int]:
    smallest, usual, largest = given if isinstance(given, tuple) else (given,) * 3
    return smallest, usual, largest
