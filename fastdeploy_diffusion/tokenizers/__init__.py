"""Prompts to token ids, on the `tokenizers` library."""

from fastdeploy_diffusion.tokenizers.clip import CLIPTokenizer
from fastdeploy_diffusion.tokenizers.t5 import T5Tokenizer
from fastdeploy_diffusion.tokenizers.texts import TokenizedPrompts, TruncationWarning

__all__ = ["CLIPTokenizer", "T5Tokenizer", "TokenizedPrompts", "TruncationWarning"]
