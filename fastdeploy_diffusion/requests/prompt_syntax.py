"""Warns of other tools' syntax in prompts, which is read as plain text."""

import re
import warnings
from collections.abc import Iterable

from fastdeploy_diffusion.shown import show

# Pattern, and its meaning elsewhere. Bounded, for prompts may be very long.
_SYNTAX = (
    (r"\([^():]{0,200}[^():\d]:\d{1,2}(?:\.\d{1,3})?\)", "weights of words"),
    (r"\{[^{}|]{1,200}\|[^{}]{0,200}\}", "alternatives"),
    (r"(?<!\w)__[a-zA-Z](?:[\w/-]{0,60}[a-zA-Z0-9])?__(?!\w)", "wildcards"),
    (r"<lora:[^<>]{1,200}>", "LoRAs"),
    (r"\[[^\[\]:]{0,200}:[^\[\]:]{0,200}:\d{1,3}(?:\.\d{1,3})?\]", "words that change by the step"),
)
_PATTERNS = tuple((re.compile(pattern), meaning) for pattern, meaning in _SYNTAX)


class PromptSyntaxWarning(UserWarning):
    """A prompt has syntax of other tools, which is read as plain text here."""


def warn_of_syntax(prompts: Iterable[str]) -> None:
    """Warn of the first use of each kind of foreign syntax.

    Warns:
        PromptSyntaxWarning: Names what it found.
    """
    texts = list(dict.fromkeys(prompts))
    for pattern, meaning in _PATTERNS:
        found = next(filter(None, map(pattern.search, texts)), None)
        if found:
            warnings.warn(
                f"{show(found[0])} in the prompt is read as plain text: {meaning} are not there "
                "yet",
                PromptSyntaxWarning,
                stacklevel=4,
            )
