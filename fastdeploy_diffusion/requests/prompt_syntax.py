"""Syntax of other tools in prompts: it is read as plain text, and that is said."""

import re
import warnings
from collections.abc import Iterable

from fastdeploy_diffusion.shown import show

# What it looks like, and what it does elsewhere. Bounded, for prompts may be very long.
_SYNTAX = (
    (r"\([^():]{0,200}[^():\d]:\d{1,2}(?:\.\d{1,3})?\)", "weights of words"),
    (r"\{[^{}|]{1,200}\|[^{}]{0,200}\}", "alternatives"),
    (r"(?<!\w)__[a-zA-Z](?:[\w/-]{0,60}[a-zA-Z0-9])?__(?!\w)", "wildcards"),
    (r"<lora:[^<>]{1,200}>", "LoRAs"),
    (r"\[[^\[\]:]{0,200}:[^\[\]:]{0,200}:\d{1,3}(?:\.\d{1,3})?\]", "words that change by the step"),
)
_PATTERNS = tuple((re.compile(pattern), meaning) for pattern, meaning in _SYNTAX)


class PromptSyntaxWarning(UserWarning):
    """A prompt has what other tools read as more than words; here it is text like all other."""


def warn_of_syntax(prompts: Iterable[str]) -> None:
    """Say of the first use of each kind of foreign syntax that it is read as plain text.

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
