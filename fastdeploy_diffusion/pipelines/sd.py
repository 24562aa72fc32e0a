"""Stable Diffusion 1.x and 2.x (Rombach et al., 2022)."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastdeploy_diffusion.checkpoints import Checkpoint, open_checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.errors import CheckpointError, ConfigError, UnsupportedModelError
from fastdeploy_diffusion.predictors.checkpoint_predictor import CheckpointPredictor
from fastdeploy_diffusion.predictors.denoiser import Denoiser
from fastdeploy_diffusion.predictors.diffusion import Conditioning, FloatArray
from fastdeploy_diffusion.predictors.guidance import guide
from fastdeploy_diffusion.predictors.part import Part
from fastdeploy_diffusion.predictors.prompt_encoder import Texts
from fastdeploy_diffusion.predictors.request import (
    GenerationPlan,
    GenerationRequest,
    ModelLimits,
    plan_generation,
)
from fastdeploy_diffusion.predictors.shape_ranges import resolve_ranges
from fastdeploy_diffusion.predictors.text_encoder import TextEncoder
from fastdeploy_diffusion.predictors.vae import VAEDecoder
from fastdeploy_diffusion.schedulers import create_scheduler
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.tokenizers import CLIPTokenizer

_FOR_KNOWN_SIZES = {
    "phase-upsample": "leaves the denoiser's upsamplers the plain way, for its latents may be "
    "of an odd size; it works on the VAE decoder",
    "winograd-4x4": "changes nothing: its tiles are laid out for sizes that are known",
    "winograd-2x2": "changes nothing: its tiles are laid out for sizes that are known",
    "channels-last": "changes nothing: the tiles that it is for are laid out for sizes that are "
    "known",
}
"""What passes do less of where sizes are open."""


class SDPipeline(CheckpointPredictor):
    """Text to image with a Stable Diffusion 1.x or 2.x checkpoint.

    Args:
        config: Which checkpoint, and what to run it on.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        UnsupportedModelError: It is of another family, or its configs ask for what is not
            implemented.
        ConfigError: An option that Stable Diffusion does not have.
        EngineUnavailableError: What was asked for cannot run here, and ``cpu_fallback`` is off.

    Example:
        >>> pipeline = SDPipeline(DiffusionConfig.from_preset("shapes"))
        >>> image = pipeline.text_to_image("a large red circle on a blue background", seed=1)
        >>> image.save("circle.png")
    """

    def __init__(self, config: DiffusionConfig) -> None:
        checkpoint = open_checkpoint(config.model_path, variant=config.variant)
        if checkpoint.family not in ("sd1", "sd2"):
            raise UnsupportedModelError(
                f"{checkpoint.path} is a checkpoint of the family {checkpoint.family}",
                allowed="sd1, sd2: Stable Diffusion 1.x and 2.x",
                fix="open it with FluxPipeline" if checkpoint.family == "flux" else "",
            )
        if config.defaults.max_sequence_length is not None:
            raise ConfigError(
                f"defaults.max_sequence_length is {config.defaults.max_sequence_length}, which "
                "Stable Diffusion does not have",
                allowed="the tokenizer's own length",
                fix="leave it out",
            )
        if config.memory == "streamed":
            raise ConfigError(
                "memory is 'streamed', which Stable Diffusion does not have",
                allowed="resident, staged",
                fix="memory='staged'",
            )
        super().__init__(config, checkpoint)
        self._text_encoder = TextEncoder(checkpoint, config, _load_tokenizer(checkpoint, config))
        self._denoiser = Denoiser(checkpoint, config)
        self._vae = VAEDecoder(checkpoint, config)
        self._limits = _read_limits(config, self._denoiser, self._vae)
        self._scheduler_config = checkpoint.config("scheduler")
        if config.prediction_type is not None:
            self._scheduler_config["prediction_type"] = config.prediction_type
        # Refuses a scheduler that is not implemented now, not at the first picture.
        scheduler = create_scheduler(self._scheduler_config, config.scheduler)
        self._scheduler_name = type(scheduler).__name__
        self._components = (
            self._text_encoder.component,
            self._denoiser.component,
            self._vae.component,
        )

    def _plan(self, request: GenerationRequest) -> GenerationPlan:
        plan = plan_generation(request, self.config.defaults, self._limits)
        self._text_encoder.check_clip_skip(request.clip_skip or 0)
        return plan

    def _start_scheduler(self, plan: GenerationPlan) -> Scheduler[Any]:
        scheduler = create_scheduler(
            self._scheduler_config, self.config.scheduler, eta=plan.request.eta
        )
        scheduler.set_timesteps(plan.num_inference_steps)
        return scheduler

    def _list_parts(self, plan: GenerationPlan) -> list[Part]:
        _, height, width = plan.latent_shape
        tokens = self._text_encoder.tokenizer.max_length
        ranges = self._limits.ranges
        if ranges is None:
            signatures = (
                self._text_encoder.signature(),
                self._denoiser.signature(height, width, tokens),
                self._vae.signature(height, width),
            )
        else:
            signatures = (
                self._text_encoder.signature(ranges.texts),
                self._denoiser.signature(ranges.height, ranges.width, tokens, ranges.batch),
                self._vae.signature(ranges.height, ranges.width, 1),
            )
        sizes = {"height": height, "width": width}
        return [Part(*each, sizes) for each in zip(self._components, signatures, strict=True)]

    def _list_texts(self, plan: GenerationPlan) -> Mapping[str, Texts]:
        read = self._text_encoder.read
        texts = {"prompt_embeds": read(plan.prompts, plan.request.clip_skip or 0)}
        if plan.is_guided:
            # As in diffusers, layers are skipped for prompts, and never for negative prompts.
            texts["negative_prompt_embeds"] = read(plan.negative_prompts, 0)
        return texts

    def _precompute(
        self,
        session: Session,
        plan: GenerationPlan,
        timesteps: Sequence[float],
        told: Conditioning,
    ) -> None:
        context = _join_contexts(told)
        self._denoiser.precompute(session, np.array(timesteps, np.float32), context)

    def _predict(
        self,
        session: Session,
        plan: GenerationPlan,
        latents: FloatArray,
        timestep: float,
        told: Conditioning,
    ) -> FloatArray:
        context = _join_contexts(told)
        if told.negative_prompt_embeds is None:
            return self._denoiser.predict(session, latents, timestep, context)
        doubled = np.concatenate([latents, latents])
        predicted = self._denoiser.predict(session, doubled, timestep, context)
        negative, positive = np.split(predicted, 2)
        return guide(negative, positive, plan.guidance_scale, plan.request.guidance_rescale)

    def _decode(self, session: Session, plan: GenerationPlan, latents: FloatArray) -> FloatArray:
        return self._vae.decode(session, latents)


def _join_contexts(told: Conditioning) -> FloatArray:
    """Conditioning of one batch: that of the negative prompts first, under guidance."""
    if told.negative_prompt_embeds is None:
        return told.prompt_embeds
    return np.concatenate([told.negative_prompt_embeds, told.prompt_embeds])


def _load_tokenizer(checkpoint: Checkpoint, config: DiffusionConfig) -> CLIPTokenizer:
    folder = config.tokenizer_path or checkpoint.folder("tokenizer")
    if folder is None:
        raise CheckpointError(
            f"{checkpoint.path} is a single file, which carries no tokenizer",
            allowed="tokenizer_path, a folder with tokenizer.json or vocab.json and merges.txt",
            fix='DiffusionConfig(…, tokenizer_path="…/tokenizer"): the tokenizer folder of any '
            "diffusers folder of the same family",
        )
    return CLIPTokenizer.from_folder(folder)


def _read_limits(config: DiffusionConfig, denoiser: Denoiser, vae: VAEDecoder) -> ModelLimits:
    unet, scale = denoiser.config, vae.config.downscale
    if unet.in_channels != vae.config.latent_channels:
        raise UnsupportedModelError(
            f"the UNet takes {unet.in_channels} channels, and latents have "
            f"{vae.config.latent_channels}: an inpainting or depth model, perhaps",
            allowed="text-to-image models",
        )
    size = unet.sample_size if unet.sample_size is not None else 64
    height, width = (scale * each for each in (size if isinstance(size, tuple) else (size, size)))
    ranges = resolve_ranges(config, height, width, scale)
    if ranges is not None:
        for name in config.passes or ():
            if name in _FOR_KNOWN_SIZES:
                message = f"with enable_dynamic_shape, the pass {name} {_FOR_KNOWN_SIZES[name]}"
                warnings.warn(message, UserWarning, stacklevel=3)
        height, width = scale * ranges.height.opt, scale * ranges.width.opt
    return ModelLimits(height, width, scale, vae.config.latent_channels, ranges)
