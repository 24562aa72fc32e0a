"""The syntax of prompts, and warnings of other tools' syntax that is read as plain text."""

import re
import warnings
from collections.abc import Iterable

from fastdeploy_diffusion.request_fields import PLAIN
from fastdeploy_diffusion.shown import show

# Pattern, and its meaning elsewhere. Bounded, for prompts may be very long.
_NOT_YET = (
    (r"\{[^{}|]{1,200}\|[^{}]{0,200}\}", "alternatives"),
    (r"(?<!\w)__[a-zA-Z](?:[\w/-]{0,60}[a-zA-Z0-9])?__(?!\w)", "wildcards"),
    (r"\[[^\[\]:]{0,200}:[^\[\]:]{0,200}:\d{1,3}(?:\.\d{1,3})?\]", "words that change by the step"),
)
_LORA = r"<lora:[^<>]{1,200}>"
_WEIGHTED = (
    (r"\([^():]{0,200}[^():\d]:\d{1,2}(?:\.\d{1,3})?\)", "weights of words"),
    (r"(?<=[^A-Z\s])\s{0,20}\bBREAK\b(?!\s{0,20}[A-Z]{2})", "chunks of prompts"),
)


class PromptSyntaxWarning(UserWarning):
    """A prompt has syntax of other tools, which is read as plain text here."""


def warn_of_syntax(prompts: Iterable[str], syntax: str) -> None:
    """Warn of the first use of each kind of syntax that is not read.

    Args:
        syntax: As `GenerationRequest.prompt_syntax`.

    Warns:
        PromptSyntaxWarning: Names what it found.
    """
    texts = list(dict.fromkeys(prompts))
    for pattern, meaning in _NOT_YET:
        _warn(texts, pattern, f"{meaning} are not there yet")
    _warn(texts, _LORA, "LoRAs are loaded by load_lora, --lora or adapters")
    if syntax == PLAIN:
        for pattern, meaning in _WEIGHTED:
            _warn(texts, pattern, f"prompt_syntax='weighted' reads {meaning}; Flux has none")


def _warn(texts: list[str], pattern: str, advice: str) -> None:
    compiled = re.compile(pattern)
    found = next(filter(None, map(compiled.search, texts)), None)
    if found:
        warnings.warn(
            f"{show(found[0].strip())} in the prompt is read as plain text: {advice}",
            PromptSyntaxWarning,
            stacklevel=5,
        )
