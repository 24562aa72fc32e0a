"""The record of a family of models."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastdeploy_diffusion.families.keys.rules import KeyRule
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind
from fastdeploy_diffusion.lazy import load


class Tokenizer(NamedTuple):
    """A tokenizer of a family.

    Args:
        name: Its class in ``model_index.json``.
        trait: What sets it apart, for people: ``"of CLIP"``.
        pad_token: Its padding token, where that is not its class's own.
    """

    name: str
    trait: str
    pad_token: str | None = None


CLIP_TOKENIZER = Tokenizer("CLIPTokenizer", "of CLIP")


class Published(NamedTuple):
    """A published model.

    Args:
        configs: Of each component.
        dtype: In which its weights are published.
    """

    configs: Mapping[str, Mapping[str, Any]]
    dtype: str


class DenoiserInputs(NamedTuple):
    """The input channels of a single file's denoiser.

    Args:
        component: The denoiser.
        tensor: Its second axis tells their number.
        text: Of models that draw texts.
        masked: Of inpainting models.
        edited: Of models that edit pictures by instructions; ``None`` where there are none.
    """

    component: str
    tensor: str
    text: int
    masked: int
    edited: int | None = None


@dataclass(frozen=True)
class SingleFileLayout:
    """The layout of a family's single files.

    Args:
        prefixes: Component → prefix of its tensors; all must be there, and together they tell the
            family.
        rules: Component → renaming rules, applied after the prefix.
        widths: Tensors whose second axis tells whether the model has the published shape: name,
            size and meaning.
        inputs: Of the denoiser.
        configs: Component → config of the published model.
        needs: A prefix that distinguishes it from another layout with the same components.
        lacks: A prefix that the other one has.
    """

    prefixes: Mapping[str, str]
    rules: Mapping[str, Sequence[KeyRule]]
    widths: Sequence[tuple[str, int, str]]
    inputs: DenoiserInputs
    configs: Mapping[str, Mapping[str, Any]]
    needs: str = ""
    lacks: str = ""

    def fits(self, names: Collection[str]) -> bool:
        """Tell whether a file with these tensors has this layout."""
        return self.tells_apart(names) and all(
            any(name.startswith(each) for name in names) for each in self.prefixes.values()
        )

    def tells_apart(self, names: Collection[str]) -> bool:
        """Tell whether these tensors are not of another layout with the same components."""
        return any(name.startswith(self.needs) for name in names) and not (
            self.lacks and any(name.startswith(self.lacks) for name in names)
        )


class Defaults(NamedTuple):
    """What a family's models take where request, configuration and their configs say nothing.

    Args:
        sample_size: Height and width of the latents.
        guidance_scale: 0 for models that take none.
        steps: Their number.
        max_sequence_length: Number of tokens of a text; ``None`` where the tokenizer says it.
        strength: Share of the steps that change a given picture.
        masked_strength: The same, where a mask says what may change.
        picture_guidance: The guidance scale, where a picture is given; ``None``: that of texts.
        masked_guidance: Likewise, with a mask.
        rounds_steps_up: Whether a part of a step that the strength leaves counts as one.
    """

    sample_size: int
    guidance_scale: float
    steps: int = 50
    max_sequence_length: int | None = None
    strength: float = 0.8
    masked_strength: float = 1.0
    picture_guidance: float | None = None
    masked_guidance: float | None = None
    rounds_steps_up: bool = False

    def choose_guidance(self, *, has_picture: bool, has_mask: bool) -> float:
        """Choose the guidance scale, which diffusers' pipelines of pictures have of their own."""
        own = self.masked_guidance if has_mask else self.picture_guidance if has_picture else None
        return self.guidance_scale if own is None else own

    def count_steps(self, steps: int, strength: float) -> int:
        """Count the steps, of all, that change a given picture, as diffusers does."""
        left = steps - min(steps * strength, steps)
        return steps - int(left) if self.rounds_steps_up else min(int(steps * strength), steps)


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        name: In reports and metadata.
        title: For people.
        pipeline: Its pipeline, as module in ``pipelines/`` and class.
        request: Its request, as module in ``requests/`` and class.
        index_class: ``_class_name`` in its ``model_index.json``.
        other_classes: The same, for folders of its inpainting models, and of other pipelines that
            diffusers saves its components with.
        networks: Its components with weights.
        tokenizers: By the names of their folders.
        layouts: Of its single files.
        published: Published models, by their names in the benchmark.
        defaults: Of requests; also of ``unguided`` models, whose denoiser takes no guidance scale.
        filling: Likewise of inpainting models, where their requests have defaults of their own.
        editing: Likewise of models that edit pictures by instructions; ``None`` without any.
        told_by: Component, key of its config, and whether the key is true: distinguishes families
            of one ``index_class``.
        options: Behaviour of the whole pipeline, as the published ``model_index.json`` has it.
        absent: Optional components that it does without.
        inert: Outside the components: tensors of single files that the model does not use.
        is_packed: Whether the denoiser takes latents as tokens, of two by two each.
        has_refiner: Whether a second model may draw its last steps.
        is_refiner: Whether it draws over latents or pictures alone, and is told a score.
    """

    name: str
    title: str
    pipeline: str
    request: str
    index_class: str
    networks: Mapping[str, NetworkKind]
    tokenizers: Mapping[str, Tokenizer]
    layouts: Sequence[SingleFileLayout]
    published: Mapping[str, Published]
    defaults: Defaults
    unguided: Defaults | None = None
    filling: Defaults | None = None
    editing: Defaults | None = None
    told_by: tuple[str, str, bool] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ("feature_extractor", "image_encoder")
    inert: Sequence[KeyRule] = ()
    is_packed: bool = False
    has_refiner: bool = False
    is_refiner: bool = False
    other_classes: tuple[str, ...] = ()

    @property
    def pipeline_name(self) -> str:
        """Name of its pipeline's class."""
        return self.pipeline.partition(":")[2]

    @property
    def pipeline_class(self) -> Any:
        """Its pipeline; imports Paddle."""
        return load(f"fastdeploy_diffusion.pipelines.{self.pipeline}")

    @property
    def request_class(self) -> Any:
        """Its request's class."""
        return load(f"fastdeploy_diffusion.requests.{self.request}")

    def name_section(self, component: str) -> str:
        """Name the section of a configuration that says where a component is read from."""
        return "denoiser" if self.networks[component].role == "denoiser" else component

    @property
    def components(self) -> tuple[str, ...]:
        """Names of all components of a diffusers folder."""
        return (*self.networks, "scheduler", *self.tokenizers)
