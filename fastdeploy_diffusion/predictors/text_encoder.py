"""The sub-predictors that turn prompts into conditioning: CLIP and T5, each with its tokenizer."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import integers
from fastdeploy_diffusion.errors import RequestError, UnsupportedModelError
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.lazy import Deferred, defer
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.predictors.texts import Texts, Wanted, take_rows
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import Size
from fastdeploy_diffusion.tokenizers import CLIPTokenizer, T5Tokenizer
from fastdeploy_diffusion.tokenizers.chunks import Chunk

_LAYERS = "fastdeploy_diffusion.models.components"


class CLIPForm(NamedTuple):
    """The outputs of CLIP's text encoder that a family uses.

    Args:
        wrap: Makes the layer with these outputs of the encoder.
        unread: Number of unused last layers; ``None`` if no hidden states are used.
    """

    wrap: Deferred
    unread: int | None


# Stable Diffusion; SDXL, the last layer but one, before the final LayerNorm; Flux.
NORMALIZED = CLIPForm(defer(f"{_LAYERS}:TextConditioner", True), 0)
HIDDEN = CLIPForm(defer(f"{_LAYERS}:TextConditioner", False), 1)
POOLED = CLIPForm(defer(f"{_LAYERS}:PooledTextConditioner"), None)


class CLIPTextEncoder:
    """CLIP's tokenizer and text encoder.

    Args:
        tokenizer: Its vocabulary must be the encoder's.
        name: The component; the second one of SDXL projects its pooled output.

    Raises:
        UnsupportedModelError: The encoder's config is not implemented, or tokenizer and encoder
            do not fit together.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: DiffusionConfig,
        tokenizer: CLIPTokenizer,
        form: CLIPForm,
        name: str = "text_encoder",
    ) -> None:
        self.tokenizer = tokenizer
        self._form = form
        self.config = checkpoint.read_network(name, CLIPTextConfig.from_dict)
        _check_vocabulary(checkpoint, tokenizer, f"the tokenizer of {name}", name, self.config)
        longest = self.config.max_position_embeddings
        if tokenizer.max_length > longest:
            raise UnsupportedModelError(
                f"{checkpoint.path}: the tokenizer of {name} gives {tokenizer.max_length} tokens a "
                f"text, and {name} reads {longest} (max_position_embeddings)",
                fix="correct model_max_length in tokenizer_config.json",
            )
        is_second = name == "text_encoder_2"
        self.pooled_dim = self.config.projection_dim if is_second else self.config.hidden_size
        self.component = _open(
            checkpoint,
            config,
            name,
            self.config,
            wrap=form.wrap,
            prefix="encoder.",
        )

    def signature(self, batch: Size = None) -> Signature:
        """Make the signature for a number of texts of the tokenizer's length."""
        tokens, config = self.tokenizer.max_length, self.config
        layers = (config.num_hidden_layers + 1, batch, tokens, config.hidden_size)
        hidden = TensorSpec("hidden_states", layers, "float32")
        pooled = TensorSpec("pooled", (batch, self.pooled_dim), "float32")
        return Signature(
            (TensorSpec("input_ids", (batch, tokens), "int64"),),
            (pooled,) if self._form.unread is None else (hidden, pooled),
        )

    def check_clip_skip(self, clip_skip: int) -> None:
        """Refuse a number of layers that the encoder does not have."""
        largest = self.config.num_hidden_layers - (self._form.unread or 0)
        if not 0 <= clip_skip <= largest:
            raise RequestError(
                f"clip_skip is {clip_skip}",
                allowed=f"0 to {largest}, the layers of {self.component.name}",
            )

    def read(self, texts: Sequence[str], clip_skip: int, chunks: int | None = None) -> Texts:
        """Request the hidden states (T, D) of N texts, with some of the last layers skipped.

        Args:
            chunks: ``None`` for plain texts, each cut to one chunk. Else the texts have weights,
                and those with fewer chunks than this are filled up with empty ones.
        """
        layer = -(clip_skip + (self._form.unread or 0) + 1)
        encode = partial(self._encode, chunks=chunks)
        return Texts.tokenize(self.component, texts, encode, Wanted("hidden_states", layer))

    def read_pooled(self, texts: Sequence[str], chunks: int | None = None) -> Texts:
        """Request the pooled outputs (P,) of N texts; free if `read` reads the same texts.

        Of long texts it is that of the first chunk, and without weights, as in AUTOMATIC1111's web
        UI (``sd_hijack_clip.py``).
        """
        encode = partial(self._encode_first, chunks=chunks)
        return Texts.tokenize(self.component, texts, encode, Wanted("pooled"))

    def _encode(self, texts: Sequence[str], chunks: int | None) -> list[tuple[Chunk, ...]]:
        if chunks is None:
            return take_rows(self.tokenizer.encode(texts))
        (empty,) = self.tokenizer.encode_weighted("")
        rows = [self.tokenizer.encode_weighted(text) for text in texts]
        return [(*row, *[empty] * (chunks - len(row))) for row in rows]

    def _encode_first(self, texts: Sequence[str], chunks: int | None) -> list[tuple[Chunk, ...]]:
        rows = self._encode(texts, chunks)
        return [(Chunk(first.input_ids),) for first, *_ in rows]


class T5TextEncoder:
    """T5's tokenizer and encoder; args and errors are those of `CLIPTextEncoder`."""

    def __init__(
        self, checkpoint: Checkpoint, config: DiffusionConfig, tokenizer: T5Tokenizer
    ) -> None:
        name = "text_encoder_2"
        self.tokenizer = tokenizer
        self.config = checkpoint.read_network(name, T5Config.from_dict)
        _check_vocabulary(checkpoint, tokenizer, "tokenizer_2", name, self.config)
        self.component = _open(checkpoint, config, name, self.config)

    def signature(self, tokens: int) -> Signature:
        """Make the signature for any number of texts of a length."""
        return Signature(
            (TensorSpec("input_ids", (None, tokens), "int64"),),
            (TensorSpec("features", (None, tokens, self.config.d_model), "float32"),),
        )

    def read(self, texts: Sequence[str], tokens: int) -> Texts:
        """Request the features (T, D) of N texts of a length."""

        def encode(distinct: Sequence[str]) -> list[tuple[Chunk, ...]]:
            return take_rows(self.tokenizer.encode(distinct, tokens))

        return Texts.tokenize(self.component, texts, encode, Wanted("features"))


def _open(
    checkpoint: Checkpoint,
    config: DiffusionConfig,
    name: str,
    network_config: CLIPTextConfig | T5Config,
    **form: Any,
) -> Component:
    generators = {"input_ids": integers(0, network_config.vocab_size)}
    return open_component(checkpoint, config, name, network_config, generators=generators, **form)


def _check_vocabulary(
    checkpoint: Checkpoint,
    tokenizer: CLIPTokenizer | T5Tokenizer,
    what: str,
    name: str,
    config: CLIPTextConfig | T5Config,
) -> None:
    if tokenizer.largest_id >= config.vocab_size:
        raise UnsupportedModelError(
            f"{checkpoint.path}: {what} gives ids up to {tokenizer.largest_id}, and {name} knows "
            f"{config.vocab_size} tokens: they are not of one model",
            fix="use the tokenizer of this checkpoint",
        )
