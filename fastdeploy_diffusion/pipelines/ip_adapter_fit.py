"""Opens a pipeline's IP-Adapters, and checks that UNet, adapter and vision tower fit together."""

from pathlib import Path

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.checkpoints.image_encoder import ImageEncoderCheckpoint
from fastdeploy_diffusion.checkpoints.ip_adapter import IPAdapterCheckpoint
from fastdeploy_diffusion.config import DiffusionConfig, EngineChoice
from fastdeploy_diffusion.config.ip_adapter_options import IPAdapterOptions
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.predictors.image_encoder import ImageEncoder
from fastdeploy_diffusion.predictors.image_prompts import ImagePrompts
from fastdeploy_diffusion.predictors.ip_adapter import IPAdapter

_BESIDE = "image_encoder"  # the folder that diffusers looks for as well


def open_ip_adapters(
    config: DiffusionConfig, checkpoint: Checkpoint, unet: UNet2DConditionConfig
) -> ImagePrompts:
    """Open the IP-Adapters of a configuration; those with the same tower share it.

    Args:
        checkpoint: With the UNet.

    Raises:
        CheckpointError: A file is missing, damaged or unsafe, or an adapter has no vision tower.
        UnsupportedModelError: An adapter is of a kind that is not implemented, or for another
            family of models or another vision tower.
        EngineUnavailableError: The engine asked for cannot run here.
    """
    count = len(config.ip_adapters)
    towers: list[tuple[Path, EngineChoice, ImageEncoder]] = []
    adapters = []
    for index, options in enumerate(config.ip_adapters):
        name = f"ip_adapter_{index}" if count > 1 else "ip_adapter"
        found = checkpoint.open_ip_adapter(Path(options.path), name)
        _check_unet(found, unet, checkpoint.path)
        path = _find_tower(options, checkpoint)
        choice = config.choose_ip_adapter(index)
        place = path.resolve()
        tower = next((each for own, by, each in towers if (own, by) == (place, choice)), None)
        opened = checkpoint.open_image_encoder(path) if tower is None else tower.checkpoint
        _check_tower(found, opened)
        if tower is None:
            number = f"_{len(towers)}" if count > 1 else ""
            tower = ImageEncoder(opened, config, choice, f"image_encoder{number}")
            towers.append((place, choice, tower))
        adapters.append(IPAdapter(found, tower, config, choice, name))
    return ImagePrompts(adapters)


def _find_tower(options: IPAdapterOptions, checkpoint: Checkpoint) -> Path:
    if options.image_encoder_path is not None:
        return Path(options.image_encoder_path)
    beside, own = Path(options.path).parent / _BESIDE, checkpoint.path / _BESIDE
    for path in (beside, own):
        if path.is_dir():
            return path
    raise CheckpointError(
        f"the IP-Adapter {options.path} has no vision tower: there is no folder {beside}, and "
        f"{checkpoint.path} has none, either",
        allowed="image_encoder_path, or a folder image_encoder beside the file or in the model's",
        fix="download the image_encoder that it was published with, and give its folder",
    )


def _check_unet(found: IPAdapterCheckpoint, unet: UNet2DConditionConfig, model: Path) -> None:
    config, widths = found.config, tuple(width for _, width in unet.list_cross_attentions())
    text = unet.context_dims[0]
    problem = ""
    if config.cross_attention_dim != text:
        problem = f"its tokens have a width of {config.cross_attention_dim}, and texts {text}"
    elif len(config.widths) != len(widths):
        problem = f"it is for {len(config.widths)} cross-attentions, and there are {len(widths)}"
    elif config.widths != widths:
        place = next(
            index
            for index, (own, other) in enumerate(zip(config.widths, widths, strict=True))
            if own != other
        )
        problem = (
            f"its keys for cross-attention {place} have a width of {config.widths[place]}, and "
            f"that has {widths[place]}"
        )
    if problem:
        raise UnsupportedModelError(
            f"{found.path} does not fit the UNet of {model}: {problem}",
            allowed="an IP-Adapter that was trained for this family of models",
            fix="take one for this model, or the model that it was made for",
        )


def _check_tower(found: IPAdapterCheckpoint, tower: ImageEncoderCheckpoint) -> None:
    config = found.config
    if config.resampler:
        key, width = "hidden_size", tower.config.hidden_size
    else:
        key, width = "projection_dim", tower.config.projection_dim
    if width != config.embed_dim:
        raise UnsupportedModelError(
            f"{found.path}, of the kind {config.kind}, takes features of width "
            f"{config.embed_dim}, and the vision tower {tower.path} gives {width} ({key})",
            allowed="the image_encoder that the adapter was published with",
            fix="for SD 1.x and for SDXL's vit-h adapters that is ViT-H, for others of SDXL "
            "ViT-bigG",
        )
