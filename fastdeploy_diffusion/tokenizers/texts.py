"""What every tokenizer takes and gives."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.shown import shorten, show

# Of a text that is longer than anything that is read, so much is tokenized for each token wanted.
_LETTERS_A_TOKEN = 256
_SPACE = re.compile(r"\s")


class TruncationWarning(UserWarning):
    """A prompt has more tokens than the text encoder reads; the end of it was cut off."""


@dataclass(frozen=True)
class TokenizedPrompts:
    """Prompts as a text encoder takes them.

    Attributes:
        input_ids: (B, max_length) int64: prompt, end token, padding; CLIP has a begin token, too.
        truncated: What was cut off each prompt, as the tokens read; "" if nothing was. Of a very
            long one, the beginning of that.
    """

    input_ids: npt.NDArray[np.int64]
    truncated: tuple[str, ...]


class Tokens(NamedTuple):
    """The ids of a text.

    Args:
        ids: As many as there are, or at least twice as many as were wanted.
        is_all: Whether they are all.
    """

    ids: list[int]
    is_all: bool

    def warn_of_cut(self, reads: str, kept: int, cut: str) -> None:
        """Say that the text is too long.

        Args:
            reads: What reads how much of it.
            kept: How many of the ids that is.
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
    """Tokenize a text, or of a very long one as much as tells its first tokens.

    Tokenizers look at one word after the other, so that the text can end behind any word. It ends
    behind twice as many tokens as are wanted: a token that spans words can change only the last.

    Args:
        encode: Gives the ids of a text.
        text: The text.
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
