"""The sub-predictor that turns prompts into conditioning."""

from collections.abc import Sequence

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.predictors.clip_encoder import CLIPEncoder
from fastdeploy_diffusion.predictors.prompt_encoder import Texts, Wanted
from fastdeploy_diffusion.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import Size
from fastdeploy_diffusion.tokenizers import CLIPTokenizer


class TextEncoder(CLIPEncoder):
    """Tokenizer and CLIP text encoder, of which Stable Diffusion takes the hidden states.

    Args and errors are those of `CLIPEncoder`, without ``wrap``.

    Args:
        normalize: Whether the hidden states go through the final LayerNorm.
        unread: How many of the last layers nobody reads.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: DiffusionConfig,
        tokenizer: CLIPTokenizer,
        name: str = "text_encoder",
        *,
        normalize: bool = True,
        unread: int = 0,
    ) -> None:
        super().__init__(
            checkpoint,
            config,
            tokenizer,
            defer("fastdeploy_diffusion.models.components:TextConditioner", normalize),
            name,
        )
        self._unread = unread

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled output."""
        return self.config.hidden_size

    def signature(self, batch: Size = None) -> Signature:
        """For this many texts of the tokenizer's length."""
        tokens, width = self.tokenizer.max_length, self.config.hidden_size
        layers = self.config.num_hidden_layers + 1
        return Signature(
            (TensorSpec("input_ids", (batch, tokens), "int64"),),
            (
                TensorSpec("hidden_states", (layers, batch, tokens, width), "float32"),
                TensorSpec("pooled", (batch, self.pooled_dim), "float32"),
            ),
        )

    def check_clip_skip(self, clip_skip: int) -> None:
        """Refuse a number of layers that the encoder does not have."""
        largest = self.config.num_hidden_layers - self._unread
        if not 0 <= clip_skip <= largest:
            raise RequestError(
                f"clip_skip is {clip_skip}",
                allowed=f"0 to {largest}, the layers of {self.component.name}",
            )

    def read(self, texts: Sequence[str], clip_skip: int) -> Texts:
        """Ask for the hidden states (T, D) of N texts, but for this many of the last layers."""
        layer = -(clip_skip + self._unread + 1)
        return self._read(texts, self.tokenizer.encode, Wanted("hidden_states", layer))
