"""Where the latents of a request come from, and what holds them while they are denoised."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.noise import TorchGenerator
from fastdeploy_diffusion.predictors.component import Part
from fastdeploy_diffusion.predictors.residency import Residency
from fastdeploy_diffusion.predictors.vae_encoder import VAEEncoder
from fastdeploy_diffusion.requests.given_pictures import GivenPictures
from fastdeploy_diffusion.schedulers.base import Scheduler

FloatArray = npt.NDArray[np.float32]
DrawNoise: TypeAlias = Callable[[Sequence[TorchGenerator]], FloatArray]
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
            side: Whose rows they are: ``"prompt_embeds"`` or ``"negative_prompt_embeds"``.
            scaled: The latents as the scheduler scales them, (B, …) float32.
        """
        return scaled

    def hold(self, scheduler: Scheduler[Any], step: int, latents: FloatArray) -> FloatArray:
        """Replace what must not change after a step, counted from 0; before the callback."""
        return latents

    def finish(self, colours: FloatArray) -> FloatArray:
        """Complete the pictures, (B, H, W, 3) float32 in [0, 1]."""
        return colours


class PictureSource(LatentSource):
    """Image to image: noise on the latents of a picture (Meng et al., 2021: SDEdit).

    Args:
        pack: Brings (B, C, H, W) latents into the denoiser's layout.
        part: The encoder's, for the size of the pictures.
    """

    def __init__(
        self, draw: DrawNoise, pack: Pack, given: GivenPictures, encoder: VAEEncoder, part: Part
    ) -> None:
        super().__init__(draw)
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
        noise = self._draw(generators)
        return scheduler.add_noise(latents, noise, float(scheduler.timesteps[0]))
