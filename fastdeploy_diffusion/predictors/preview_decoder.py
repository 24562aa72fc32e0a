"""The tiny decoder that draws previews, beside the decoder of the finished pictures."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.images import denormalize, to_pil
from fastdeploy_diffusion.predictors.vae import VAEDecoder, open_tiny_decoder
from fastdeploy_diffusion.runtime.program import Signature


class PreviewDecoder:
    """Decodes previews; nothing is opened before the first one."""

    def __init__(self, checkpoint: Checkpoint, config: DiffusionConfig) -> None:
        self._checkpoint, self._config = checkpoint, config
        self._opening = threading.Lock()
        self._decoder: VAEDecoder | None = None

    def decode(self, signature: Signature, latents: npt.NDArray[np.float32]) -> list[Image.Image]:
        """Decode (B, C, H, W) scaled latents.

        Args:
            signature: Of the pipeline's own decoder for them.

        Raises:
            CheckpointError: The tiny VAE is missing, damaged, or not for these latents.
            EngineError: It cannot be built.
        """
        with self._opening:
            if self._decoder is None:
                self._decoder = open_tiny_decoder(self._checkpoint, self._config)
        with self._decoder.component.lend(signature, keep=True) as session:
            return to_pil(denormalize(self._decoder.decode(session, latents)))

    def close(self) -> None:
        """Free the engine's memory."""
        if self._decoder is not None:
            self._decoder.component.close()
