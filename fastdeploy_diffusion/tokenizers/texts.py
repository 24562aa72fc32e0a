"""What every tokenizer takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import RequestError


class TruncationWarning(UserWarning):
    """A prompt has more tokens than the text encoder reads; the end of it was cut off."""


@dataclass(frozen=True)
class TokenizedPrompts:
    """Prompts as a text encoder takes them.

    Attributes:
        input_ids: (B, max_length) int64: prompt, end token, padding; CLIP has a begin token, too.
        truncated: What was cut off each prompt, as the tokens read; "" if nothing was.
    """

    input_ids: npt.NDArray[np.int64]
    truncated: tuple[str, ...]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is not a list of texts.

    Raises:
        RequestError: No prompts, one bare string, or a prompt that is not Unicode text.
    """
    if isinstance(texts, str) or not texts:
        raise RequestError(f"prompts are {texts!r}", allowed="a list of one or more strings")
    for text in texts:
        if not isinstance(text, str):
            raise RequestError(f"the prompt {text!r} is not a string", allowed="str")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RequestError(
                f"the prompt {text!r} has half a surrogate pair at position {error.start}",
                allowed="Unicode text",
                fix="decode the prompt as UTF-8 where it enters the program",
            ) from None
