"""The sub-predictor of SDXL that turns prompts into conditioning, and sums them up."""

from collections.abc import Sequence

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.predictors.prompt_encoder import Texts, Wanted
from fastdeploy_diffusion.predictors.text_encoder import TextEncoder
from fastdeploy_diffusion.tokenizers import CLIPTokenizer


class ProjectedTextEncoder(TextEncoder):
    """SDXL's second text encoder: hidden states, and the pooled output after a projection.

    Args and errors are those of `TextEncoder`, without ``name``.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: DiffusionConfig,
        tokenizer: CLIPTokenizer,
        *,
        normalize: bool,
        unread: int,
    ) -> None:
        super().__init__(
            checkpoint,
            config,
            tokenizer,
            "text_encoder_2",
            normalize=normalize,
            unread=unread,
        )

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled output."""
        return self.config.projection_dim

    def read_pooled(self, texts: Sequence[str]) -> Texts:
        """Ask for the sums (P,) of N texts; reading them for `read` as well costs nothing more."""
        return self._read(texts, self.tokenizer.encode, Wanted("pooled"))
