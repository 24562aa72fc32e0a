"""The sub-predictor that sums up prompts as one vector each."""

from collections.abc import Sequence

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.predictors.clip_encoder import CLIPEncoder
from fastdeploy_diffusion.predictors.prompt_encoder import Texts, Wanted
from fastdeploy_diffusion.program import Signature, TensorSpec
from fastdeploy_diffusion.tokenizers import CLIPTokenizer


class PooledTextEncoder(CLIPEncoder):
    """Tokenizer and CLIP text encoder, of which Flux takes the pooled output.

    Args and errors are those of `CLIPEncoder`, without ``wrap``.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: DiffusionConfig, tokenizer: CLIPTokenizer
    ) -> None:
        wrap = defer("fastdeploy_diffusion.models.components:PooledTextConditioner")
        super().__init__(checkpoint, config, tokenizer, wrap)

    def signature(self) -> Signature:
        """For any number of texts of the tokenizer's length."""
        return Signature(
            (TensorSpec("input_ids", (None, self.tokenizer.max_length), "int64"),),
            (TensorSpec("pooled", (None, self.config.hidden_size), "float32"),),
        )

    def read(self, texts: Sequence[str]) -> Texts:
        """Ask for the sums (P,) of N texts."""
        return self._read(texts, self.tokenizer.encode, Wanted("pooled"))
