"""What all text encoders have in common: a component, and texts that it is asked to read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import integers
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.tokenizers.texts import TokenizedPrompts


class Wanted(NamedTuple):
    """What a request takes of what a text encoder says.

    Args:
        output: Name of the output.
        layer: Which entry of an output that has one for each layer, (L, B, …), from the last: -1.
    """

    output: str
    layer: int | None = None

    def take(self, outputs: Mapping[str, np.ndarray]) -> npt.NDArray[np.float32]:
        """Take it from the outputs of a run on one text, as a read-only array of its own."""
        array = outputs[self.output]
        rows = array if self.layer is None else array[self.layer]
        taken: npt.NDArray[np.float32] = rows[0].copy()
        taken.flags.writeable = False
        return taken


class Text(NamedTuple):
    """One text for one text encoder.

    Args:
        component: The text encoder.
        input_ids: Bytes of its ids, (T,) int64.
        wanted: What is taken of what the encoder says.
    """

    component: Component
    input_ids: bytes
    wanted: Wanted


@dataclass(frozen=True)
class Texts:
    """Texts that one text encoder reads for one request.

    Args:
        component: The text encoder.
        input_ids: (N, T) int64, a row for each picture.
        wanted: What is taken of what the encoder says.
    """

    component: Component
    input_ids: npt.NDArray[np.int64]
    wanted: Wanted

    def split(self) -> list[Text]:
        """Give them one by one."""
        return [Text(self.component, row.tobytes(), self.wanted) for row in self.input_ids]


class PromptEncoder:
    """A text encoder of a pipeline; a subclass knows its tokenizer, and what is taken of it.

    Args:
        name: The component.
        config: Engine, device and precision.
        network: The encoder and its weights.
        vocab_size: How many tokens it knows.

    Raises:
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self, name: str, config: DiffusionConfig, network: Network, vocab_size: int
    ) -> None:
        self.component = Component(
            name,
            config.component("text_encoder"),
            cpu_fallback=config.cpu_fallback,
            passes=config.passes,
            cache=open_cache(config),
            network=network,
            generators={"input_ids": integers(0, vocab_size)},
        )

    def _read(
        self,
        texts: Sequence[str],
        tokenize: Callable[[Sequence[str]], TokenizedPrompts],
        wanted: Wanted,
    ) -> Texts:
        """Tokenize texts, each distinct one once, so that a warning of one comes once."""
        distinct = list(dict.fromkeys(texts))
        input_ids = tokenize(distinct).input_ids
        rows = [distinct.index(text) for text in texts]
        return Texts(self.component, input_ids[rows], wanted)
