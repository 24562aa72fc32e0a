"""The sub-predictor that is called at every step."""

from collections.abc import Sequence

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import Generator, integers
from fastdeploy_diffusion.families.networks.adapted_unet import AdaptedUNetConfig
from fastdeploy_diffusion.families.networks.ip_adapter import IMAGE_KEYS, IMAGE_VALUES
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.families.networks.unet_encoder import UNetEncoderConfig
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.runtime.program import RESIDUAL, Signature, TensorSpec
from fastdeploy_diffusion.size_range import Size, divide

_LARGEST_SIZE = 2048  # largest picture edge that the check draws size conditions for, in pixels


class Denoiser:
    """The UNet of Stable Diffusion 1.x, 2.x, XL and its refiner.

    Raises:
        UnsupportedModelError: The UNet's config is not implemented.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(self, checkpoint: Checkpoint, config: DiffusionConfig) -> None:
        kind = checkpoint.family.networks["unet"].config
        assert issubclass(kind, UNet2DConditionConfig)
        own = checkpoint.read_network("unet", kind.from_dict)
        adapters = len(config.ip_adapters)
        self.config = AdaptedUNetConfig.of(own, adapters) if adapters else own
        self.component = open_component(
            checkpoint,
            config,
            "unet",
            self.config,
            generators=draw_conditions(self.config),
            rows=2,  # with guidance
        )

    def signature(
        self,
        height: Size,
        width: Size,
        tokens: Size,
        batch: Size = None,
        *,
        image_tokens: Sequence[int] = (),
        is_controlled: bool = False,
    ) -> Signature:
        """Make the signature for latents of a size, texts of a length, and a number of rows.

        Args:
            image_tokens: Of each IP-Adapter, their number.
            is_controlled: Whether it takes residuals.
        """
        config = self.config
        inputs = describe_inputs(config, height, width, tokens, batch)
        inputs += _describe_images(config, image_tokens, batch)
        if is_controlled:
            inputs += describe_residuals(config, height, width, batch)
        prediction = (batch, config.out_channels, height, width)
        return Signature(inputs, (TensorSpec("prediction", prediction, "float32"),))


def _describe_images(
    config: UNet2DConditionConfig, tokens: Sequence[int], batch: Size
) -> tuple[TensorSpec, ...]:
    """Describe the keys and values of image prompts for all cross-attentions."""
    width = sum(width for _, width in config.list_cross_attentions())
    return tuple(
        TensorSpec(f"{kind}{index}", (batch, count, width), "float32")
        for index, count in enumerate(tokens)
        for kind in (IMAGE_KEYS, IMAGE_VALUES)
    )


def draw_conditions(config: UNetEncoderConfig) -> dict[str, Generator]:
    """Make the generators of conditions, for checks of a UNet or a ControlNet."""
    generators: dict[str, Generator] = {"timestep": integers(0, 1000)}
    if config.text_embeds_dim is not None:
        generators["time_ids"] = integers(0, _LARGEST_SIZE)
    return generators


def describe_inputs(
    config: UNetEncoderConfig,
    height: Size,
    width: Size,
    tokens: Size,
    batch: Size,
    *,
    text: bool = True,
) -> tuple[TensorSpec, ...]:
    """Describe sample, timestep and conditions of a UNet or a ControlNet.

    Args:
        text: Whether it reads the text.
    """
    inputs = [
        TensorSpec("sample", (batch, config.in_channels, height, width), "float32"),
        TensorSpec("timestep", (batch,), "float32"),
    ]
    if text:
        context = (batch, tokens, config.context_dims[0])
        inputs.append(TensorSpec("encoder_hidden_states", context, "float32"))
    if config.text_embeds_dim is not None:
        inputs.append(TensorSpec("text_embeds", (batch, config.text_embeds_dim), "float32"))
        inputs.append(TensorSpec("time_ids", (batch, config.size_numbers), "float32"))
    return tuple(inputs)


def describe_residuals(
    config: UNetEncoderConfig, height: Size, width: Size, batch: Size, *, pooled: bool = False
) -> tuple[TensorSpec, ...]:
    """Describe what a ControlNet gives and a UNet takes: one for each skip, and the middle's.

    Args:
        pooled: Whether they are means over all pixels.
    """
    residuals = []
    for index, (channels, level) in enumerate((*config.skips, config.skips[-1])):
        # An odd size is rounded up on the way down.
        sizes = (1 if pooled else divide(side, 2**level) for side in (height, width))
        residuals.append(TensorSpec(f"{RESIDUAL}{index}", (batch, channels, *sizes), "float32"))
    return tuple(residuals)
