"""The sub-predictor that turns prompts into T5's features."""

from collections.abc import Sequence

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import integers
from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.predictors.prompt_encoder import PromptEncoder, Texts, Wanted
from fastdeploy_diffusion.program import Signature, TensorSpec
from fastdeploy_diffusion.tokenizers import T5Tokenizer


class T5TextEncoder(PromptEncoder):
    """Tokenizer and T5 encoder.

    Args:
        checkpoint: Where config and weights come from.
        config: Engine, device and precision.
        tokenizer: Its vocabulary must be the encoder's.

    Raises:
        UnsupportedModelError: The encoder's config is not implemented, or tokenizer and encoder
            do not fit together.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: DiffusionConfig, tokenizer: T5Tokenizer
    ) -> None:
        self.tokenizer = tokenizer
        self.config = checkpoint.read_network("text_encoder_2", T5Config.from_dict)
        if tokenizer.largest_id >= self.config.vocab_size:
            raise UnsupportedModelError(
                f"{checkpoint.path}: tokenizer_2 gives ids up to {tokenizer.largest_id}, and "
                f"text_encoder_2 knows {self.config.vocab_size} tokens: they are not of one model",
                fix="use the tokenizer of this checkpoint",
            )
        self.component = open_component(
            checkpoint,
            config,
            "text_encoder_2",
            self.config,
            generators={"input_ids": integers(0, self.config.vocab_size)},
        )

    def signature(self, tokens: int) -> Signature:
        """For any number of texts of this length."""
        return Signature(
            (TensorSpec("input_ids", (None, tokens), "int64"),),
            (TensorSpec("features", (None, tokens, self.config.d_model), "float32"),),
        )

    def read(self, texts: Sequence[str], tokens: int) -> Texts:
        """Ask for the features (T, D) of N texts of this length."""
        return self._read(
            texts, lambda distinct: self.tokenizer.encode(distinct, tokens), Wanted("features")
        )
