"""Flux (Black Forest Labs, 2024): FLUX.1-dev, FLUX.1-schnell, and models of their kind."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from typing_extensions import Unpack, overload

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.noise import TorchGenerator
from fastdeploy_diffusion.pictures_in import GivenPicture, ImagePrompted
from fastdeploy_diffusion.pipelines.component_fit import Joint, check_fit
from fastdeploy_diffusion.pipelines.config_argument import ConfigLike, read_config_argument
from fastdeploy_diffusion.pipelines.opening import open_for
from fastdeploy_diffusion.pipelines.tokenizer_folders import find_tokenizers
from fastdeploy_diffusion.predictors.component import Part, Parts
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
from fastdeploy_diffusion.predictors.flux_denoiser import FluxDenoiser
from fastdeploy_diffusion.predictors.loop import FloatArray
from fastdeploy_diffusion.predictors.packing import list_positions, pack, unpack
from fastdeploy_diffusion.predictors.result import Pictures
from fastdeploy_diffusion.predictors.text_encoder import POOLED, CLIPTextEncoder, T5TextEncoder
from fastdeploy_diffusion.predictors.texts import Texts
from fastdeploy_diffusion.predictors.vae import open_decoder
from fastdeploy_diffusion.request_fields import PLAIN, WEIGHTED
from fastdeploy_diffusion.requests.flux_request import (
    NO_WEIGHTS,
    FluxPlan,
    FluxRequest,
    plan_flux,
)
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.request import GenerationRequest, StepCallback
from fastdeploy_diffusion.requests.settings import FluxSettings, takes_fields_of
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.schedulers.create_flow import create_flow_scheduler
from fastdeploy_diffusion.schedulers.flow_match_heun import FlowMatchHeunScheduler
from fastdeploy_diffusion.tokenizers import CLIPTokenizer, T5Tokenizer


class FluxPipeline(DiffusionPredictor[FluxPlan]):
    """Text to image with a checkpoint of Flux.

    Args:
        config: Which checkpoint, and what to run it on; or the checkpoint's path.
        checkpoint: That checkpoint, if it is open already.
        **options: Those of a `DiffusionConfig`, where none is given.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        UnsupportedModelError: It is of another family, its parts do not fit together, or its
            configs have options that are not implemented.
        ConfigError: An option that Flux does not have.
        EngineUnavailableError: What was asked for cannot run here, and ``cpu_fallback`` is off.
    """

    request_class = FluxRequest
    timestep_unit = 1000.0  # the share of noise, from 1 to 0, in thousandths

    def __init__(
        self,
        config: ConfigLike | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        **options: Any,
    ) -> None:
        config = read_config_argument(config, options)
        config, checkpoint = open_for("FluxPipeline", config, checkpoint)
        _check_config(config)
        super().__init__(config, checkpoint)
        folders = find_tokenizers(checkpoint, config)
        self._text_encoder = CLIPTextEncoder(
            checkpoint, config, CLIPTokenizer.from_folder(folders[0]), POOLED
        )
        self._text_encoder_2 = T5TextEncoder(
            checkpoint, config, T5Tokenizer.from_folder(folders[1])
        )
        self._denoiser = FluxDenoiser(checkpoint, config)
        self._vae = open_decoder(checkpoint, config)
        check_fit(checkpoint.path, *self._list_joints())
        self._limits = self._read_limits()
        self._scheduler_config = checkpoint.config("scheduler")
        # Refuses a scheduler that is not implemented now, not at the first picture.
        scheduler = checkpoint.read_config("scheduler", create_flow_scheduler)
        self._scheduler_name = type(scheduler).__name__
        self._join(
            self._text_encoder.component,
            self._text_encoder_2.component,
            self._denoiser.component,
            self._vae.component,
        )
        self._check_weights()

    @overload
    def text_to_image(
        self,
        prompt: str,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float | None = None,
        guidance_rescale: float = 0.0,
        prompt_syntax: str | None = None,
        prompt_chunks: int | None = None,
        clip_skip: int | None = None,
        num_images_per_prompt: Literal[1] = 1,
        seed: int | Sequence[int] | None = None,
        scheduler: str | None = None,
        eta: float = 0.0,
        latents: npt.NDArray[np.float32] | None = None,
        hires_scale: float | None = None,
        hires_strength: float | None = None,
        hires_upscaler: str | None = None,
        control_image: GivenPicture | Sequence[GivenPicture] | None = None,
        control_preprocess: str | Sequence[str | None] | None = None,
        controlnet_conditioning_scale: float | Sequence[float] | None = None,
        control_guidance_start: float | Sequence[float] | None = None,
        control_guidance_end: float | Sequence[float] | None = None,
        guess_mode: bool = False,
        ip_adapter_image: ImagePrompted | None = None,
        ip_adapter_scale: float | Sequence[float] | None = None,
        output_type: Literal["pil"] = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        prompt_2: str | Sequence[str] | None = None,
        negative_prompt_2: str | Sequence[str] | None = None,
        true_cfg_scale: float = 1.0,
        max_sequence_length: int | None = None,
    ) -> Image.Image: ...
    @overload
    def text_to_image(
        self,
        prompt: list[str] | tuple[str, ...],
        *,
        num_images_per_prompt: int = 1,
        output_type: Literal["pil"] = "pil",
        **settings: Unpack[FluxSettings],
    ) -> list[Image.Image]: ...
    @overload
    def text_to_image(
        self,
        prompt: str,
        *,
        num_images_per_prompt: int,
        output_type: Literal["pil"] = "pil",
        **settings: Unpack[FluxSettings],
    ) -> Image.Image | list[Image.Image]: ...
    @overload
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        num_images_per_prompt: int = 1,
        output_type: Literal["np", "latent"],
        **settings: Unpack[FluxSettings],
    ) -> npt.NDArray[np.float32]: ...
    @takes_fields_of(FluxRequest)
    def text_to_image(self, prompt: Any, *unnamed: Any, **settings: Any) -> Pictures:
        """Draw a prompt.

        Returns:
            One Pillow image for one picture, a list for several; an array for another
            ``output_type``.

        Raises:
            RequestError: A setting is unknown or not allowed.
            EngineError: A network failed.
            CancelledError: ``cancel`` was called.
        """
        return super().text_to_image(prompt, *unnamed, **settings)

    def _read_limits(self) -> ModelLimits:
        checkpoint, scale = self._checkpoint, self._vae.config.downscale
        family, is_guided = checkpoint.family, self._denoiser.config.guidance_embeds
        defaults = family.defaults if is_guided else family.unguided or family.defaults
        if self._fills:
            own = family.filling or defaults
            defaults = own if is_guided else own._replace(guidance_scale=0.0)
        size = defaults.sample_size * scale
        return ModelLimits(
            size,
            size,
            2 * scale,
            self._vae.config.latent_channels,
            defaults,
            sizes=checkpoint.sizes,
            model=str(checkpoint.path),
            is_packed=checkpoint.family.is_packed,
            needs_mask=self._fills,
        )

    @property
    def _latent_width(self) -> int:
        """Numbers of a token: of four latents."""
        return 4 * self._vae.config.latent_channels

    @property
    def _fill_width(self) -> int:
        """Numbers of a token with those of the masked picture, and of the mask's pixels."""
        return 2 * self._latent_width + 4 * self._vae.config.downscale**2

    @property
    def _fills(self) -> bool:
        """Whether the transformer is that of Flux Fill."""
        return self._denoiser.config.in_channels == self._fill_width

    def _list_joints(self) -> tuple[Joint, ...]:
        transformer = self._denoiser.config
        return (
            Joint(
                "text_encoder_2 gives",
                self._text_encoder_2.config.d_model,
                "numbers a token",
                "transformer",
                transformer.joint_attention_dim,
                "joint_attention_dim",
            ),
            Joint(
                "text_encoder gives",
                self._text_encoder.config.hidden_size,
                "numbers a text",
                "transformer",
                transformer.pooled_projection_dim,
                "pooled_projection_dim",
            ),
            Joint(
                "vae gives",
                self._fill_width if self._fills else self._latent_width,
                "numbers for four latents",
                "transformer",
                transformer.in_channels,
                "in_channels",
            ),
            Joint(
                "transformer gives",
                transformer.outputs,
                "numbers a token",
                "vae",
                self._latent_width,
                "four times latent_channels",
            ),
        )

    def _plan(self, request: GenerationRequest) -> FluxPlan:
        return plan_flux(request, self.config.defaults, self._limits)

    def _plan_steps(self, plan: FluxPlan) -> Scheduler[Any]:
        scheduler = create_flow_scheduler(self._scheduler_config)
        sigmas = plan.request.sigmas
        if isinstance(scheduler, FlowMatchHeunScheduler):
            steps = plan.num_inference_steps if sigmas is None else None
            scheduler.set_timesteps(steps, sigmas=sigmas)
            return scheduler
        if sigmas is None:
            steps = scheduler.check_steps(plan.num_inference_steps)
            sigmas = np.linspace(1.0, 1 / steps, steps).tolist()
        scheduler.set_timesteps(sigmas=sigmas, image_tokens=plan.latent_shape[0])
        return scheduler

    def _list_parts(self, plan: FluxPlan) -> Parts:
        tokens, text_tokens = plan.latent_shape[0], plan.max_sequence_length
        scale = self._vae.config.downscale
        first, second, denoiser, vae = (
            Part(each.component, signature, {})
            for each, signature in (
                (self._text_encoder, self._text_encoder.signature()),
                (self._text_encoder_2, self._text_encoder_2.signature(text_tokens)),
                (self._denoiser, self._denoiser.signature(tokens, text_tokens)),
                (self._vae, self._vae.signature(plan.height // scale, plan.width // scale)),
            )
        )
        return Parts((first, second), denoiser, vae)

    def _count_rows(self, plan: FluxPlan) -> int:
        return 1  # negative prompts run on their own

    def _draw_latents(self, plan: FluxPlan, generators: Sequence[TorchGenerator]) -> FloatArray:
        scale, channels = self._vae.config.downscale, self._vae.config.latent_channels
        shape = channels, plan.height // scale, plan.width // scale
        return self._pack(np.stack([generator.randn(shape) for generator in generators]))

    def _pack(self, latents: FloatArray) -> FloatArray:
        return pack(latents)

    def _unpack(self, plan: FluxPlan, latents: FloatArray) -> FloatArray:
        multiple = self._limits.multiple
        return unpack(latents, plan.height // multiple, plan.width // multiple)

    def _list_texts(self, plan: FluxPlan, *, negative: bool) -> Mapping[str, Texts]:
        texts = plan.negative_prompts if negative else plan.prompts
        texts_2 = plan.negative_prompts_2 if negative else plan.prompts_2
        return {
            "encoder_hidden_states": self._text_encoder_2.read(texts_2, plan.max_sequence_length),
            "pooled_projections": self._text_encoder.read_pooled(texts),
        }

    def _condition(
        self, plan: FluxPlan, embeddings: Mapping[str, FloatArray], *, negative: bool
    ) -> Mapping[str, FloatArray]:
        multiple = self._limits.multiple
        tensors = {
            **embeddings,
            "img_ids": list_positions(plan.height // multiple, plan.width // multiple),
            "txt_ids": np.zeros((plan.max_sequence_length, 3), np.float32),
        }
        if plan.is_distilled:
            tensors["guidance"] = np.array([plan.guidance_scale], np.float32)
        return tensors


def _check_config(config: DiffusionConfig) -> None:
    for name, given in (
        ("scheduler", config.scheduler),
        ("prediction_type", config.prediction_type),
        ("enable_dynamic_shape", config.enable_dynamic_shape or None),
    ):
        if given is not None:
            raise ConfigError(
                f"{name} is {given!r}, which Flux does not have",
                allowed="the checkpoint's own scheduler, and a build for each size",
                fix=f"leave {name} out",
            )
    if config.defaults.prompt_syntax == WEIGHTED:
        raise ConfigError(
            f"defaults.prompt_syntax is {WEIGHTED!r}: {NO_WEIGHTS}",
            allowed=PLAIN,
            fix="leave it out, and say in words what matters",
        )
    if config.controlnets:
        raise ConfigError(
            "controlnets are given, which Flux does not have",
            allowed="ControlNets with SD 1.x, SD 2.x and SDXL",
            fix="leave controlnets out",
        )
    if config.ip_adapters:
        raise ConfigError(
            "ip_adapters are given, which Flux does not have",
            allowed="IP-Adapters with SD 1.x, SD 2.x and SDXL",
            fix="leave ip_adapters out",
        )
    if "downsample-tokens" in (config.passes or ()):
        raise ConfigError(
            "passes has downsample-tokens, which would change nothing: Flux has no UNet",
            allowed="downsample-tokens for Stable Diffusion and SDXL",
            fix="leave it out",
        )
