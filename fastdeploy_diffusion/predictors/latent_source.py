"""Where the latents of a request come from, and what holds them while they are denoised."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.noise import TorchGenerator
from fastdeploy_diffusion.predictors.component import Part
from fastdeploy_diffusion.predictors.residency import Residency
from fastdeploy_diffusion.predictors.vae_encoder import VAEEncoder
from fastdeploy_diffusion.requests.given_masks import GivenMasks
from fastdeploy_diffusion.requests.given_pictures import GivenPictures
from fastdeploy_diffusion.requests.plan import GenerationPlan
from fastdeploy_diffusion.schedulers.base import Scheduler

FloatArray = npt.NDArray[np.float32]
DrawNoise: TypeAlias = Callable[[Sequence[TorchGenerator]], FloatArray]
UNCONDITIONAL = "unconditional"
"""The rows without prompt and picture, of models that edit pictures."""
Pack: TypeAlias = Callable[[FloatArray], FloatArray]


class LatentSource:
    """Text to image: the first latents are noise, and nothing else changes them.

    The loop calls these methods in the order in which they stand here. A kind of request that
    starts from pictures, or holds a part of them, overrides some; one object serves one request.

    Args:
        draw: Draws noise of the latents' shape, each picture's from its own stream.
        latents: Standard normal ones in place of noise, (B, …) float32.
    """

    def __init__(self, draw: DrawNoise, latents: FloatArray | None = None) -> None:
        self._draw, self._latents = draw, latents

    def prepare(self, residency: Residency) -> None:
        """Run the networks that latents are made with, before the denoiser is lent."""

    def begin(self, scheduler: Scheduler[Any], generators: Sequence[TorchGenerator]) -> FloatArray:
        """Make the first latents, (B, …) float32, at the noise of the scheduler's first step."""
        latents = self._draw(generators) if self._latents is None else self._latents
        first: FloatArray = latents * np.float32(scheduler.init_noise_sigma)
        return first

    def extend(self, side: str, scaled: FloatArray) -> FloatArray:
        """Extend the denoiser's input by further channels.

        Args:
            side: Whose rows they are: ``"prompt_embeds"``, ``"negative_prompt_embeds"`` or
                `UNCONDITIONAL`.
            scaled: The latents as the scheduler scales them, (B, …) float32.
        """
        return scaled

    def hold(self, scheduler: Scheduler[Any], step: int, latents: FloatArray) -> FloatArray:
        """Replace what must not change after a step, counted from 0; before the callback."""
        return latents

    def finish(self, colours: FloatArray) -> FloatArray:
        """Complete the pictures, (B, H, W, 3) float32 in [0, 1]."""
        return colours


class HandedSource(LatentSource):
    """Latents that another denoising has left, with the noise that they have.

    Args:
        latents: (B, …) float32.
    """

    def __init__(self, latents: FloatArray) -> None:
        super().__init__(lambda generators: latents)

    def begin(self, scheduler: Scheduler[Any], generators: Sequence[TorchGenerator]) -> FloatArray:
        """Take the latents as they are."""
        return self._draw(generators)


class NoisedSource(LatentSource):
    """Noise on latents that are given.

    Args:
        latents: Without noise, (B, …) float32.
    """

    def __init__(self, draw: DrawNoise, latents: FloatArray) -> None:
        super().__init__(draw)
        self._clean = latents

    def begin(self, scheduler: Scheduler[Any], generators: Sequence[TorchGenerator]) -> FloatArray:
        """Add noise to the latents."""
        noise = self._draw(generators)
        return scheduler.add_noise(self._clean, noise, float(scheduler.timesteps[0]))


class PictureSource(LatentSource):
    """Image to image: noise on the latents of a picture (Meng et al., 2021: SDEdit).

    Args:
        pack: Brings (B, C, H, W) latents into the denoiser's layout.
        part: The encoder's, for the size of the pictures.
        is_noisy: Whether the pictures have the noise of the first step already.
    """

    def __init__(
        self,
        draw: DrawNoise,
        pack: Pack,
        given: GivenPictures,
        encoder: VAEEncoder,
        part: Part,
        *,
        is_noisy: bool = False,
    ) -> None:
        super().__init__(draw)
        self._is_noisy = is_noisy
        self._pack, self._given = pack, given
        self._encoder, self._part = encoder, part
        self._moments: FloatArray | None = None

    def prepare(self, residency: Residency) -> None:
        """Encode each picture once."""
        with residency.lend(self._part) as session:
            self._moments = self._encoder.encode(session, self._given.normalize())

    def begin(self, scheduler: Scheduler[Any], generators: Sequence[TorchGenerator]) -> FloatArray:
        """Add noise to latents that are drawn from the pictures' distributions."""
        assert self._moments is not None  # it was prepared
        moments = self._moments[list(self._given.chosen)]
        # In the order of diffusers: the encoder's noise comes first.
        latents = self._pack(self._encoder.sample(moments, generators))
        if self._is_noisy:
            return latents
        noise = self._draw(generators)
        return scheduler.add_noise(latents, noise, float(scheduler.timesteps[0]))


