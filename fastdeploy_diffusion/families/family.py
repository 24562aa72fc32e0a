"""A family of models, as data: all that the rest of the library asks of one."""

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
        pad_token: What it pads with, where that is not its class's own.
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


@dataclass(frozen=True)
class SingleFileLayout:
    """How a family is stored in a single file.

    Args:
        prefixes: Component → prefix of its tensors; all must be there, and together they tell the
            family.
        rules: Component → renaming rules, applied after the prefix.
        widths: Tensors whose second axis tells whether the model has the published shape: name,
            size and meaning.
        configs: Component → config of the published model.
        needs: A prefix that sets it apart from another layout with the same components.
        lacks: A prefix that the other one has.
    """

    prefixes: Mapping[str, str]
    rules: Mapping[str, Sequence[KeyRule]]
    widths: Sequence[tuple[str, int, str]]
    configs: Mapping[str, Mapping[str, Any]]
    needs: str = ""
    lacks: str = ""

    def fits(self, names: Collection[str]) -> bool:
        """Tell whether a file with these tensors is stored in this way."""
        wanted = [*self.prefixes.values(), self.needs]
        return all(any(name.startswith(each) for name in names) for each in wanted) and not (
            self.lacks and any(name.startswith(self.lacks) for name in names)
        )


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        name: In reports and metadata.
        title: What people call it.
        pipeline: What draws with it, as module in ``pipelines/`` and class.
        request: What it is asked for, as module in ``requests/`` and class.
        index_class: ``_class_name`` in its ``model_index.json``.
        networks: Its components with weights.
        tokenizers: By the names of their folders.
        layouts: How single files store it.
        published: Published models, by the names that the benchmark has for them.
        told_by: Component, key of its config, and whether the key is true: what sets families of
            one ``index_class`` apart.
        options: Behaviour of the whole pipeline, as the published ``model_index.json`` has it.
        absent: Optional components that it does without.
        inert: Outside the components: tensors of single files that the model does not use.
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
    told_by: tuple[str, str, bool] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ("feature_extractor", "image_encoder")
    inert: Sequence[KeyRule] = ()

    @property
    def pipeline_name(self) -> str:
        """The class that draws with it."""
        return self.pipeline.partition(":")[2]

    @property
    def pipeline_class(self) -> Any:
        """What draws with it; imports Paddle."""
        return load(f"fastdeploy_diffusion.pipelines.{self.pipeline}")

    @property
    def request_class(self) -> Any:
        """What it is asked for."""
        return load(f"fastdeploy_diffusion.requests.{self.request}")

    @property
    def components(self) -> tuple[str, ...]:
        """All of a folder of diffusers."""
        return (*self.networks, "scheduler", *self.tokenizers)
