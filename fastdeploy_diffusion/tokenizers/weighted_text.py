r"""Weights of words in a prompt, in the syntax of AUTOMATIC1111's web UI.

=================  ==============================================
``(text)``         1.1 times the weight, again for each pair
``[text]``         1 / 1.1 times the weight, again for each pair
``(text:1.3)``     1.3 times the weight
``\( \) \[ \] \\`` the character itself
``BREAK``          what follows starts a chunk
=================  ==============================================

What is never closed counts as closed at the end, and what was never opened is text. One backslash
before another character is left out. Pairs of the two kinds may overlap.

Source: the rules and examples that "Attention/emphasis" in its wiki and its ``prompt_parser.py``
give. Inside of brackets, ``BREAK`` is a word there; here it starts a chunk everywhere.
"""

import math
import re
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.shown import show

# Open at once: more have no use, and each costs a walk over the text behind it.
MOST_BRACKETS = 50

_ROUND = 1.1
_FACTORS = {")": _ROUND, "]": 1 / _ROUND}
_OPENERS = {")": "(", "]": "["}
_MARK = re.compile(
    r"\\(?P<escaped>[()\[\]\\]?)"
    r"|(?P<opens>[(\[])"
    r"|:\s*(?P<weight>[+-]?[.\d]+)\s*\)"
    r"|(?P<closes>[)\]])"
    r"|(?P<breaks>\bBREAK\b)"
)


class WeightedText(NamedTuple):
    """A part of a prompt whose words have one weight; 1 is a word's own."""

    text: str
    weight: float


def read_weights(prompt: str) -> list[list[WeightedText]]:
    """Split a prompt into parts with one weight each.

    Returns:
        A list for each stretch between two ``BREAK``, which may be empty; neighbours differ in
        weight.

    Raises:
        RequestError: A weight is no number, or more than `MOST_BRACKETS` brackets are open at once.
    """
    reader, end = _Reader(), 0
    for mark in _MARK.finditer(prompt):
        reader.add(prompt[end : mark.start()])
        reader.read(mark)
        end = mark.end()
    reader.add(prompt[end:])
    return reader.finish()


class _Reader:
    """The parts read so far, and the places of the brackets that are open."""

    def __init__(self) -> None:
        self._stretches: list[list[int]] = [[]]  # of indices of parts
        self._texts: list[str] = []
        self._weights: list[float] = []
        self._open: dict[str, list[int]] = {"(": [], "[": []}
        self._is_after_break = False

    def add(self, text: str) -> None:
        """Add text as it is, without the space that follows a break."""
        if self._is_after_break:
            text = text.lstrip()
            self._is_after_break = False
        if text:
            self._append(text)

    def read(self, mark: re.Match[str]) -> None:
        opens, closes, weight = mark["opens"], mark["closes"], mark["weight"]
        if opens:
            self._open[opens].append(len(self._texts))
            if sum(map(len, self._open.values())) > MOST_BRACKETS:
                raise RequestError(
                    f"more than {MOST_BRACKETS} brackets are open at once in the prompt "
                    f"{show(mark.string)}",
                    allowed=f"up to {MOST_BRACKETS} brackets, one inside the other",
                    fix=r"give a weight, (word:1.3); or write \( where a bracket is meant",
                )
        elif mark["breaks"]:
            if self._stretches[-1]:
                last = self._stretches[-1][-1]
                self._texts[last] = self._texts[last].rstrip()
            self._stretches.append([])
            self._is_after_break = True
        elif weight is not None and self._open["("]:
            self._scale(self._open["("].pop(), _read_weight(weight, mark))
        elif closes and self._open[_OPENERS[closes]]:
            self._scale(self._open[_OPENERS[closes]].pop(), _FACTORS[closes])
        else:
            escaped = mark["escaped"]
            self._append(mark[0] if escaped is None else escaped)

    def finish(self) -> list[list[WeightedText]]:
        """Close what is open, and join neighbours of one weight."""
        for closes, opens in _OPENERS.items():
            for place in self._open[opens]:
                self._scale(place, _FACTORS[closes])
        parts = list(map(WeightedText, self._texts, self._weights))
        return [_join([parts[index] for index in stretch]) for stretch in self._stretches]

    def _append(self, text: str) -> None:
        self._stretches[-1].append(len(self._texts))
        self._texts.append(text)
        self._weights.append(1.0)

    def _scale(self, place: int, factor: float) -> None:
        for index in range(place, len(self._weights)):
            self._weights[index] *= factor


def _read_weight(text: str, mark: re.Match[str]) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise RequestError(
            f"a weight in the prompt is {show(text)}: {show(mark[0])}",
            allowed="a number, as in (word:1.3)",
            fix=r"write \( and \) where brackets are meant",
        )
    return weight


def _join(parts: list[WeightedText]) -> list[WeightedText]:
    joined = [
        WeightedText("".join(each.text for each in same), weight)
        for weight, same in groupby(parts, attrgetter("weight"))
    ]
    return [each for each in joined if each.text]
