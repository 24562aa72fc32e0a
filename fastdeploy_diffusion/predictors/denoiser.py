"""The sub-predictor that is called at every step."""

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import Generator, integers
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.families.networks.unet_encoder import SIZE_NUMBERS
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import Size

_LARGEST_SIZE = 2048  # largest picture edge that the check draws size conditions for, in pixels


class Denoiser:
    """The UNet of Stable Diffusion 1.x, 2.x and XL.

    Raises:
        UnsupportedModelError: The UNet's config is not implemented.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(self, checkpoint: Checkpoint, config: DiffusionConfig) -> None:
        self.config = checkpoint.read_network("unet", UNet2DConditionConfig.from_dict)
        generators: dict[str, Generator] = {"timestep": integers(0, 1000)}
        if self.config.text_embeds_dim is not None:
            generators["time_ids"] = integers(0, _LARGEST_SIZE)
        self.component = open_component(
            checkpoint,
            config,
            "unet",
            self.config,
            generators=generators,
            rows=2,  # with guidance
        )

    def signature(self, height: Size, width: Size, tokens: Size, batch: Size = None) -> Signature:
        """Make the signature for latents of a size, texts of a length, and a number of rows."""
        config = self.config
        context = (batch, tokens, config.context_dims[0])
        inputs = [
            TensorSpec("sample", (batch, config.in_channels, height, width), "float32"),
            TensorSpec("timestep", (batch,), "float32"),
            TensorSpec("encoder_hidden_states", context, "float32"),
        ]
        if config.text_embeds_dim is not None:
            inputs.append(TensorSpec("text_embeds", (batch, config.text_embeds_dim), "float32"))
            inputs.append(TensorSpec("time_ids", (batch, SIZE_NUMBERS), "float32"))
        prediction = (batch, config.out_channels, height, width)
        return Signature(tuple(inputs), (TensorSpec("prediction", prediction, "float32"),))
