"""The sub-predictor of Flux that is called at every step."""

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import Generator, integers
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.predictors.build import ComponentBuild
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.predictors.streamed_build import StreamedBuild, require_streaming
from fastdeploy_diffusion.program import Signature, TensorSpec

FloatArray = npt.NDArray[np.float32]


class FluxDenoiser:
    """Flux's transformer.

    Args:
        checkpoint: Where config and weights come from.
        config: Engine, device and precision.

    Raises:
        UnsupportedModelError: The transformer's config is not implemented.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(self, checkpoint: Checkpoint, config: DiffusionConfig) -> None:
        self.config = checkpoint.read_network("transformer", FluxTransformer2DConfig.from_dict)
        generators: dict[str, Generator] = {
            "timestep": lambda random, shape: random.random(shape),
            "img_ids": integers(0, 64),
            "txt_ids": lambda random, shape: np.zeros(shape),
        }
        if self.config.guidance_embeds:
            generators["guidance"] = lambda random, shape: random.uniform(1, 8, shape)
        self.component = open_component(
            checkpoint,
            config,
            "transformer",
            self.config,
            generators=generators,
            build_class=StreamedBuild if config.memory == "streamed" else ComponentBuild,
        )
        if config.memory == "streamed":
            report = self.component.report
            require_streaming(report.name, report.engine, report.device)

    def signature(self, image_tokens: int, text_tokens: int) -> Signature:
        """For pictures and texts of this many tokens, and any number of rows."""
        config = self.config
        texts = (None, text_tokens, config.joint_attention_dim)
        inputs = [
            TensorSpec("hidden_states", (None, image_tokens, config.in_channels), "float32"),
            TensorSpec("encoder_hidden_states", texts, "float32"),
            TensorSpec("pooled_projections", (None, config.pooled_projection_dim), "float32"),
            TensorSpec("timestep", (None,), "float32"),
            TensorSpec("img_ids", (image_tokens, 3), "float32"),
            TensorSpec("txt_ids", (text_tokens, 3), "float32"),
        ]
        if config.guidance_embeds:
            inputs.append(TensorSpec("guidance", (None,), "float32"))
        velocity = TensorSpec("velocity", (None, image_tokens, config.outputs), "float32")
        return Signature(tuple(inputs), (velocity,))

    def precompute(
        self,
        session: Session,
        sigmas: FloatArray,
        texts: tuple[FloatArray, FloatArray],
        img_ids: FloatArray,
        guidance_scale: float,
    ) -> None:
        """Compute what stays the same over the steps, where a pass has taken it out of them.

        Args:
            session: That of the component.
            sigmas: All of the request, (S,) float32.
            texts: As for `predict`, as are the rest.
            img_ids: Positions.
            guidance_scale: Of a distilled model.
        """
        session.precompute(timestep=sigmas, **self._tell(texts, img_ids, guidance_scale))

    def predict(
        self,
        session: Session,
        latents: FloatArray,
        sigma: np.float32,
        texts: tuple[FloatArray, FloatArray],
        img_ids: FloatArray,
        guidance_scale: float,
    ) -> FloatArray:
        """Predict the velocity of packed latents.

        Args:
            session: That of the component.
            latents: (B, N, C) float32.
            sigma: Share of noise, from 1 to 0.
            texts: T5's features (B, T, D) and CLIP's pooled output (B, P).
            img_ids: Positions of the picture's tokens, (N, 3) float32.
            guidance_scale: Of a distilled model; others do not take it.
        """
        return session.run(
            hidden_states=latents,
            timestep=np.full(len(latents), sigma, np.float32),
            **self._tell(texts, img_ids, guidance_scale),
        )["velocity"]

    def _tell(
        self, texts: tuple[FloatArray, FloatArray], img_ids: FloatArray, guidance_scale: float
    ) -> dict[str, FloatArray]:
        """Give all inputs but latents and timestep."""
        features, pooled = texts
        told = {
            "encoder_hidden_states": features,
            "pooled_projections": pooled,
            "img_ids": img_ids,
            "txt_ids": np.zeros((features.shape[1], 3), np.float32),
        }
        if self.config.guidance_embeds:
            told["guidance"] = np.full(len(features), guidance_scale, np.float32)
        return told
