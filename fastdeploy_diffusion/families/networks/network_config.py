"""Strict reading of a ``config.json``: every key is implemented, inert, or an error.

The types here carry the ranges of the numbers. They are far wider than any published model, and
narrow enough that a network of these sizes can be sketched at once: a count of layers that is out
of all proportion is refused before the first of them is made.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import Self

from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.networks.activations import Activations, Shapes
from fastdeploy_diffusion.families.networks.census import Census
from fastdeploy_diffusion.shown import show

_INPUT = "Input should be "  # how pydantic begins most reasons

Config = TypeVar("Config")
Value = TypeVar("Value")

LayerCount = Annotated[int, Field(ge=1, le=500)]
BlockCount = Annotated[int, Field(ge=0, le=500)]  # of a kind that a network may do without
HeadCount = Annotated[int, Field(ge=1, le=1024)]
Width = Annotated[int, Field(ge=1, le=2**17)]  # channels, features of a token, groups
VocabularySize = Annotated[int, Field(ge=1, le=2**22)]
LatentSize = Annotated[int, Field(ge=1, le=2**13)]  # pixels of the latents in one direction
ImageSize = Annotated[int, Field(ge=1, le=2**12)]  # pixels of a picture in one direction
Epsilon = Annotated[float, Field(gt=0, le=0.001)]  # Paddle's LayerNorm takes no larger one
Factor = Annotated[float, Field(ge=-1000, le=1000)]
# Each more halves the resolution again.
PerBlock = Annotated[tuple[Value, ...], Field(min_length=1, max_length=10)]

# Keys of every ``config.json`` of transformers that do not change what an encoder computes: of
# training, generation and bookkeeping.
TRANSFORMERS_INERT = frozenset(
    {
        *("architectures", "attention_dropout", "attn_implementation", "bos_token_id"),
        *("chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id"),
        *("dropout", "dtype", "finetuning_task", "gradient_checkpointing", "id2label"),
        *("initializer_factor", "initializer_range", "is_encoder_decoder", "label2id"),
        *("output_attentions", "output_hidden_states", "pad_token_id", "prefix"),
        *("problem_type", "return_dict", "sep_token_id", "tie_encoder_decoder"),
        *("tie_word_embeddings", "tokenizer_class", "torch_dtype", "torchscript"),
        *("transformers_version", "use_bfloat16", "use_cache"),
    }
)


class Stack(NamedTuple):
    """Layers of one kind, one after the other.

    Args:
        key: The key of the config that gives their number.
        name: Prefix of their weights' names, before a layer's index: ``"encoder.layers"``.
    """

    key: str
    name: str
    layers: int


class NetworkConfig(ABC):
    """The keys of a network's ``config.json`` that decide what it computes: a frozen dataclass."""

    # Known keys of which only the listed values are implemented, and keys that change nothing.
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    inert: ClassVar[frozenset[str]] = frozenset()
    # Prefixes of weights that a checkpoint may lack.
    dispensable: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a parsed ``config.json``; UnsupportedModelError for unimplemented options."""
        return read_config(cls, raw, only=cls.only, inert=cls.inert)

    @property
    @abstractmethod
    def stacks(self) -> Sequence[Stack]:
        """All stacks of layers, those that hold others first."""

    @abstractmethod
    def census(self) -> Census:
        """Count the places that passes rewrite, by their kinds."""

    def count_activations(self, shapes: Shapes) -> Activations:
        """Count the numbers alive at once in a run, for shapes of its inputs.

        Nothing for networks with few beside their weights, as text encoders.
        """
        return Activations()


def read_config(
    cls: type[Config],
    raw: Mapping[str, Any],
    *,
    only: Mapping[str, tuple[Any, ...]],
    inert: frozenset[str] = frozenset(),
) -> Config:
    """Turn a ``config.json`` mapping into the frozen dataclass ``cls``.

    Args:
        cls: Dataclass whose fields are the keys with an implemented behaviour. Their annotations
            say of which type and in which range a value must be; a list is read as a tuple.
        raw: The parsed file. Keys that start with ``_`` are metadata.
        only: Known keys of which only the listed values are implemented.
        inert: Known keys that do not change what the network computes at inference.

    Raises:
        CheckpointError: A value is of another type, or out of range.
        UnsupportedModelError: A key is unknown, or its value is not implemented.
    """
    fields = _list_fields(cls)  # type: ignore[arg-type]  # a class is hashable
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key.startswith("_") or key in inert:
            continue
        if key in only and _freeze(value) not in only[key]:
            allowed = ", ".join(repr(choice) for choice in only[key])
            raise UnsupportedModelError(
                f"{cls.__name__}: {key} = {show(value)} is not implemented", allowed=allowed
            )
        if key in fields:
            values[key] = _read_value(cls, key, _freeze(value), fields[key])
        elif key not in only:
            raise UnsupportedModelError(
                f"{cls.__name__}: unknown key {show(key)} (= {show(value)})",
                allowed=", ".join(sorted({*fields, *only})),
                fix="its behaviour is not known here, so the picture could be wrong; remove the "
                "key only if you know that the network does not depend on it",
            )
    return cls(**values)


@cache
def _list_fields(cls: type[Any]) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(cls, include_extras=True)
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    return {
        field.name: TypeAdapter(hints[field.name], config=strict)
        for field in dataclasses.fields(cls)
    }


def _read_value(cls: type[Any], key: str, value: Any, adapter: TypeAdapter[Any]) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        # For a union of types, pydantic gives a reason for each of them.
        reasons = dict.fromkeys(each["msg"].removeprefix(_INPUT) for each in error.errors())
        raise CheckpointError(
            f"{cls.__name__}: {key} = {show(value)} makes no sense",
            allowed=", or ".join(reasons).replace("valid tuple", "list"),
        ) from None


def per_block(key: str, value: Any, blocks: int) -> tuple[Any, ...]:
    """Spread a value that a config gives once, or once per block, over ``blocks`` blocks."""
    if not isinstance(value, tuple):
        return (value,) * blocks
    if len(value) != blocks:
        raise UnsupportedModelError(
            f"{key} has {len(value)} entries, but the model has {blocks} blocks",
            allowed=f"one value, or {blocks} values",
        )
    return value


def check_division(cls: str, key: str, divisor: int, widths: tuple[int, ...]) -> None:
    """Refuse a number of groups or heads that does not divide each of some widths.

    Raises:
        UnsupportedModelError: Names the key, the number, and the width that it does not divide.
    """
    for width in widths:
        if width % divisor:
            raise UnsupportedModelError(
                f"{cls}: {key} = {divisor} does not divide {width} channels",
                allowed=f"a divisor of {', '.join(map(str, dict.fromkeys(widths)))}",
            )


def _freeze(value: Any) -> Any:
    return tuple(_freeze(item) for item in value) if isinstance(value, list) else value
