"""`DiffusionConfig`: everything that decides how a pipeline is built, in one frozen object."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator
from typing_extensions import Self

from fastdeploy_diffusion.config.adapter_options import Adapters
from fastdeploy_diffusion.config.controlnet_options import ControlNets
from fastdeploy_diffusion.config.engine_choice import EngineChoice
from fastdeploy_diffusion.config.file_path import FilePath
from fastdeploy_diffusion.config.ip_adapter_options import IPAdapters
from fastdeploy_diffusion.config.layers import Layer, keyword_layer, preset_layer, yaml_layer
from fastdeploy_diffusion.config.option_sections import (
    EmbeddingCacheConfig,
    PaddleConfig,
    ShapesConfig,
    TensorRTConfig,
)
from fastdeploy_diffusion.config.part_options import Part, Weights, WeightsConfig, options_of
from fastdeploy_diffusion.config.problems import refuse
from fastdeploy_diffusion.config.refiner_options import Refiner
from fastdeploy_diffusion.config.sections import (
    DECODER_HELP,
    DEVICE_HELP,
    ENGINE_HELP,
    INT8_QUALITY_HELP,
    MEMORY_HELP,
    PASSES_HELP,
    PRECISION_HELP,
    PREDICTION_TYPE_HELP,
    SCHEDULER_HELP,
    TARGET_HELP,
    TILING_HELP,
    ConfigSection,
    DecoderName,
    DeviceName,
    EngineName,
    MayBeEmpty,
    MemoryName,
    PassNames,
    PlaceConfig,
    PrecisionName,
    PredictionType,
    RequestDefaults,
    SchedulerName,
    TargetName,
    TilingName,
)
from fastdeploy_diffusion.device import parse_device
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.precision import INT8, INT8_WEIGHTS, PRECISIONS
from fastdeploy_diffusion.suggest import did_you_mean

Defaults = Annotated[RequestDefaults, MayBeEmpty]
EmbeddingCache = Annotated[EmbeddingCacheConfig, MayBeEmpty]
Shapes = Annotated[ShapesConfig, MayBeEmpty]
Paddle = Annotated[PaddleConfig, MayBeEmpty]
TensorRT = Annotated[TensorRTConfig, MayBeEmpty]

COMPONENTS = ("text_encoder", "denoiser", "vae")


class DiffusionConfig(ConfigSection):
    """How to build a pipeline, from keywords, a YAML file, a preset and command-line flags.

    Making one touches neither disk nor runtime: whether this machine can do what it asks is decided
    when the pipeline is built. Only for a pass that is not this library's, the names that installed
    distributions register are read. ``use_tensorrt=True`` is accepted for ``engine="tensorrt"``;
    ``use_tensorrt=False`` keeps ``auto`` from taking it.

    Raises:
        ConfigError: An option is unknown, has a value that is not allowed, or contradicts another.
    """

    other_spellings: ClassVar[tuple[str, ...]] = ("use_tensorrt",)

    model_path: FilePath = Field(
        min_length=1, description="path of a diffusers folder, a bundle or a .safetensors file"
    )
    variant: str | None = Field(
        default=None, min_length=1, description="weight variant of a diffusers folder, such as fp16"
    )
    tokenizer_path: FilePath | None = Field(
        default=None,
        min_length=1,
        description="path of a tokenizer folder, for .safetensors files, which carry no vocabulary",
    )
    scheduler: SchedulerName | None = Field(
        default=None,
        title="sampler; the checkpoint's own if left out",
        description=SCHEDULER_HELP,
    )
    prediction_type: PredictionType | None = Field(default=None, description=PREDICTION_TYPE_HELP)
    engine: EngineName = Field(
        default="auto",
        title="engine that runs the networks; auto takes the fastest that tune has found",
        description=ENGINE_HELP,
    )
    device: DeviceName = Field(default="cpu", title="where they run", description=DEVICE_HELP)
    precision: PrecisionName = Field(
        default="fp32", title="precision of the networks", description=PRECISION_HELP
    )
    int8_quality: float | None = Field(
        default=None,
        ge=10,
        le=80,
        allow_inf_nan=False,
        title="least PSNR of pictures in int8 to float32, in dB; 30, or 25 with few steps",
        description=INT8_QUALITY_HELP,
    )
    calibration_prompts: FilePath | None = Field(
        default=None,
        min_length=1,
        title="prompts that int8 is calibrated with; 40 of the package if left out",
        description="path of a text file in UTF-8, one prompt a line, 5 to 1000 of them",
    )
    int8_portable: bool = Field(
        default=False,
        description="true or false: whether weights in int8 have 7 bits, so that bundles run on "
        "every CPU",
    )
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="number of CPU threads: a whole number, 1 to 1024"
    )
    target: TargetName | None = Field(default=None, description=TARGET_HELP)
    cpu_fallback: bool = Field(
        default=True,
        description="true or false: whether to run on the CPU, with a warning, what cannot run "
        "on the device asked for",
    )
    enable_dynamic_shape: bool = Field(
        default=False,
        description="true or false: whether one build serves pictures of every size in a range",
    )
    passes: PassNames | None = Field(
        default=None,
        title="passes that rewrite the networks before builds; those that pay if left out",
        description=PASSES_HELP,
    )
    memory: MemoryName = Field(default="resident", description=MEMORY_HELP)
    vae_tiling: TilingName = Field(
        default="auto",
        title="how the VAE decodes and encodes pictures that are large for the memory",
        description=TILING_HELP,
    )
    vae_decoder: DecoderName = Field(
        default="full", title="which decoder makes the pictures", description=DECODER_HELP
    )
    tiny_vae_path: FilePath | None = Field(
        default=None,
        min_length=1,
        title="tiny VAE of previews, and of vae_decoder='tiny'",
        description="path of a folder with an AutoencoderTiny of diffusers for this model, or of "
        "a .safetensors or .pth file with the original names of its decoder",
    )
    cache: bool = Field(
        default=True, description="true or false: whether builds are kept for the next start"
    )
    cache_dir: FilePath | None = Field(
        default=None, min_length=1, description="path of the folder where builds are kept"
    )
    cache_limit_gib: float = Field(
        default=20.0,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="GiB that kept builds may take: a number above 0, up to 1,000,000",
    )
    embedding_cache: EmbeddingCache = Field(
        default=EmbeddingCacheConfig(),
        title="limits of the cache of encoded texts",
        description="a section with memory_mib, disk_mib",
    )
    defaults: Defaults = Field(
        default=RequestDefaults(),
        title="defaults of requests",
        description="a section of request defaults",
    )
    shapes: Shapes = Field(
        default=ShapesConfig(),
        title="sizes that one build serves, with enable_dynamic_shape",
        description="a section with batch, height, width: ranges of sizes",
    )
    paddle: Paddle = Field(
        default=PaddleConfig(),
        title="options of Paddle Inference on a GPU",
        description="a section with gpu_passes",
    )
    tensorrt: TensorRT = Field(
        default=TensorRTConfig(),
        title="how TensorRT builds",
        description="a section with optimization_level, workspace_gib",
    )
    text_encoder: Part = options_of("the text encoders")
    text_encoder_2: Weights = Field(
        default=WeightsConfig(),
        title="where the second text encoder is read from",
        description="a section with model_path",
    )
    denoiser: Part = options_of("the denoiser")
    controlnets: ControlNets = Field(
        default=(),
        title="ControlNets, in the order of a request's control images",
        description="a list of paths, or of sections with path, scale, engine, device, precision",
    )
    ip_adapters: IPAdapters = ()
    adapters: Adapters = ()
    refiner: Refiner | None = Field(
        default=None,
        title="SDXL's refiner, which draws the last steps",
        description="a path, or a section with path, denoising_end, engine, device, precision",
    )
    vae: Part = options_of("the VAE")

    if TYPE_CHECKING:
        # Type checkers take the arguments from the fields, which lack other spellings.
        def __init__(self, **options: Any) -> None: ...

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Read a YAML file, which may name a base with ``preset:``; keywords win over the file.

        Raises:
            ConfigError: As ``file:line:column: message``.
        """
        return cls.load(yaml=path, keywords=overrides)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """Start from a preset of ``fastdeploy_diffusion/configs``; keywords win over it.

        Raises:
            ConfigError: There is no such preset, or an option is refused.
        """
        return cls.load(preset=name, keywords=overrides)

    @classmethod
    def load(
        cls,
        preset: str | None = None,
        yaml: str | os.PathLike[str] | None = None,
        keywords: Mapping[str, Any] | None = None,
        cli: Mapping[str, Any] | None = None,
    ) -> Self:
        """Merge every source of options: command line > keywords > YAML > preset.

        Args:
            preset: Name of the preset to start from; wins over a ``preset:`` in the YAML file.
            yaml: A YAML file. Relative paths in it start at its own folder.
            keywords: Options by name, sections as nested mappings; None means "not given".
            cli: The same, from command-line flags.

        Raises:
            ConfigError: Lists every option that is refused, and where it was given.
        """
        layers: list[Layer] = []
        place = ""
        if yaml is not None:
            file = yaml_layer(yaml)
            values = dict(file.values)
            named = values.pop("preset", None)
            if preset is None and named is not None:
                preset, place = named, file.locate(("preset",), key=False)
            layers.append(replace(file, values=values))
        if preset is not None:
            layers.insert(0, preset_layer(preset, place))
        layers.append(keyword_layer(keywords or {}))
        layers.append(keyword_layer(cli or {}, "command line"))
        return cls.from_layers(layers)

    def component(self, name: str) -> EngineChoice:
        """Resolve engine, device and precision of a sub-predictor.

        Args:
            name: ``"text_encoder"`` (all text encoders of the model), ``"denoiser"`` or ``"vae"``.

        Raises:
            ConfigError: There is no such sub-predictor.
        """
        if name not in COMPONENTS:
            raise ConfigError(
                f"there is no component {name!r}",
                allowed=", ".join(COMPONENTS),
                fix=did_you_mean(name, COMPONENTS, {"unet": "denoiser", "transformer": "denoiser"}),
            )
        return self._choose(getattr(self, name), name)

    def choose_controlnet(self, index: int) -> EngineChoice:
        """Resolve engine, device and precision of one of the ControlNets.

        Beside a denoiser in int8 it runs in floating point.
        """
        return self._choose_added(self.controlnets[index], f"controlnets.{index}")

    def choose_ip_adapter(self, index: int) -> EngineChoice:
        """Resolve those of one of the IP-Adapters and its vision tower, as for ControlNets."""
        return self._choose_added(self.ip_adapters[index], f"ip_adapters.{index}")

    def _choose_added(self, own: PlaceConfig, name: str) -> EngineChoice:
        if (own.precision or self.precision) == INT8:
            own = own.model_copy(update={"precision": "auto"})
        return self._choose(own, name)

    def _choose(self, own: PlaceConfig, name: str) -> EngineChoice:
        device = own.device or self.device
        on_gpu = parse_device(device).kind == "gpu"
        precision = own.precision or self.precision
        options = {"tensorrt": self.tensorrt.model_dump(exclude_none=True)}
        if on_gpu:
            options["paddle"] = self.paddle.model_dump(exclude_none=True)
        return EngineChoice(
            engine=own.engine or self.engine,
            device=device,
            precision=precision,
            pinned_by=None if own.precision in (None, "auto") else f"{name}.precision",
            threads=self.threads,
            target=self.target if on_gpu else None,
            options={engine: given for engine, given in options.items() if given},
            portable_int8=self.int8_portable and precision == INT8,
        )

    def list_quantized(self) -> list[str]:
        """List the sub-predictors that are asked for in int8, or with weights in it."""
        precisions = {name: self.component(name).precision for name in COMPONENTS}
        return [
            name
            for name, precision in precisions.items()
            if precision in PRECISIONS and PRECISIONS[precision].is_quantized
        ]

    def digest(self) -> str:
        """Identify this configuration: sha256 (hex) of its canonical JSON."""
        text = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @model_validator(mode="after")
    def _check_shapes_have_effect(self) -> Self:
        if self.shapes != ShapesConfig() and not self.enable_dynamic_shape:
            raise refuse(
                "shapes are given, and enable_dynamic_shape is false",
                allowed="ranges of sizes with enable_dynamic_shape=True",
                fix="add enable_dynamic_shape=True, or remove shapes",
                option="shapes",
            )
        return self

    @model_validator(mode="after")
    def _check_decoding(self) -> Self:
        is_tiny = self.vae_decoder == "tiny"
        if is_tiny and self.tiny_vae_path is None:
            raise refuse(
                "vae_decoder is 'tiny', and tiny_vae_path is not given",
                allowed="a folder or a file with an AutoencoderTiny",
                fix="add tiny_vae_path, for Stable Diffusion 1.x as madebyollin/taesd",
                option="vae_decoder",
            )
        needs_cache = self.vae_tiling == "exact" and not self.cache
        if self.vae_tiling in ("exact", "blended") and (
            is_tiny or self.enable_dynamic_shape or needs_cache
        ):
            raise refuse(
                f"vae_tiling is {self.vae_tiling!r}, vae_decoder {self.vae_decoder!r}, "
                f"enable_dynamic_shape {self.enable_dynamic_shape}, and cache {self.cache}",
                allowed="tiles of the full decoder at known sizes; exact ones with kept builds",
                fix="leave vae_tiling out, or remove what does not go with it",
                option="vae_tiling",
            )
        return self

    @model_validator(mode="after")
    def _check_embeddings_have_a_place(self) -> Self:
        if self.embedding_cache.disk_mib and not self.cache:
            raise refuse(
                f"embedding_cache.disk_mib is {self.embedding_cache.disk_mib:g}, and cache is "
                "false",
                allowed="embeddings on disk with cache=True, in the folder of kept builds",
                fix="remove cache=False, or embedding_cache.disk_mib",
                option="embedding_cache",
            )
        return self

    @model_validator(mode="after")
    def _check_int8_has_effect(self) -> Self:
        added = [each.precision for each in (*self.controlnets, *self.ip_adapters)]
        if self.int8_quality is not None and not (self.list_quantized() or INT8_WEIGHTS in added):
            raise refuse(
                f"int8_quality is {self.int8_quality:g}, and nothing is in int8",
                allowed="a quality for precision int8 or int8-weights",
                fix="add precision='int8', or remove int8_quality",
                option="int8_quality",
            )
        components = map(self.component, COMPONENTS)
        on_cpu = [each.precision for each in components if parse_device(each.device).kind == "cpu"]
        if self.int8_portable and INT8 not in on_cpu:
            raise refuse(
                "int8_portable is true, and nothing is in int8 on a CPU",
                allowed="true for precision int8 on CPUs",
                fix="add precision='int8', or remove int8_portable",
                option="int8_portable",
            )
        return self

    @model_validator(mode="after")
    def _check_engine_options_have_effect(self) -> Self:
        choices = [self.component(name) for name in COMPONENTS]
        engines_on_gpu = {
            each.engine for each in choices if parse_device(each.device).kind == "gpu"
        }
        asks_for_tensorrt = any(each.engine == "tensorrt" for each in choices)
        if self.tensorrt != TensorRTConfig() and not (
            asks_for_tensorrt or "auto" in engines_on_gpu
        ):
            raise refuse(
                "tensorrt has options, and no component runs on it",
                allowed="options of engines that are asked for",
                fix="add engine='tensorrt' or device='gpu', or remove the section",
                option="tensorrt",
            )
        if self.paddle != PaddleConfig() and not engines_on_gpu & {"paddle", "auto"}:
            raise refuse(
                "paddle has options for GPUs, and no component runs on it on a GPU",
                allowed="options of engines that are asked for, on their devices",
                fix="add device='gpu', or remove the section",
                option="paddle",
            )
        return self

    @model_validator(mode="after")
    def _check_target_has_effect(self) -> Self:
        if self.target is None:
            return self
        if all(self.component(name).target is None for name in COMPONENTS):
            raise refuse(
                f"target is {self.target!r}, and no component runs on a GPU",
                allowed="a GPU architecture for components with device='gpu'",
                fix="add device='gpu'",
                option="target",
            )
        if not self.cache:
            raise refuse(
                f"target is {self.target!r}, and builds are not kept",
                allowed="a target with cache=True, where the build is left for its machine",
                fix="remove cache=False",
                option="target",
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _read_use_tensorrt(cls, options: Any) -> Any:
        if not isinstance(options, Mapping) or "use_tensorrt" not in options:
            return options
        options = dict(options)
        asked = options.pop("use_tensorrt")
        engine = options.get("engine", cls.model_fields["engine"].default)
        if not isinstance(asked, bool):
            raise refuse(
                f"use_tensorrt is {asked!r}",
                allowed="true or false",
                fix="write engine='tensorrt' instead",
                option="use_tensorrt",
            )
        if ("engine" in options or not asked) and asked != (engine == "tensorrt"):
            raise refuse(
                f"use_tensorrt is {str(asked).lower()}, but engine is {engine!r}",
                allowed="the two to agree",
                fix="remove use_tensorrt; engine alone decides",
                option="use_tensorrt",
            )
        if asked:
            return {**options, "engine": "tensorrt"}
        if engine == "auto" and _names_gpu(options):
            return {**options, "engine": "paddle"}  # the first of the others, there
        return options


def _names_gpu(options: Mapping[str, Any]) -> bool:
    """Tell whether unchecked options name a GPU."""
    sections = (options, *(options.get(name) for name in COMPONENTS))
    devices = (
        section.get("device") if isinstance(section, Mapping) else getattr(section, "device", None)
        for section in sections
    )
    return any(str(device).startswith("gpu") for device in devices)
