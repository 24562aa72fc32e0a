"""Stable Diffusion XL (Podell et al., 2023): the base model, its refiner, and both together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from typing_extensions import Unpack, overload

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.engines.plan import ComponentPlan
from fastdeploy_diffusion.errors import CheckpointError, ConfigError, UnsupportedModelError
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.pictures_in import GivenPicture, ImagePrompted
from fastdeploy_diffusion.pipelines.component_fit import Joint, check_fit
from fastdeploy_diffusion.pipelines.config_argument import ConfigLike, read_config_argument
from fastdeploy_diffusion.pipelines.opening import open_for
from fastdeploy_diffusion.pipelines.refiner import configure_refiner, cut_schedule
from fastdeploy_diffusion.pipelines.tokenizer_folders import find_tokenizers
from fastdeploy_diffusion.pipelines.unet_pipeline import UNetPipeline
from fastdeploy_diffusion.predictors.denoising import OF_REFINER
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
from fastdeploy_diffusion.predictors.loop import FloatArray
from fastdeploy_diffusion.predictors.result import Pictures, PipelineReport
from fastdeploy_diffusion.predictors.text_encoder import HIDDEN, CLIPTextEncoder
from fastdeploy_diffusion.predictors.texts import EmbeddingReport, Texts
from fastdeploy_diffusion.requests.request import GenerationRequest, StepCallback
from fastdeploy_diffusion.requests.sdxl_request import (
    SDXLPlan,
    SDXLRequest,
    plan_refinement,
    plan_sdxl,
    require_beginning,
)
from fastdeploy_diffusion.requests.settings import SDXLSettings, takes_fields_of
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.tokenizers import CLIPTokenizer

_ZEROS = "force_zeros_for_empty_prompt"
_SCORES = "requires_aesthetics_score"
_COSXL = "is_cosxl_edit"


class SDXLPipeline(UNetPipeline[SDXLPlan]):
    """Text to image with a checkpoint of Stable Diffusion XL.

    With a refiner in the configuration, that draws the last steps (eDiff-I's ensemble of experts,
    Balaji et al., 2022). A refiner's own checkpoint draws over pictures.

    Args:
        config: Which checkpoint, and what to run it on; or the checkpoint's path.
        checkpoint: That checkpoint, if it is open already.
        **options: Those of a `DiffusionConfig`, where none is given.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        UnsupportedModelError: It is of another family, its parts do not fit together, or its
            configs have options that are not implemented.
        ConfigError: An option that SDXL does not have.
        EngineUnavailableError: What was asked for cannot run here, and ``cpu_fallback`` is off.
    """

    request_class = SDXLRequest

    def __init__(
        self,
        config: ConfigLike | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        **options: Any,
    ) -> None:
        config = read_config_argument(config, options)
        super().__init__(*open_for("SDXLPipeline", config, checkpoint))
        self._check_joints(*self._list_joints())
        self._check_weights()
        self._has_zeros = self._read_option(_ZEROS, default=True)
        is_refiner = self._checkpoint.family.is_refiner
        if self._read_option(_SCORES, default=False) != is_refiner:
            raise UnsupportedModelError(
                f"{self._checkpoint.path}: {_SCORES} is {str(not is_refiner).lower()}",
                allowed="true for a refiner, which has text_encoder_2 alone; false for others",
                fix="take model_index.json that this model was published with",
            )
        if is_refiner and self.config.list_quantized():
            raise ConfigError(
                f"int8 is asked for, and {self._checkpoint.path} is a refiner: int8 is calibrated "
                "by pictures of texts alone, and it draws none",
                allowed="precisions of floating point",
                fix="precision='bf16' or 'fp16' takes half the memory",
            )
        if self._read_option(_COSXL, default=False):
            self._edit_scale = self._vae.config.scaling_factor
        self._refiner = None if self.config.refiner is None else self._open_refiner()
        self._limits = replace(
            self._limits,
            is_refiner=is_refiner,
            refined_from=self.config.refiner.denoising_end if self.config.refiner else None,
        )

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
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        aesthetic_score: float | None = None,
        negative_aesthetic_score: float | None = None,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] | None = None,
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | None = None,
        negative_target_size: tuple[int, int] | None = None,
    ) -> Image.Image: ...
    @overload
    def text_to_image(
        self,
        prompt: list[str] | tuple[str, ...],
        *,
        num_images_per_prompt: int = 1,
        output_type: Literal["pil"] = "pil",
        **settings: Unpack[SDXLSettings],
    ) -> list[Image.Image]: ...
    @overload
    def text_to_image(
        self,
        prompt: str,
        *,
        num_images_per_prompt: int,
        output_type: Literal["pil"] = "pil",
        **settings: Unpack[SDXLSettings],
    ) -> Image.Image | list[Image.Image]: ...
    @overload
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        num_images_per_prompt: int = 1,
        output_type: Literal["np", "latent"],
        **settings: Unpack[SDXLSettings],
    ) -> npt.NDArray[np.float32]: ...
    @takes_fields_of(SDXLRequest)
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

    def _read_option(self, name: str, *, default: bool) -> bool:
        given = self._checkpoint.pipeline_options.get(name, default)
        if not isinstance(given, bool):
            raise CheckpointError(
                f"{self._checkpoint.path / 'model_index.json'}: {name} is {show(given)}",
                allowed="true, false",
            )
        return given

    def _open_refiner(self) -> "SDXLPipeline":
        refiner = SDXLPipeline(configure_refiner(self.config))
        if not refiner.checkpoint.family.is_refiner:
            raise UnsupportedModelError(
                f"refiner is {refiner.checkpoint.path}, a checkpoint of the family "
                f"{refiner.checkpoint.family.name}",
                allowed="SDXL's refiner, which has text_encoder_2 alone",
            )
        own, other = self._vae.config, refiner.latents
        check_fit(
            refiner.checkpoint.path,
            Joint(
                "the base model's vae gives",
                own.latent_channels,
                "channels",
                "the refiner",
                other.latent_channels,
                "latent_channels",
            ),
            Joint(
                "the base model's vae shrinks by",
                own.downscale,
                "pixels",
                "the refiner's",
                other.downscale,
                "block_out_channels",
            ),
        )
        return refiner

    @property
    def latents(self) -> AutoencoderKLConfig:
        """The config of the autoencoder, which says what latents are."""
        return self._vae.config

    @property
    def refiner(self) -> "SDXLPipeline | None":
        """The refiner's pipeline, if there is one."""
        return self._refiner

    @property
    def report(self) -> PipelineReport:
        """The components, as they really run; those of the refiner at the end."""
        report = super().report
        if self._refiner is None:
            return report
        own = self._refiner.report.components
        more = (replace(each, name=OF_REFINER + each.name) for each in own)
        return replace(report, components=(*report.components, *more))

    def build(
        self,
        height: int | None = None,
        width: int | None = None,
        *,
        chunks: int | None = None,
        shown: int | None = None,
        encoder: bool = False,
        control: bool = True,
    ) -> PipelineReport:
        """Build everything for pictures of a size, of the refiner, too; as of all pipelines."""
        super().build(height, width, chunks=chunks, shown=shown, encoder=encoder, control=control)
        if self._refiner is not None:
            size = self.choose_size(height, width)
            self._refiner.build(size[1], size[0], chunks=chunks)
        return self.report

    def find_plans(self) -> tuple[ComponentPlan | None, ...]:
        """Look up each component's plan of ``tune``, those of the refiner at the end."""
        more = self._refiner.find_plans() if self._refiner else ()
        named = (each and replace(each, component=OF_REFINER + each.component) for each in more)
        return (*super().find_plans(), *named)

    def tune(
        self,
        height: int | None = None,
        width: int | None = None,
        *,
        encoder: bool = False,
        runs: int = 5,
        show: Callable[[str, int, int], None] | None = None,
    ) -> list[ComponentPlan]:
        """Measure every way to run each component, then of the refiner; as of all pipelines."""
        plans = super().tune(height, width, encoder=encoder, runs=runs, show=show)
        if self._refiner is None:
            return plans
        width, height = self.choose_size(height, width)
        more = self._refiner.tune(height, width, runs=runs, show=show)
        return plans + [replace(each, component=OF_REFINER + each.component) for each in more]

    def close(self) -> None:
        """Free the engines' memory; a later request builds again."""
        super().close()
        if self._refiner is not None:
            self._refiner.close()

    def _open_text_encoders(self) -> tuple[CLIPTextEncoder, ...]:
        checkpoint, config = self._checkpoint, self.config
        folders = find_tokenizers(checkpoint, config)
        tokenizers = [CLIPTokenizer.from_folder(folder) for folder in folders]
        second = tokenizers[-1]
        self._text_encoder_2 = CLIPTextEncoder(checkpoint, config, second, HIDDEN, "text_encoder_2")
        if checkpoint.family.is_refiner:
            return (self._text_encoder_2,)
        first = CLIPTextEncoder(checkpoint, config, tokenizers[0], HIDDEN)
        return first, self._text_encoder_2

    def _list_joints(self) -> tuple[Joint, ...]:
        unet, (first, *_), second = (
            self._denoiser.config,
            self._text_encoders,
            self._text_encoder_2,
        )
        names = " and ".join(each.component.name for each in self._text_encoders)
        return (
            Joint(
                "tokenizer_2 gives",
                second.tokenizer.max_length,
                "tokens a text",
                "tokenizer",
                first.tokenizer.max_length,
                "model_max_length",
            ),
            Joint(
                f"{names} give" if first is second else f"{names} together give",
                sum(each.config.hidden_size for each in self._text_encoders),
                "numbers a token",
                "unet",
                unet.context_dims[0],
                "cross_attention_dim",
            ),
            Joint(
                "text_encoder_2 gives",
                second.pooled_dim,
                "numbers a text",
                "unet",
                unet.text_embeds_dim,
                "projection_class_embeddings_input_dim without the sizes",
            ),
        )

    def _plan(self, request: GenerationRequest) -> SDXLPlan:
        plan = plan_sdxl(request, self.config.defaults, self._limits, has_zeros=self._has_zeros)
        for each in self._text_encoders:
            each.check_clip_skip(request.clip_skip or 0)
        plan = self._fit_chunks(plan)
        if self._refiner is None or plan.denoising_end in (None, 1):
            return plan
        # A refiner's plan takes any beginning: it gets latents.
        return replace(plan, second=self._refiner._plan(plan_refinement(plan)))

    def _plan_drawing(self, request: GenerationRequest) -> SDXLPlan:
        require_beginning(request, self._limits)
        return super()._plan_drawing(request)

    def _find_second(self, plan: SDXLPlan) -> DiffusionPredictor[Any]:
        refines = self._refiner is not None and plan.second.is_handed_over
        return self._refiner if refines and self._refiner else super()._find_second(plan)

    def _start_scheduler(self, plan: SDXLPlan) -> Scheduler[Any]:
        is_late = plan.is_handed_over
        scheduler = self._plan_steps(plan) if is_late else super()._start_scheduler(plan)
        cut_schedule(scheduler, plan.denoising_start, plan.denoising_end)
        return scheduler

    def _describe_run(
        self, plan: SDXLPlan, embeddings: Sequence[EmbeddingReport]
    ) -> dict[str, Any]:
        run = super()._describe_run(plan, embeddings)
        if self._refiner is None or plan.second is None or plan.hires is not None:
            return run
        return {**run, "refiner": self._refiner._describe_run(plan.second, ())}

    def _list_texts(self, plan: SDXLPlan, *, negative: bool) -> Mapping[str, Texts]:
        if negative and plan.has_zero_negative:
            return {}
        # As in diffusers, layers are skipped for prompts, and never for negative prompts.
        clip_skip = 0 if negative else plan.request.clip_skip or 0
        texts = plan.negative_prompts if negative else plan.prompts
        first, second = self._text_encoders[0], self._text_encoder_2
        if first is second:  # a refiner
            return {
                "second": second.read(texts, clip_skip, plan.prompt_chunks),
                "pooled": second.read_pooled(texts, plan.prompt_chunks),
            }
        texts_2 = plan.negative_prompts_2 if negative else plan.prompts_2
        return {
            "first": first.read(texts, clip_skip, plan.prompt_chunks),
            "second": self._text_encoder_2.read(texts_2, clip_skip, plan.prompt_chunks),
            "pooled": self._text_encoder_2.read_pooled(texts_2, plan.prompt_chunks),
        }

    def _condition(
        self, plan: SDXLPlan, embeddings: Mapping[str, FloatArray], *, negative: bool
    ) -> Mapping[str, FloatArray]:
        sizes = plan.negative_sizes if negative else plan.sizes
        if embeddings:
            read = [embeddings[name] for name in ("first", "second") if name in embeddings]
            features, pooled = np.concatenate(read, axis=-1), embeddings["pooled"]
        else:
            tokens = self._text_encoder_2.tokenizer.max_length * plan.chunks
            width = self._denoiser.config.context_dims[0]
            features = np.zeros((1, tokens, width), np.float32)
            pooled = np.zeros((1, self._text_encoder_2.pooled_dim), np.float32)
        return {
            "encoder_hidden_states": features,
            "text_embeds": pooled,
            "time_ids": np.array([sizes], np.float32),
        }
