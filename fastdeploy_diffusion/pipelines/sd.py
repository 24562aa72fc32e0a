"""Stable Diffusion 1.x and 2.x (Rombach et al., 2022)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from typing_extensions import Unpack, overload

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.pictures_in import GivenPicture, ImagePrompted
from fastdeploy_diffusion.pipelines.component_fit import Joint
from fastdeploy_diffusion.pipelines.config_argument import ConfigLike, read_config_argument
from fastdeploy_diffusion.pipelines.opening import open_for
from fastdeploy_diffusion.pipelines.tokenizer_folders import find_tokenizers
from fastdeploy_diffusion.pipelines.unet_pipeline import UNetPipeline
from fastdeploy_diffusion.predictors.result import Pictures
from fastdeploy_diffusion.predictors.text_encoder import NORMALIZED, CLIPTextEncoder
from fastdeploy_diffusion.predictors.texts import Texts
from fastdeploy_diffusion.requests.plan import GenerationPlan, plan_generation
from fastdeploy_diffusion.requests.request import GenerationRequest, StepCallback
from fastdeploy_diffusion.requests.settings import Settings, takes_fields_of
from fastdeploy_diffusion.schedulers.outdated import correct_outdated
from fastdeploy_diffusion.tokenizers import CLIPTokenizer


class SDPipeline(UNetPipeline[GenerationPlan]):
    """Text to image with a Stable Diffusion 1.x or 2.x checkpoint.

    Args:
        config: Which checkpoint, and what to run it on; or the checkpoint's path.
        checkpoint: That checkpoint, if it is open already.
        **options: Those of a `DiffusionConfig`, where none is given.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        UnsupportedModelError: It is of another family, or its configs have options that are not
            implemented.
        ConfigError: An option that Stable Diffusion does not have.
        EngineUnavailableError: What was asked for cannot run here, and ``cpu_fallback`` is off.

    Example:
        >>> pipeline = SDPipeline(DiffusionConfig.from_preset("shapes"))
        >>> image = pipeline.text_to_image("a large red circle on a blue background", seed=1)
        >>> image.save("circle.png")
    """

    def __init__(
        self,
        config: ConfigLike | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        **options: Any,
    ) -> None:
        config = read_config_argument(config, options)
        super().__init__(*open_for("SDPipeline", config, checkpoint))
        if self._denoiser.config.text_embeds_dim is not None:
            raise UnsupportedModelError(
                f"{self._checkpoint.path}: the UNet wants the pooled text and the sizes of SDXL "
                "(addition_embed_type is 'text_time')",
                allowed="a UNet of Stable Diffusion 1.x or 2.x",
                fix="use the components of one text-to-image checkpoint",
            )
        self._check_joints(
            Joint(
                "text_encoder gives",
                self._text_encoder.config.hidden_size,
                "numbers a token",
                "unet",
                self._denoiser.config.context_dims[0],
                "cross_attention_dim",
            )
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
    ) -> Image.Image: ...
    @overload
    def text_to_image(
        self,
        prompt: list[str] | tuple[str, ...],
        *,
        num_images_per_prompt: int = 1,
        output_type: Literal["pil"] = "pil",
        **settings: Unpack[Settings],
    ) -> list[Image.Image]: ...
    @overload
    def text_to_image(
        self,
        prompt: str,
        *,
        num_images_per_prompt: int,
        output_type: Literal["pil"] = "pil",
        **settings: Unpack[Settings],
    ) -> Image.Image | list[Image.Image]: ...
    @overload
    def text_to_image(
        self,
        prompt: str | Sequence[str],
        *,
        num_images_per_prompt: int = 1,
        output_type: Literal["np", "latent"],
        **settings: Unpack[Settings],
    ) -> npt.NDArray[np.float32]: ...
    @takes_fields_of(GenerationRequest)
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

    def _read_scheduler_config(self) -> dict[str, Any]:
        config = super()._read_scheduler_config()
        file = f"{self._checkpoint.path}: scheduler_config.json"
        return self._checkpoint.read_config("scheduler", lambda _: correct_outdated(config, file))

    def _open_text_encoders(self) -> tuple[CLIPTextEncoder, ...]:
        (folder,) = find_tokenizers(self._checkpoint, self.config)
        tokenizer = CLIPTokenizer.from_folder(folder)
        self._text_encoder = CLIPTextEncoder(self._checkpoint, self.config, tokenizer, NORMALIZED)
        return (self._text_encoder,)

    def _plan(self, request: GenerationRequest) -> GenerationPlan:
        asked = GenerationRequest.widen(request)
        plan = plan_generation(asked, self.config.defaults, self._limits)
        self._text_encoder.check_clip_skip(request.clip_skip or 0)
        return self._fit_chunks(plan)

    def _list_texts(self, plan: GenerationPlan, *, negative: bool) -> Mapping[str, Texts]:
        # As in diffusers, layers are skipped for prompts, and never for negative prompts.
        clip_skip = 0 if negative else plan.request.clip_skip or 0
        texts = plan.negative_prompts if negative else plan.prompts
        read = self._text_encoder.read(texts, clip_skip, plan.prompt_chunks)
        return {"encoder_hidden_states": read}
