"""The sections of a configuration, and the values that its options allow."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import Self

from fastdeploy_diffusion.config.introspection import make_signature, write_docstring
from fastdeploy_diffusion.config.layers import Layer, keyword_layer, merge_layers
from fastdeploy_diffusion.config.problems import explain_refusals, refuse
from fastdeploy_diffusion.device import parse_device
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.hints import find_hint
from fastdeploy_diffusion.pass_entry_points import find_pass_entry_points
from fastdeploy_diffusion.precision import PRECISION_SYNONYMS, PRECISIONS
from fastdeploy_diffusion.registry import ENGINE_SYNONYMS, ENGINES, PASSES
from fastdeploy_diffusion.request_fields import FIELDS, HIRES_UPSCALERS, PROMPT_SYNTAXES
from fastdeploy_diffusion.scheduler_names import (
    ALLOWED,
    SAMPLERS,
    SCHEDULERS,
    find_nearest_sampler,
    find_sampler,
)
from fastdeploy_diffusion.suggest import did_you_mean

ENGINE_CHOICES = ("auto", *ENGINES)
PRECISION_CHOICES = ("auto", *PRECISIONS)

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
MEMORY_CHOICES = ("resident", "staged", "streamed")
TILING_CHOICES = ("auto", "off", "exact", "blended")
DECODER_CHOICES = ("full", "tiny")

ENGINE_HELP = f"one of {', '.join(ENGINE_CHOICES)}"
DEVICE_HELP = "cpu, gpu, gpu:N, xpu or xpu:N, N being the index of the device"
PRECISION_HELP = f"one of {', '.join(PRECISION_CHOICES)}"
PREDICTION_TYPE_HELP = (
    f"one of {', '.join(PREDICTION_TYPES)}: what the denoiser predicts, where the checkpoint does "
    "not say it (single files of SD 2.x-base are epsilon)"
)
MEMORY_HELP = (
    f"one of {', '.join(MEMORY_CHOICES)}: whether all components stay in memory, or each is loaded "
    "for its stage alone, and Flux's transformer block by block"
)
TILING_HELP = (
    f"one of {', '.join(TILING_CHOICES)}: whether the VAE runs on a picture as a whole, in windows "
    "with the same numbers, or in tiles that are blended, which changes the picture; auto takes "
    "windows for what does not fit into memory as a whole"
)
DECODER_HELP = (
    f"one of {', '.join(DECODER_CHOICES)}: whether pictures are decoded by the model's own VAE, or "
    "by the tiny one of tiny_vae_path, which is fast and changes the picture"
)
INT8_QUALITY_HELP = (
    "dB, 10 to 80: how close pictures in int8 must come to those of float32; layers go back to "
    "floating point until they do"
)
TARGET_HELP = "sm and a compute capability, as sm86 for 8.6: the GPU architecture to build for"
PASSES_HELP = (
    f"a list of {', '.join(PASSES)} and of passes that other distributions register; empty for none"
)
SCHEDULER_HELP = f"one of {ALLOWED}; other spellings are understood"

_SYNONYMS = {**ENGINE_SYNONYMS, **PRECISION_SYNONYMS}
_CHOOSE = "take one of these, or leave the option out"


def _check_choice(allowed: tuple[str, ...], value: str) -> str:
    if value not in allowed:
        hint = find_hint(value)
        missing = f"{hint.missing}; {hint.fix}" if hint and hint.missing else ""
        raise refuse(fix=missing or did_you_mean(value, allowed, _SYNONYMS) or _CHOOSE)
    return value


def _read_scheduler(value: str) -> str:
    found = find_sampler(value)
    if found is None:
        nearest = find_nearest_sampler(value)
        raise refuse(
            f"scheduler is {value!r}, which is not implemented" if nearest else "",
            fix=f"scheduler={nearest!r} is the nearest there is"
            if nearest
            else did_you_mean(value, (*SCHEDULERS, *SAMPLERS)) or _CHOOSE,
        )
    return found


def read_list(value: Any) -> Any:
    """Turn a list, as YAML has it, into the tuple of an option."""
    return tuple(value) if isinstance(value, list) else value


def _check_passes(names: tuple[Any, ...]) -> tuple[Any, ...]:
    others = [str(name) for name in names if name not in PASSES]
    known = (*PASSES, *(find_pass_entry_points() if others else ()))
    for name in others:
        if name not in known:
            raise refuse(
                allowed=f"a list of {', '.join(known)}; empty for none",
                fix=did_you_mean(name, known),
            )
    return names


def _check_device(value: str) -> str:
    try:
        parse_device(value)
    except ConfigError as error:
        raise refuse(fix=error.fix) from None
    return value


def _check_target(value: str) -> str:
    if not re.fullmatch(r"sm[0-9]{2,3}", value):
        raise refuse(fix="NVIDIA's list of CUDA GPUs gives the compute capability of each")
    return value


def _read_empty_section(value: Any) -> Any:
    # A section whose lines are all commented out reads as None from YAML.
    return {} if value is None else value


EngineName = Annotated[str, AfterValidator(partial(_check_choice, ENGINE_CHOICES))]
DeviceName = Annotated[str, AfterValidator(_check_device)]
PrecisionName = Annotated[str, AfterValidator(partial(_check_choice, PRECISION_CHOICES))]
TargetName = Annotated[str, AfterValidator(_check_target)]
PredictionType = Annotated[str, AfterValidator(partial(_check_choice, PREDICTION_TYPES))]
TilingName = Annotated[str, AfterValidator(partial(_check_choice, TILING_CHOICES))]
DecoderName = Annotated[str, AfterValidator(partial(_check_choice, DECODER_CHOICES))]
HiresUpscaler = Annotated[str, AfterValidator(partial(_check_choice, HIRES_UPSCALERS))]
PromptSyntax = Annotated[str, AfterValidator(partial(_check_choice, PROMPT_SYNTAXES))]
MemoryName = Annotated[str, AfterValidator(partial(_check_choice, MEMORY_CHOICES))]
SchedulerName = Annotated[str, AfterValidator(_read_scheduler)]
# Any, for an element that is refused must be blamed on the whole option.
PassNames = Annotated[tuple[Any, ...], BeforeValidator(read_list), AfterValidator(_check_passes)]
MayBeEmpty = BeforeValidator(_read_empty_section)


class ConfigSection(BaseModel):
    """Frozen options, validated without conversions; anything refused raises `ConfigError`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, protected_namespaces=()
    )

    # Accepted in place of a field, and turned into it before validation.
    other_spellings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **options: Any) -> None:
        layers = [keyword_layer(options)]
        with explain_refusals(type(self), layers):
            self.__pydantic_validator__.validate_python(merge_layers(layers), self_instance=self)

    # Nested sections must report to the outer one, which knows where they were given. This mark
    # makes pydantic build them without calling `__init__`; its own RootModel carries it too.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        cls.__doc__ = write_docstring(cls)
        cls.__signature__ = make_signature(cls)

    @classmethod
    def from_layers(cls, layers: list[Layer]) -> Self:
        """Merge layers (lowest precedence first) and validate the result.

        Raises:
            ConfigError: Lists every option that is refused, and where it was given.
        """
        with explain_refusals(cls, layers):
            return super().model_validate(merge_layers(layers))

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Validate as pydantic does, but raise `ConfigError`."""
        with explain_refusals(cls, [Layer(obj if isinstance(obj, Mapping) else {})]):
            return super().model_validate(obj, **options)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Validate as pydantic does, but raise `ConfigError`."""
        with explain_refusals(cls, []):
            return super().model_validate_json(json_data, **options)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Make a copy with some options changed, validated as a new one is.

        Args:
            update: Options by name; a section given here replaces the whole section.
            deep: Without effect: sections are frozen.
        """
        return type(self)(**{**self.model_dump(), **(update or {})})

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """List every name that this section accepts."""
        return (*cls.model_fields, *cls.other_spellings)

    @classmethod
    def section_names(cls) -> tuple[str, ...]:
        """List the names of the sections inside this section."""
        return tuple(
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, ConfigSection)
        )

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise ConfigError(
            f"{name} cannot be set: a {type(self).__name__} does not change once it is made",
            fix=f"make another: config.model_copy(update={{{name!r}: …}})",
        )


def _default_of(name: str) -> Any:
    """Make the option for the default of a field of requests."""
    field = FIELDS[name]
    ranges: dict[str, Any] = {}
    if field.least is not None:
        ranges |= {"ge": field.least, "le": field.most}
    if field.kind is float:
        ranges["allow_inf_nan"] = False
    return Field(default=None, description=f"{field.about}: {field.allowed}", **ranges)


class RequestDefaults(ConfigSection):
    """Defaults of requests; None takes the model's own value."""

    height: int | None = _default_of("height")
    width: int | None = _default_of("width")
    num_inference_steps: int | None = _default_of("num_inference_steps")
    guidance_scale: float | None = _default_of("guidance_scale")
    negative_prompt: str | None = _default_of("negative_prompt")
    prompt_syntax: PromptSyntax | None = _default_of("prompt_syntax")
    max_sequence_length: int | None = _default_of("max_sequence_length")
    seed: int | None = _default_of("seed")
    hires_scale: float | None = _default_of("hires_scale")
    hires_strength: float | None = _default_of("hires_strength")
    hires_upscaler: HiresUpscaler | None = _default_of("hires_upscaler")


class PlaceConfig(ConfigSection):
    """What a network runs on; None takes the pipeline's."""

    engine: EngineName | None = Field(default=None, description=ENGINE_HELP)
    device: DeviceName | None = Field(default=None, description=DEVICE_HELP)
    precision: PrecisionName | None = Field(default=None, description=PRECISION_HELP)