class RepaintSource(PictureSource):
    """Inpainting: only what a mask covers changes.

    A denoiser that was trained for it takes mask and masked picture as further channels. For any
    other, the latents of the rest are replaced after each step by those of the picture, at the
    noise of the next step (Lugmayr et al., 2022, without resampling).

    Args:
        extends: Whether the denoiser takes the further channels.
    """

    def __init__(
        self,
        draw: DrawNoise,
        pack: Pack,
        given: GivenMasks,
        encoder: VAEEncoder,
        part: Part,
        *,
        extends: bool,
    ) -> None:
        super().__init__(draw, pack, given, encoder, part)
        self._masks, self._extends = given, extends
        self._masked_moments: FloatArray | None = None
        self._more = self._clean = self._noise = self._mask = np.empty(0, np.float32)

    def prepare(self, residency: Residency) -> None:
        """Encode each picture once, and where the denoiser takes it, each masked one.

        Raises:
            RequestError: A mask is smaller than a latent, and covers none.
        """
        images, binary = self._masks.normalize(), self._masks.binarize()
        scale = self._encoder.config.downscale
        small = binary[:, :, ::scale, ::scale]  # the nearest pixels, as diffusers takes them
        if not small.any(axis=(1, 2, 3)).all():
            raise RequestError(
                f"the mask is too small: a latent stands for {scale} x {scale} pixels, and the "
                "mask covers none",
                allowed=f"masks of at least {scale} x {scale} white pixels",
                fix="widen the mask, or give padding_mask_crop, which draws it larger",
            )
        self._mask = small[list(self._masks.chosen)]
        with residency.lend(self._part) as session:
            if not (self._extends and self._is_noise):
                self._moments = self._encoder.encode(session, images)
            if self._extends:
                masked = images * (binary < 1)
                self._masked_moments = self._encoder.encode(session, masked)

    @property
    def _is_noise(self) -> bool:
        return self._masks.strength == 1

    def begin(self, scheduler: Scheduler[Any], generators: Sequence[TorchGenerator]) -> FloatArray:
        """Begin with noise alone, at full strength, or with noise on the pictures' latents."""
        chosen = list(self._masks.chosen)
        if self._moments is not None:
            sampled = self._encoder.sample(self._moments[chosen], generators)
            self._clean = self._pack(sampled)
        self._noise = self._draw(generators)
        # In the order of diffusers, which encodes the masked picture also where it is not used.
        channels = self._encoder.config.latent_channels
        if self._masked_moments is not None:
            masked = self._encoder.sample(self._masked_moments[chosen], generators)
            self._more = np.concatenate([self._mask, masked], axis=1)
        else:
            for each in generators:
                each.randn((channels, *self._mask.shape[2:]))
            self._mask = self._pack(np.repeat(self._mask, channels, axis=1))
        if self._is_noise:
            noise: FloatArray = self._noise * np.float32(scheduler.init_noise_sigma)
            return noise
        return scheduler.add_noise(self._clean, self._noise, float(scheduler.timesteps[0]))

    def extend(self, side: str, scaled: FloatArray) -> FloatArray:
        """Add mask and masked latents, where the denoiser takes them."""
        return np.concatenate([scaled, self._more], axis=1) if self._extends else scaled

    def hold(self, scheduler: Scheduler[Any], step: int, latents: FloatArray) -> FloatArray:
        """Replace the latents of what the mask leaves, where the denoiser does not know it."""
        if self._extends:
            return latents
        kept, timesteps = self._clean, scheduler.timesteps
        if step + 1 < len(timesteps):
            kept = scheduler.add_noise(kept, self._noise, float(timesteps[step + 1]))
        held: FloatArray = (1 - self._mask) * kept + self._mask * latents
        return held

    def finish(self, colours: FloatArray) -> FloatArray:
        """Put what the masks leave back, where that is asked for."""
        return self._masks.put_back(colours)


