"""Stable Diffusion XL (Podell et al., 2023), the base model."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from typing_extensions import Unpack, overload

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.pictures_in import GivenPicture
from fastdeploy_diffusion.pipelines.component_fit import Joint
from fastdeploy_diffusion.pipelines.config_argument import ConfigLike, read_config_argument
from fastdeploy_diffusion.pipelines.opening import open_for
from fastdeploy_diffusion.pipelines.tokenizer_folders import find_tokenizers
from fastdeploy_diffusion.pipelines.unet_pipeline import UNetPipeline
from fastdeploy_diffusion.predictors.loop import FloatArray
from fastdeploy_diffusion.predictors.result import Pictures
from fastdeploy_diffusion.predictors.text_encoder import HIDDEN, CLIPTextEncoder
from fastdeploy_diffusion.predictors.texts import Texts
from fastdeploy_diffusion.requests.request import GenerationRequest, StepCallback
from fastdeploy_diffusion.requests.sdxl_request import SDXLPlan, SDXLRequest, plan_sdxl
from fastdeploy_diffusion.requests.settings import SDXLSettings, takes_fields_of
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.tokenizers import CLIPTokenizer

_ZEROS = "force_zeros_for_empty_prompt"


class SDXLPipeline(UNetPipeline[SDXLPlan]):
    """Text to image with a checkpoint of Stable Diffusion XL; its refiner is not implemented.

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
        self._has_zeros = self._checkpoint.pipeline_options.get(_ZEROS, True)
        if not isinstance(self._has_zeros, bool):
            raise CheckpointError(
                f"{self._checkpoint.path / 'model_index.json'}: {_ZEROS} is "
                f"{show(self._has_zeros)}",
                allowed="true, false",
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
        control_image: GivenPicture | Sequence[GivenPicture] | None = None,
        controlnet_conditioning_scale: float | Sequence[float] | None = None,
        control_guidance_start: float | Sequence[float] | None = None,
        control_guidance_end: float | Sequence[float] | None = None,
        guess_mode: bool = False,
        output_type: Literal["pil"] = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        prompt_2: str | Sequence[str] | None = None,
        negative_prompt_2: str | Sequence[str] | None = None,
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

    def _open_text_encoders(self) -> tuple[CLIPTextEncoder, ...]:
        checkpoint, config = self._checkpoint, self.config
        first, second = (
            CLIPTokenizer.from_folder(folder) for folder in find_tokenizers(checkpoint, config)
        )
        self._text_encoder = CLIPTextEncoder(checkpoint, config, first, HIDDEN)
        self._text_encoder_2 = CLIPTextEncoder(checkpoint, config, second, HIDDEN, "text_encoder_2")
        return self._text_encoder, self._text_encoder_2

    def _list_joints(self) -> tuple[Joint, ...]:
        unet, first, second = self._denoiser.config, self._text_encoder, self._text_encoder_2
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
                "text_encoder and text_encoder_2 together give",
                first.config.hidden_size + second.config.hidden_size,
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
        return self._fit_chunks(plan)

    def _list_texts(self, plan: SDXLPlan, *, negative: bool) -> Mapping[str, Texts]:
        if negative and plan.has_zero_negative:
            return {}
        # As in diffusers, layers are skipped for prompts, and never for negative prompts.
        clip_skip = 0 if negative else plan.request.clip_skip or 0
        texts = plan.negative_prompts if negative else plan.prompts
        texts_2 = plan.negative_prompts_2 if negative else plan.prompts_2
        return {
            "first": self._text_encoder.read(texts, clip_skip, plan.prompt_chunks),
            "second": self._text_encoder_2.read(texts_2, clip_skip, plan.prompt_chunks),
            "pooled": self._text_encoder_2.read_pooled(texts_2, plan.prompt_chunks),
        }

    def _condition(
        self, plan: SDXLPlan, embeddings: Mapping[str, FloatArray], *, negative: bool
    ) -> Mapping[str, FloatArray]:
        sizes = plan.negative_sizes if negative else plan.sizes
        if embeddings:
            both = [embeddings["first"], embeddings["second"]]
            features, pooled = np.concatenate(both, axis=-1), embeddings["pooled"]
        else:
            tokens = self._text_encoder.tokenizer.max_length * plan.chunks
            width = self._denoiser.config.context_dims[0]
            features = np.zeros((1, tokens, width), np.float32)
            pooled = np.zeros((1, self._text_encoder_2.pooled_dim), np.float32)
        return {
            "encoder_hidden_states": features,
            "text_embeds": pooled,
            "time_ids": np.array([sizes], np.float32),
        }
