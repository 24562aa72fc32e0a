"""The sub-predictor of Flux that is called at every step."""

import numpy as np

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import Generator, integers
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec


class FluxDenoiser:
    """Flux's transformer.

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
            is_streamed=config.memory == "streamed",
        )

    def signature(self, image_tokens: int, text_tokens: int) -> Signature:
        """Make the signature for numbers of picture and text tokens, and any number of rows."""
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
