"""Inputs and results of all tokenizers."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.shown import shorten, show

# The characters of a very long text that are tokenized for each wanted token.
_LETTERS_A_TOKEN = 256
_SPACE = re.compile(r"\s")


class TruncationWarning(UserWarning):
    """A prompt has more tokens than the text encoder reads; the end of it was cut off."""


@dataclass(frozen=True)
class TokenizedPrompts:
    """Tokenized prompts for a text encoder.

    Attributes:
        input_ids: (B, max_length) int64: prompt, end token, padding; CLIP has a begin token, too.
        truncated: The truncated end of each prompt, as its tokens decode; "" if there is none. Of
            a very long one, the beginning of that.
    """

    input_ids: npt.NDArray[np.int64]
    truncated: tuple[str, ...]


class Tokens(NamedTuple):
    """The ids of a text.

    Args:
        ids: All, or at least twice as many as wanted.
        is_all: Whether they are all.
    """

    ids: list[int]
    is_all: bool

    def warn_of_cut(self, reads: str, kept: int, cut: str) -> None:
        """Warn that the text is too long.

        Args:
            reads: The encoder and its number of tokens, for the message.
            kept: Number of ids that are kept.
            cut: The text of the others.

        Warns:
            TruncationWarning: Unless all ids are kept.
        """
        if len(self.ids) > kept:
            number = len(self.ids) if self.is_all else f"more than {len(self.ids)}"
            warnings.warn(
                f"the prompt has {number} tokens and {reads}; cut off: {shorten(cut)!r}",
                TruncationWarning,
                stacklevel=3,
            )


def tokenize(encode: Callable[[str], list[int]], text: str, wanted: int) -> Tokens:
    """Tokenize a text, or as much of a very long one as decides its first tokens.

    Tokenizers process one word after the other, so that the text can end after any word. It ends
    after twice as many tokens as wanted: a token that spans words can change only the last.

    Args:
        encode: Returns the ids of a text.
        wanted: How many of its first ids matter.
    """
    length = _LETTERS_A_TOKEN * wanted
    while length < len(text):
        space = _SPACE.search(text, length)
        if space is None:
            break
        ids = encode(text[: space.start()])
        if len(ids) > 2 * wanted:
            return Tokens(ids, is_all=False)
        length = 4 * space.start()
    return Tokens(encode(text), is_all=True)


def check_texts(texts: Sequence[str]) -> None:
    """Refuse anything but a list of texts.

    Raises:
        RequestError: No prompts, one bare string, or a prompt that is not Unicode text.
    """
    if isinstance(texts, str) or not texts:
        raise RequestError(f"prompts are {show(texts)}", allowed="a list of one or more strings")
    for text in texts:
        if not isinstance(text, str):
            raise RequestError(f"the prompt {show(text)} is not a string", allowed="str")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RequestError(
                f"the prompt {show(text)} has half a surrogate pair at position {error.start}",
                allowed="Unicode text",
                fix="decode the prompt as UTF-8 where it enters the program",
            ) from None
