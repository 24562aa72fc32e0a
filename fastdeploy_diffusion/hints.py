"""Hints for names of other tools: what to write here, or that a feature is not there yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Hint:
    """The answer to a name that this library does not have.

    Args:
        missing: That a feature is not there yet, as a clause; empty if it has another name here.
    """

    missing: str
    fix: str


_LEAVE = "leave it out"
# Feature, its names in diffusers and on command lines, and a workaround.
_NOT_YET = (
    ("ControlNet for Flux", "fluxcontrolnetpipeline fluxcontrolnetmodel", _LEAVE),
    ("T2I-Adapter", "t2i_adapter stablediffusionadapterpipeline", _LEAVE),
    ("giving image prompts as embeddings", "ip_adapter_image_embeds", "give the pictures"),
    (
        "textual inversion",
        "textual_inversion load_textual_inversion unload_textual_inversion",
        _LEAVE,
    ),
    (
        "upscaling by a network",
        "upscale esrgan realesrgan stablediffusionupscalepipeline",
        "hires_scale=2 enlarges the picture and draws over it",
    ),
    ("FreeU", "freeu enable_freeu disable_freeu", _LEAVE),
    (
        "giving prompts as embeddings",
        "prompt_embeds negative_prompt_embeds pooled_prompt_embeds negative_pooled_prompt_embeds",
        "give the texts; their embeddings are kept from one request to the next",
    ),
    (
        "int4",
        "int4 fp8 nf4 quantization_config load_in_8bit load_in_4bit",
        "precision='int8-weights' takes a quarter of the memory, 'bf16' or 'fp16' half",
    ),
    (
        "a server",
        "serve server api webui ui gradio listen",
        "call pipeline.text_to_image or pipeline.stream from yours",
    ),
)
# Names in diffusers, and what to write here.
_ELSEWHERE = (
    (
        "prompts_file prompt_file prompts_from_file from_file",
        "generate --prompts FILE on the command line, or read_prompt_file of "
        "fastdeploy_diffusion.requests.prompt_file",
    ),
    ("init_image init_img", "image=…, in pipeline.image_to_image(prompt, image)"),
    ("mask_image", "mask=…, in pipeline.inpaint(prompt, image, mask)"),
    (
        "inpainting fluxinpaintpipeline fluxfillpipeline",
        "the pipeline of text to image, with pipeline.inpaint(prompt, image, mask)",
    ),
    (
        "img2img stablediffusionimg2imgpipeline fluximg2imgpipeline",
        "the pipeline of text to image, with pipeline.image_to_image(prompt, image)",
    ),
    (
        "controlnet control_net load_controlnet controlnetmodel stablediffusioncontrolnetpipeline "
        "stablediffusioncontrolnetimg2imgpipeline stablediffusionxlcontrolnetpipeline "
        "stablediffusionxlcontrolnetimg2imgpipeline stablediffusioncontrolnetinpaintpipeline "
        "stablediffusionxlcontrolnetinpaintpipeline",
        "controlnets=['/models/controlnet'] in DiffusionConfig, and control_image=… of a request",
    ),
    (
        "ip_adapter load_ip_adapter unload_ip_adapter",
        "ip_adapters=['/models/ip-adapter.safetensors'] in DiffusionConfig, and "
        "ip_adapter_image=… of a request",
    ),
    (
        "lora loras lora_path lora_scale load_lora load_lora_weights fuse_lora load_attn_procs "
        "set_adapters",
        "pipeline.load_lora('/models/lora.safetensors', strength=0.8), --lora FILE:0.8, or "
        "adapters in DiffusionConfig",
    ),
    ("unload_lora_weights unfuse_lora disable_lora delete_adapters", "pipeline.unload_lora()"),
    ("image_encoder image_encoder_folder", "image_encoder_path of ip_adapters in DiffusionConfig"),
    ("set_ip_adapter_scale", "ip_adapter_scale=… of a request, or scale of ip_adapters"),
    (
        "vae_tiling enable_vae_tiling disable_vae_tiling enable_tiling",
        "vae_tiling='auto', 'exact', 'blended' or 'off' in DiffusionConfig",
    ),
    (
        "vae_slicing enable_vae_slicing disable_vae_slicing",
        "leave it out: pictures are decoded one at a time",
    ),
    (
        "refiner refiner_model refiner_checkpoint stablediffusionxlimg2imgpipeline",
        "refiner='/models/stable-diffusion-xl-refiner-1.0' in DiffusionConfig, and the base model "
        "as model_path; the refiner alone opens with SDXLPipeline, for image_to_image",
    ),
    (
        "refiner_switch_at switch_at denoising_start denoising_end aesthetic_score",
        "denoising_end=0.8 in SDXLPipeline.text_to_image, with refiner in DiffusionConfig",
    ),
    (
        "hires hires_fix enable_hr hr_scale hr_upscaler upscaler hr_second_pass_steps",
        "hires_scale=2 in pipeline.text_to_image, with hires_strength and hires_upscaler",
    ),
    ("preview previews", "event.preview() of pipeline.stream, with tiny_vae_path"),
    ("to cuda device_map", "device='gpu' in DiffusionConfig, when the pipeline is made"),
    ("torch_dtype dtype half bfloat16", "precision='fp16' or 'bf16' in DiffusionConfig"),
    ("scheduler", "scheduler='euler' or another in DiffusionConfig, when the pipeline is made"),
    (
        "safety_checker requires_safety_checker feature_extractor",
        "leave it out: there is none here",
    ),
    (
        "enable_model_cpu_offload enable_sequential_cpu_offload enable_group_offload "
        "low_cpu_mem_usage",
        "memory='staged' in DiffusionConfig, or 'streamed' for Flux",
    ),
    (
        "enable_attention_slicing disable_attention_slicing "
        "enable_xformers_memory_efficient_attention disable_xformers_memory_efficient_attention "
        "compile",
        "leave it out: engines choose how they compute",
    ),
    (
        "emphasis prompt_weighting prompt_weights compel max_embeddings_multiples",
        "prompt_syntax='weighted', which reads (word:1.3), [word], BREAK and long prompts",
    ),
    ("fuse_qkv_projections", "passes=['merge-qkv', 'merge-kv'] in DiffusionConfig"),
    (
        "set_progress_bar_config progress_bar disable_progress_bar",
        "leave it out; pipeline.stream(prompt) gives an event after each step",
    ),
    (
        "unet transformer vae text_encoder text_encoder_2 tokenizer components",
        "pipeline.report.components says what runs; sections of DiffusionConfig choose it",
    ),
    ("use_safetensors", "leave it out: weights are read from .safetensors files only"),
    (
        "revision token use_auth_token local_files_only force_download",
        "leave it out, and give the path of a folder or file of this machine",
    ),
    ("custom_pipeline", "use SDPipeline, SDXLPipeline or FluxPipeline"),
    ("save_pretrained", "checkpoints are only read; what is built of them is kept in the cache"),
    ("from_pipe", "make a pipeline from the DiffusionConfig of the other"),
    ("encode_prompt", "pipeline.text_to_image(prompt), which encodes it"),
    ("interrupt", "pipeline.cancel()"),
    ("generator", "seed=…, the one that was given to manual_seed"),
    ("return_dict", "leave it out: pipeline(prompt) gives an object with .images"),
)

HINTS: Mapping[str, Hint] = MappingProxyType(
    {
        **{
            name: Hint(f"{feature} is not there yet", fix)
            for feature, names, fix in _NOT_YET
            for name in names.split()
        },
        **{name: Hint("", fix) for names, fix in _ELSEWHERE for name in names.split()},
    }
)
"""By the name in other tools, in lower case with ``_``."""


def find_hint(name: str) -> Hint | None:
    """Find the hint for an attribute, argument, option or command of another tool."""
    return HINTS.get(name.strip().lstrip("-").lower().replace("-", "_"))
