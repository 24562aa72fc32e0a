"""The fields of requests: meaning, range and flag of each.

Flags, range checks, PNG metadata, defaults of a configuration, docstrings and the tables in docs
are made of it. Types and defaults stand in the requests' classes, where type checkers read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

_LARGEST_SEED = 2**64 - 1
PLAIN, WEIGHTED = "plain", "weighted"
PROMPT_SYNTAXES = (PLAIN, WEIGHTED)
HIRES_UPSCALERS = ("lanczos", "latent")
CONTROL_PREPROCESSORS = ("canny",)
MOST_CHUNKS = 32
"""Of one prompt: 2400 tokens of CLIP."""


@dataclass(frozen=True)
class RequestField:
    """One field, for all families that have it; names of others stand in backticks.

    Args:
        about: Its meaning, in a few words.
        more: Details.
        form: Details, in Python only.
        left_out: The default without one in request, configuration and preset.
        kind: Of a value in a PNG file and of the flag's; ``None`` if neither has it.
        least: The smallest number that is allowed.
        most: The largest.
        flag: On the command line.
        families: Those that have it; all, if empty.
        choices: The only values of a text; any, if empty.
        is_noted: Whether a PNG file has it; of given pictures, it has digests.
    """

    about: str
    more: str = ""
    form: str = ""
    left_out: str = "none"
    kind: type | None = str
    least: int | None = None
    most: int | None = None
    flag: str = ""
    families: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    is_noted: bool = True

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.least is None:
            return ", ".join(self.choices) or ("true, false" if self.kind is bool else "text")
        if self.most == _LARGEST_SEED:
            return "a whole number from -2**63 to 2**64 - 1"
        if self.kind is int and self.most is not None:
            return f"{self.least} to {self.most}"
        number = "a number" if self.kind is float else "a whole number"
        return f"{number} of {self.least} " + (
            "or more" if self.most is None else f"to {self.most}"
        )

    def fits(self, value: Any) -> bool:
        """Tell whether a number is in the range; NaN never is."""
        is_above = self.least is not None and value >= self.least
        return bool(is_above and (self.most is None or value <= self.most))

    @property
    def text(self) -> str:
        """The description for callers in Python."""
        has_range = self.least is not None and self.kind is not list
        about = f"{self.about}, {self.allowed}" if has_range else self.about
        return "; ".join(filter(None, (about, self.more, self.form)))


# Predictions have values of about 1 to 10. Beyond this, guided predictions overflow
# float16 (65504); pictures are burnt out from about 50 on.
_LARGEST_GUIDANCE = 1000


def _text(about: str, more: str = "", **others: Any) -> RequestField:
    return RequestField(about, more, "one text for all prompts, or one each", **others)


def _pixels(name: str) -> RequestField:
    more = "a multiple of 8, or of the model's autoencoder's factor; of 16 on Flux"
    trained = "the size that the model was trained at"
    about = f"{name} of the picture in pixels"
    return RequestField(about, more, "", trained, int, least=1, flag=f"--{name}")


def _number(about: str, more: str, left_out: str, most: int, **others: Any) -> RequestField:
    return RequestField(about, more, "", left_out, float, least=0, most=most, **others)


def _whole(about: str, more: str, left_out: str, least: int, **others: Any) -> RequestField:
    return RequestField(about, more, left_out=left_out, kind=int, least=least, **others)


def _pair(about: str, left_out: str, least: int = 1) -> RequestField:
    largest = 1_000_000
    return RequestField(about, "", "", left_out, list, least, largest, families=("SDXL",))


def _picture(about: str, more: str, **others: Any) -> RequestField:
    form = "a Pillow image, a path, the bytes of a file, or an array; one for all prompts, or a "
    form += "list with one each"
    return RequestField(about, more, form, is_noted=False, **others)


def _control(about: str, left_out: str, most: int, flag: str) -> RequestField:
    form = "one number, or a list with one for each ControlNet"
    return RequestField(about, "not on Flux", form, left_out, float, 0, most, flag)


def _unkept(about: str, form: str, left_out: str = "none") -> RequestField:
    return RequestField(about, "", form, left_out, kind=None)


FIELDS: Mapping[str, RequestField] = MappingProxyType(
    {
        "prompt": RequestField("what to draw", "", "one text, or a list", "required"),
        "negative_prompt": _text(
            "what not to draw",
            "on Flux, with a `true_cfg_scale` above 1",
            left_out="empty",
            flag="--negative-prompt",
        ),
        "height": _pixels("height"),
        "width": _pixels("width"),
        "num_inference_steps": _whole(
            "number of denoising steps",
            "as many as the model was trained on (1000) at most",
            "50; FLUX.1-dev 28, FLUX.1-schnell 4",
            least=1,
            flag="--steps",
        ),
        "timesteps": RequestField(
            "timestep of each step, in place of `num_inference_steps`",
            "with `ddpm`, `euler`, `heun`, `lcm`, `tcd`, `dpm-solver`, `dpm-solver-singlestep`; "
            "not on Flux",
            "descending numbers",
            left_out="spaced by the scheduler",
            kind=list,
        ),
        "sigmas": RequestField(
            "noise level before each step, and after the last, in place of `num_inference_steps`",
            "with `euler`; on Flux, the share of noise before each step, before the scheduler "
            "shifts it, falling from 1",
            "descending numbers",
            left_out="spaced by the scheduler",
            kind=list,
        ),
        "guidance_scale": _number(
            "weight of the prompt (Ho & Salimans, 2022)",
            "1 or less turns guidance off, which halves the work; FLUX.1-dev has learnt it and "
            "costs the same with any, FLUX.1-schnell takes none",
            "7.5; SDXL 5, with a mask 7.5; FLUX.1-dev 3.5, with a picture 7",
            most=_LARGEST_GUIDANCE,
            flag="--guidance-scale",
        ),
        "guidance_rescale": _number(
            "how far to undo the contrast that guidance adds (Lin et al., 2023, section 3.4)",
            "not on Flux",
            "0",
            most=1,
        ),
        "prompt_syntax": RequestField(
            "`plain` reads prompts as they are; `weighted` reads `(word:1.3)`, `[word]` and "
            "`BREAK`, and prompts of any length",
            "not on Flux",
            left_out="`plain`",
            flag="--prompt-syntax",
            choices=PROMPT_SYNTAXES,
        ),
        "prompt_chunks": _whole(
            "least number of chunks of 75 tokens: shorter prompts are filled up with empty ones",
            "with the syntax `weighted`, not on Flux",
            "as many as the request's longest prompt needs",
            least=1,
            most=MOST_CHUNKS,
            flag="--prompt-chunks",
        ),
        "clip_skip": _whole("last layers of CLIP to leave out", "not on Flux", "none", least=0),
        "num_images_per_prompt": RequestField(
            "pictures of each prompt", left_out="1", kind=None, least=1
        ),
        "seed": _whole(
            "seed of the noise",
            "picture i is drawn from the seed + i",
            "drawn at random, and noted in the picture",
            least=-(2**63),
            most=_LARGEST_SEED,
            form="or one for each picture, in a list or an array",
            flag="--seed",
        ),
        "scheduler": RequestField(
            "scheduler of this request in place of the pipeline's",
            "`ddim`, `euler` … or a sampler's name; not on Flux",
            left_out="the pipeline's",
        ),
        "eta": _number(
            "share of the noise", "only with the schedulers `ddim` and `tcd`", "0", most=1
        ),
        "latents": _unkept(
            "first latents in place of those of the seed",
            "standard normal, (pictures, 4, H/8, W/8) float32 numpy; packed on Flux, (pictures, "
            "H/16 · W/16, 64)",
            "drawn from the seed",
        ),
        "image": _picture(
            "picture to start from", "laid on white where it is transparent", flag="--image"
        ),
        "strength": _number(
            "share of the steps that change the given picture",
            "above 0; with 1, little but its colours is left",
            "0.8; SDXL 0.3, Flux 0.6; with a mask 1, SDXL 0.9999, Flux 0.6",
            most=1,
            flag="--strength",
        ),
        "image_guidance_scale": _number(
            "weight of the given picture (Brooks et al., 2023: InstructPix2Pix)",
            "for models that edit pictures by instructions; below 1 turns all guidance off",
            "1.5",
            most=_LARGEST_GUIDANCE,
            flag="--image-guidance-scale",
        ),
        "resize_mode": RequestField(
            "how a given picture is brought to another size",
            "`stretch`, `crop` or `pad`, which repeats its border; without it, another size is "
            "refused",
            flag="--resize-mode",
        ),
        "hires_scale": RequestField(
            "factor of both sides for a second pass: the picture is enlarged, and drawn over",
            "1 is no second pass; not with a picture",
            left_out="1",
            kind=float,
            least=1,
            most=8,
            flag="--hires-scale",
        ),
        "hires_strength": _number(
            "`strength` of the second pass",
            "above 0",
            "0.4",
            most=1,
            flag="--hires-strength",
        ),
        "hires_upscaler": RequestField(
            "how the picture is enlarged: `lanczos` decodes it and filters its pixels, `latent` "
            "mixes its latents",
            "with `latent`, more of the picture changes",
            left_out="`lanczos`",
            flag="--hires-upscaler",
            choices=HIRES_UPSCALERS,
        ),
        "mask": _picture(
            "what to paint anew: where it is white",
            "of the image's size",
            flag="--mask",
        ),
        "mask_blur": _whole(
            "radius in pixels by which the edges of the mask are blurred, where the image is put "
            "back",
            "",
            "0",
            least=0,
            most=1000,
            flag="--mask-blur",
        ),
        "padding_mask_crop": _whole(
            "draw only what the mask covers, at the full size, with a border of so many pixels of "
            "the image",
            "the rest is put back as it was",
            "the whole image is drawn",
            least=0,
            most=1_000_000,
            flag="--padding-mask-crop",
        ),
        "overlay": RequestField(
            "whether what the mask leaves is put back, bit for bit",
            "always with `padding_mask_crop`",
            left_out="false: all of it passes through the autoencoder",
            kind=bool,
            flag="--overlay",
        ),
        "control_image": RequestField(
            "picture for the ControlNet",
            "stretched to the size of the picture, as in diffusers; not on Flux",
            "a Pillow image, a path, the bytes of a file, or an array; a list with one for each "
            "ControlNet",
            flag="--control",
            is_noted=False,
        ),
        "control_preprocess": RequestField(
            "what is made of the picture first: `canny` finds its edges, and needs OpenCV",
            "not on Flux",
            "one name, or a list with a name or None for each ControlNet",
            "the picture as it is",
            flag="--control-preprocess",
            choices=CONTROL_PREPROCESSORS,
        ),
        "controlnet_conditioning_scale": _control(
            "factor of what the ControlNet adds",
            "the configuration's, else 1",
            10,
            "--control-scale",
        ),
        "control_guidance_start": _control(
            "share of the steps after which the ControlNet begins", "0", 1, "--control-start"
        ),
        "control_guidance_end": _control(
            "share of the steps after which the ControlNet ends", "1", 1, "--control-end"
        ),
        "guess_mode": RequestField(
            "whether the ControlNet alone guides: the negative prompt goes without it, and it adds "
            "less at fine resolutions",
            "not on Flux",
            left_out="false",
            kind=bool,
        ),
        "ip_adapter_image": RequestField(
            "picture that the IP-Adapter shows the model, beside the prompt",
            "of any size; not on Flux",
            "a Pillow image, a path, the bytes of a file, or an array; a list with one for each "
            "IP-Adapter, of which each may be a list of pictures",
            flag="--ip-image",
            is_noted=False,
        ),
        "ip_adapter_scale": RequestField(
            "factor of what the IP-Adapter adds",
            "not on Flux",
            "one number, or a list with one for each IP-Adapter",
            "the configuration's, else 1",
            float,
            0,
            10,
            "--ip-scale",
        ),
        "output_type": _unkept(
            "type of the pictures that are returned",
            '`"pil"`, `"np"`: (B, H, W, 3) float32 in [0, 1], or `"latent"`',
            '`"pil"`',
        ),
        "callback_on_step_end": _unkept(
            "called after each step as callback(pipeline, step, timestep, tensors)",
            "tensors that it returns, by name, replace these",
        ),
        "callback_on_step_end_tensor_inputs": _unkept(
            "names of the tensors that the callback gets",
            "`latents`, `prompt_embeds`, `negative_prompt_embeds`",
            '`("latents",)`',
        ),
        "prompt_2": _text(
            "text for the second text encoder, on Flux T5",
            left_out="`prompt`",
            flag="--prompt-2",
            families=("SDXL", "Flux"),
        ),
        "negative_prompt_2": _text(
            "the second text of `negative_prompt`, which must be given, too, but may be empty",
            left_out="`negative_prompt`",
            families=("SDXL", "Flux"),
        ),
        "true_cfg_scale": _number(
            "weight of `prompt` against `negative_prompt`",
            "1 or less turns this guidance off, which halves the work",
            "1",
            most=_LARGEST_GUIDANCE,
            flag="--true-cfg-scale",
            families=("Flux",),
        ),
        "max_sequence_length": _whole(
            "tokens that T5 reads",
            "a prompt that is longer is cut, with a warning",
            "512; FLUX.1-schnell 256",
            least=1,
            most=512,
            flag="--max-sequence-length",
            families=("Flux",),
        ),
        "denoising_start": _number(
            "share of the noise's schedule that is done before: the given picture's, or that of "
            "`latents` that another model left, is taken as it is",
            "above 0 and below 1; in place of `strength`, with a picture or `latents`",
            "the picture gets noise by `strength`",
            most=1,
            flag="--denoising-start",
            families=("SDXL",),
        ),
        "denoising_end": _number(
            "share of the noise's schedule after which the refiner takes over; without one, the "
            "rest of the noise stays in the latents",
            "above 0; with 1, the base model draws alone",
            "0.8 with a refiner and without a given picture, else 1",
            most=1,
            flag="--denoising-end",
            families=("SDXL",),
        ),
        "aesthetic_score": _number(
            "how well the refiner is to take the picture to be liked, of 10",
            "with a refiner",
            "6",
            most=10,
            flag="--aesthetic-score",
            families=("SDXL",),
        ),
        "negative_aesthetic_score": _number(
            "`aesthetic_score` for the negative prompt",
            "with a refiner",
            "2.5",
            most=10,
            families=("SDXL",),
        ),
        "original_size": _pair(
            "(height, width) of the photograph that the picture is to look like: a small one looks "
            "blurred (Podell et al., 2023, section 2.2)",
            "the picture's own",
        ),
        "crops_coords_top_left": _pair(
            "(top, left) of the crop that it is to look like", "(0, 0), which is centred", least=0
        ),
        "target_size": _pair("(height, width) that it is to look right at", "the picture's own"),
        "negative_original_size": _pair(
            "`original_size` for the negative prompt, with `negative_target_size`",
            "that of the prompt",
        ),
        "negative_crops_coords_top_left": _pair(
            "`crops_coords_top_left` for the negative prompt, with both of its sizes",
            "(0, 0) with these, else that of the prompt",
            least=0,
        ),
        "negative_target_size": _pair(
            "`target_size` for the negative prompt, with `negative_original_size`",
            "that of the prompt",
        ),
    }
)
