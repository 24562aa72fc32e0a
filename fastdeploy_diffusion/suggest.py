"""Allowed names in messages and help texts."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


def did_you_mean(
    given: object, allowed: Iterable[str], synonyms: Mapping[str, str] | None = None
) -> str:
    """Name the allowed word that ``given`` was probably meant to be.

    Args:
        given: The word that was refused; a value that is no text has no match.
        allowed: Words that are accepted.
        synonyms: Other names, in lower case with ``-`` for ``_`` (``{"half": "fp16"}``); those
            of words that are not allowed are ignored.

    Returns:
        ``"did you mean 'fp16'?"``, or an empty string without a close match.
    """
    if not isinstance(given, str):
        return ""
    words = {_normalise(word): word for word in allowed}
    key = _normalise(given)
    meant = (synonyms or {}).get(key)
    if meant not in words.values():
        meant = next((words[close] for close in get_close_matches(key, words, n=1)), None)
    return f"did you mean {meant!r}?" if meant else ""


def list_choices(names: Iterable[str]) -> str:
    """List names in a sentence: ``"fp32, fp16 or bf16"``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _normalise(word: str) -> str:
    return word.strip().lower().replace("_", "-")
