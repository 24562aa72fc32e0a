"""The base of pipelines with a UNet."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import ConfigError, UnsupportedModelError
from fastdeploy_diffusion.pipelines.component_fit import Joint, check_fit
from fastdeploy_diffusion.pipelines.control_fit import check_controlnet
from fastdeploy_diffusion.pipelines.ip_adapter_fit import open_ip_adapters
from fastdeploy_diffusion.predictors.component import Component, Part, Parts
from fastdeploy_diffusion.predictors.controlnet import ControlNet
from fastdeploy_diffusion.predictors.controls import Controls
from fastdeploy_diffusion.predictors.denoiser import Denoiser
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
from fastdeploy_diffusion.predictors.image_stage import ImageStage
from fastdeploy_diffusion.predictors.loop import FloatArray, PlanT
from fastdeploy_diffusion.predictors.residency import Residency
from fastdeploy_diffusion.predictors.text_encoder import CLIPTextEncoder
from fastdeploy_diffusion.predictors.vae import open_decoder
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.prompt_chunks import fit_chunks
from fastdeploy_diffusion.requests.shape_ranges import resolve_ranges
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.sample_pictures import draw_outlines, draw_shapes
from fastdeploy_diffusion.scheduler_names import SAMPLERS
from fastdeploy_diffusion.schedulers import create_scheduler
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.size_range import Size

_FOR_KNOWN_SIZES = {
    "phase-upsample": "skips the denoiser's upsamplers, for its latents may have an odd size; it "
    "rewrites the VAE decoder",
    "winograd-4x4": "has no effect: its tiles need fixed sizes",
    "winograd-2x2": "has no effect: its tiles need fixed sizes",
    "channels-last": "has no effect: Winograd's tiles need fixed sizes",
}
"""Passes that have less or no effect where sizes are free."""


class UNetPipeline(DiffusionPredictor[PlanT]):
    """Text to image with CLIP's text encoders, a UNet and an autoencoder; a family names itself.

    Raises:
        CheckpointError: The checkpoint lacks a tokenizer.
        UnsupportedModelError: Its configs have options that are not implemented.
        ConfigError: An option that the family does not have.
        EngineUnavailableError: What was asked for cannot run here, and ``cpu_fallback`` is off.
    """

    def __init__(self, config: DiffusionConfig, checkpoint: Checkpoint) -> None:
        _check_config(config, checkpoint.family.title)
        super().__init__(config, checkpoint)
        self._text_encoders = self._open_text_encoders()
        self._denoiser = Denoiser(checkpoint, config)
        self._vae = open_decoder(checkpoint, config)
        self._image_prompts = open_ip_adapters(config, checkpoint, self._denoiser.config)
        self._controls = Controls(self._open_controlnets())
        self._limits = self._read_limits()
        self._scheduler_config = self._read_scheduler_config()
        if config.prediction_type is not None:
            self._scheduler_config["prediction_type"] = config.prediction_type
        # Refuses a scheduler that is not implemented now, not at the first picture.
        scheduler = checkpoint.read_config(
            "scheduler", lambda _: create_scheduler(self._scheduler_config, config.scheduler)
        )
        self._scheduler_name = _name_scheduler(scheduler, config.scheduler)
        latents = self._vae.config.latent_channels
        self._check_joints(
            Joint(
                "unet gives",
                self._denoiser.config.out_channels,
                "channels",
                type(scheduler).__name__,
                scheduler.output_shape((1, latents, 1, 1))[1],
                f"for latents of {latents}",
            )
        )
        self._join(
            *(each.component for each in self._text_encoders),
            *self._image_prompts.components,
            *(each.component for each in self._controls.controlnets),
            self._denoiser.component,
            self._vae.component,
        )

    def _open_controlnets(self) -> list[ControlNet]:
        config, unet, opened = self.config, self._denoiser.config, []
        for index, options in enumerate(config.controlnets):
            name = "controlnet" if len(config.controlnets) == 1 else f"controlnet_{index}"
            found = self._checkpoint.open_controlnet(Path(options.path), name)
            model, vae = self._checkpoint.path, self._vae.config
            sizes = vae.downscale, vae.latent_channels
            check_controlnet(found.path, found.config, unet, model, *sizes)
            opened.append(ControlNet(found, config, index, name))
        return opened

    def list_added(self) -> list[Component]:
        """List ControlNets, vision towers and IP-Adapters."""
        controlnets = (each.component for each in self._controls.controlnets)
        return [*self._image_prompts.components, *controlnets]

    def sample_inputs(self, index: int) -> dict[str, Any]:
        """Draw pictures of shapes for each of them, other ones for each index.

        Control counts in one half of the steps alone, so that the denoiser is seen with and
        without.
        """
        width, height = self.choose_size()
        given: dict[str, Any] = {}
        if count := len(self._controls.controlnets):
            seeds = range(count * index, count * (index + 1))
            given["control_image"] = [draw_outlines(seed, width, height) for seed in seeds]
            bound = "control_guidance_start" if index % 2 else "control_guidance_end"
            given[bound] = 0.5
        if count := len(self._image_prompts.adapters):
            seeds = range(count * index, count * (index + 1))
            given["ip_adapter_image"] = [draw_shapes(seed, width, height) for seed in seeds]
        return given

    def name_added(self) -> dict[str, list[dict[str, str]]]:
        """Name ControlNets and IP-Adapters, where there are some."""
        controlnets = [{"path": each.checkpoint.name} for each in self._controls.controlnets]
        adapters = [
            {"path": each.checkpoint.name, "image_encoder_path": each.encoder.component.name}
            for each in self._image_prompts.adapters
        ]
        added = {"controlnets": controlnets, "ip_adapters": adapters}
        return {option: places for option, places in added.items() if places}

    def _check_joints(self, *joints: Joint) -> None:
        check_fit(self._checkpoint.path, *joints)

    def _read_scheduler_config(self) -> dict[str, Any]:
        return self._checkpoint.config("scheduler")

    @abstractmethod
    def _open_text_encoders(self) -> tuple[CLIPTextEncoder, ...]:
        """Open the text encoders, in the order in which they run, with one number of tokens."""

    def _plan_steps(self, plan: PlanT) -> Scheduler[Any]:
        name = plan.request.scheduler or self.config.scheduler
        request = plan.request
        scheduler = create_scheduler(
            self._scheduler_config, name, eta=request.eta, seeds=plan.seeds
        )
        if request.timesteps is None and request.sigmas is None:
            scheduler.set_timesteps(plan.num_inference_steps)
        else:
            scheduler.set_timesteps(timesteps=request.timesteps, sigmas=request.sigmas)
        return scheduler

    def _name_scheduler(self, plan: PlanT) -> str:
        name = plan.request.scheduler or self.config.scheduler
        return _name_scheduler(create_scheduler(self._scheduler_config, name), name)

    def _list_parts(self, plan: PlanT) -> Parts:
        (height, width, tokens, batch), sizes = self._size(plan)
        ranges = self._limits.ranges
        count, texts = (1, ranges.texts) if ranges else (None, None)
        shown = self._image_prompts.count_tokens(plan.image_prompt)
        denoiser = self._denoiser.signature(height, width, tokens, batch, image_tokens=shown)
        return Parts(
            tuple(
                Part(each.component, each.signature(texts), sizes) for each in self._text_encoders
            ),
            Part(self._denoiser.component, denoiser, sizes),
            Part(self._vae.component, self._vae.signature(height, width, count), sizes),
            images=self._image_prompts.list_parts(),
        )

    def _size(self, plan: PlanT) -> tuple[tuple[Size, Size, Size, Size], dict[str, int]]:
        """Size the denoiser's inputs for a plan.

        Returns:
            Height, width, tokens and batch of signatures; and the numbers of those that are free.
        """
        _, height, width = plan.latent_shape
        length, ranges = self._text_encoders[0].tokenizer.max_length, self._limits.ranges
        tokens = length * plan.chunks
        sizes = {"height": height, "width": width, "tokens": tokens}
        if ranges is None:
            return (height, width, tokens, None), sizes
        return (ranges.height, ranges.width, ranges.count_tokens(length), ranges.batch), sizes

    def _fit_chunks(self, plan: PlanT) -> PlanT:
        needed = 1
        if plan.prompt_chunks is not None:
            texts = self._list_all_texts(plan).values()
            needed = max(len(row) for each in texts for row in each.chunks)
        return fit_chunks(plan, needed, self._limits)

    def _find_parts(self, plan: PlanT, encoder: bool = False, *, control: bool = False) -> Parts:
        parts = super()._find_parts(plan, encoder, control=control)
        if plan.control is None and not (control and self._controls.controlnets):
            return parts
        dimensions, sizes = self._size(plan)
        shown = self._image_prompts.count_tokens(plan.image_prompt)
        signature = self._denoiser.signature(*dimensions, image_tokens=shown, is_controlled=True)
        return replace(
            parts,
            controlnets=self._controls.list_parts(*dimensions, sizes),
            denoiser=parts.denoiser._replace(signature=signature),
        )

    def _list_stepping(self) -> list[Component]:
        controlnets = (each.component for each in self._controls.controlnets)
        return [*controlnets, self._denoiser.component]

    def _start_images(self, plan: PlanT) -> ImageStage | None:
        if plan.image_prompt is None:
            return None
        prompts, cache = self._image_prompts, self._embeddings
        return prompts.start(plan.image_prompt, cache, is_guided=plan.is_guided)

    def _lend_denoiser(self, parts: Parts, residency: Residency) -> AbstractContextManager[Session]:
        if parts.controlnets:
            return self._controls.lend(parts, residency)
        return super()._lend_denoiser(parts, residency)

    def _bring_residuals(
        self, plan: PlanT, step: int, steps: int, *, negative: bool
    ) -> Mapping[str, FloatArray]:
        if plan.control is None:
            return {}
        return self._controls.bring_residuals(plan.control, step, steps, negative=negative)

    def _describe_control(self, plan: PlanT) -> dict[str, Any]:
        described = {}
        if plan.control is not None:
            described["control"] = self._controls.describe(plan.control)
        if plan.image_prompt is not None:
            described["image_prompt"] = self._image_prompts.describe(plan.image_prompt)
        return described

    def _count_rows(self, plan: PlanT) -> int:
        guided = 2 if plan.image_guidance_scale is None else 3
        return guided if plan.is_guided else 1

    def _read_limits(self) -> ModelLimits:
        config, unet, vae = self.config, self._denoiser.config, self._vae.config
        scale = vae.downscale
        channels = vae.latent_channels
        inpaints = unet.in_channels == 2 * channels + 1  # with the mask, and the masked latents
        family = self._checkpoint.family
        edits = unet.in_channels == 2 * channels and family.editing is not None
        if unet.in_channels != channels and not inpaints and not edits:
            raise UnsupportedModelError(
                f"{self._checkpoint.path}: vae gives latents of {channels} channels, and unet "
                f"wants {unet.in_channels} (in_channels): a depth model or another, or they are "
                "not of one model",
                allowed="text-to-image and inpainting models, and InstructPix2Pix",
                fix="use the components of one checkpoint",
            )
        defaults = family.editing if edits and family.editing else family.defaults
        size = unet.sample_size if unet.sample_size is not None else defaults.sample_size
        sizes = size if isinstance(size, tuple) else (size, size)
        height, width = (scale * each for each in sizes)
        ranges = resolve_ranges(config, height, width, scale)
        if ranges is not None:
            for name in config.passes or ():
                if name in _FOR_KNOWN_SIZES:
                    message = f"with enable_dynamic_shape, the pass {name} {_FOR_KNOWN_SIZES[name]}"
                    warnings.warn(message, UserWarning, stacklevel=4)
            height, width = scale * ranges.height.opt, scale * ranges.width.opt
        return ModelLimits(
            height,
            width,
            scale,
            vae.latent_channels,
            defaults,
            ranges,
            self._checkpoint.sizes,
            chunks=self._checkpoint.chunks,
            model=self._checkpoint.name,
            needs_mask=inpaints,
            edits=edits,
            control_scales=tuple(each.scale for each in config.controlnets),
            ip_adapter_scales=tuple(each.scale for each in config.ip_adapters),
            shown=self._checkpoint.shown,
        )


def _name_scheduler(scheduler: Scheduler[Any], name: str | None) -> str:
    kind = type(scheduler).__name__
    return f"{kind} ({name})" if name in SAMPLERS else kind


def _check_config(config: DiffusionConfig, model: str) -> None:
    if config.defaults.max_sequence_length is not None:
        raise ConfigError(
            f"defaults.max_sequence_length is {config.defaults.max_sequence_length}, which "
            f"{model} does not have",
            allowed="the tokenizer's own length",
            fix="leave it out",
        )
    if config.memory == "streamed":
        raise ConfigError(
            f"memory is 'streamed', which {model} does not have",
            allowed="resident, staged",
            fix="memory='staged'",
        )