class EditSource(PictureSource):
    """InstructPix2Pix: noise, and the picture as further channels (Brooks et al., 2023).

    Args:
        scale: Factor of the picture's latents.
        **others: As of a `PictureSource`.
    """

    def __init__(self, *arguments: Any, scale: float, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self._scale = np.float32(scale)

    def begin(self, scheduler: Scheduler[Any], generators: Sequence[TorchGenerator]) -> FloatArray:
        """Begin with noise alone."""
        assert self._moments is not None  # it was prepared
        means, _ = np.split(self._moments[list(self._given.chosen)], 2, axis=1)
        self._means: FloatArray = means * self._scale
        noise: FloatArray = self._draw(generators) * np.float32(scheduler.init_noise_sigma)
        return noise

    def extend(self, side: str, scaled: FloatArray) -> FloatArray:
        """Add the picture's latents, or zeros for rows without a picture."""
        more = np.zeros_like(self._means) if side == UNCONDITIONAL else self._means
        return np.concatenate([scaled, more], axis=1)


class FillSource(PictureSource):
    """Inpainting with Flux Fill, which takes masked picture and mask as further channels.

    Each latent has the mask's pixels that it stands for as channels of their own.
    """

    def __init__(
        self, draw: DrawNoise, pack: Pack, given: GivenMasks, encoder: VAEEncoder, part: Part
    ) -> None:
        super().__init__(draw, pack, given, encoder, part)
        self._masks = given
        self._masked_moments = self._more = np.empty(0, np.float32)

    def prepare(self, residency: Residency) -> None:
        """Encode each picture and each masked one once."""
        images, binary = self._masks.normalize(), self._masks.binarize()
        with residency.lend(self._part) as session:
            self._moments = self._encoder.encode(session, images)
            self._masked_moments = self._encoder.encode(session, images * (binary < 1))

    def begin(self, scheduler: Scheduler[Any], generators: Sequence[TorchGenerator]) -> FloatArray:
        """Add noise to the pictures' latents."""
        latents = super().begin(scheduler, generators)
        chosen, scale = list(self._masks.chosen), self._encoder.config.downscale
        masked = self._encoder.sample(self._masked_moments[chosen], generators)
        mask = self._masks.binarize()[chosen]
        rows, _, height, width = mask.shape
        squares = mask.reshape(rows, height // scale, scale, width // scale, scale)
        channels = squares.transpose(0, 2, 4, 1, 3).reshape(rows, scale**2, *masked.shape[2:])
        self._more = np.concatenate([self._pack(masked), self._pack(channels)], axis=-1)
        return latents

    def extend(self, side: str, scaled: FloatArray) -> FloatArray:
        """Add masked latents and mask."""
        return np.concatenate([scaled, self._more], axis=-1)

    def finish(self, colours: FloatArray) -> FloatArray:
        """Put what the masks leave back, where that is asked for."""
        return self._masks.put_back(colours)


def make_source(
    plan: GenerationPlan,
    draw: DrawNoise,
    pack: Pack,
    encoding: tuple[VAEEncoder, Part] | None,
    *,
    extends: bool,
    edit_scale: float,
    is_packed: bool,
) -> LatentSource:
    """Make the source of a plan: of a text, of pictures, or of pictures with masks.

    Args:
        encoding: The VAE's encoder, which pictures need.
        extends: Whether the denoiser takes masks and masked pictures, or pictures alone, as further
            channels.
        edit_scale: Factor of the latents of a picture that is edited.
        is_packed: Whether it takes latents as tokens.
    """
    latents = plan.request.latents
    if latents is not None and plan.is_handed_over:
        return HandedSource(latents)
    if plan.given is None or encoding is None:
        return LatentSource(draw, latents)
    if isinstance(plan.given, GivenMasks):
        if extends and is_packed:
            return FillSource(draw, pack, plan.given, *encoding)
        return RepaintSource(draw, pack, plan.given, *encoding, extends=extends)
    if extends:
        return EditSource(draw, pack, plan.given, *encoding, scale=edit_scale)
    return PictureSource(draw, pack, plan.given, *encoding, is_noisy=plan.is_handed_over)
