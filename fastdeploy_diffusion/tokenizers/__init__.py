"""Prompts to token ids, on the `tokenizers` library."""

from fastdeploy_diffusion.tokenizers.clip import (
    CLIPTokenizer,
    TokenizedPrompts,
    TruncationWarning,
)

__all__ = ["CLIPTokenizer", "TokenizedPrompts", "TruncationWarning"]
