"""The way back from canonical names to stored ones, by the same tables of patterns."""

import re
from collections.abc import Sequence

from fastdeploy_diffusion.families.keys.rules import KeyRule

_REFERENCE = re.compile(r"\\(\d+)|\\g<(\w+)>")
# A part of a pattern: a group, a set of letters, an escaped letter, or a letter.
_PART = re.compile(r"\(\?P<(\w+)>([^()]+)\)|\(((?:[^()]|\([^()]*\))+)\)|\[(.)(.)\]|\\(\W)|(\w)")


class ReversedRule:
    r"""One name of a rule, read backwards.

    Of a set of two letters in the pattern, as in ``\.[12]\.``, the stored name has one, and the
    canonical name does not tell which.

    Args:
        rule: ``rename(...)`` of a pattern that can be read backwards: groups, sets of two letters,
            escaped letters and letters.
        index: Of the name among the rule's.

    Attributes:
        is_squeezed: As the rule.
        slices: Of the stored tensor, which make this one, in their order.
        parts: How many slices the stored tensor holds.

    Raises:
        ValueError: Its pattern has something else in it.
    """

    def __init__(self, rule: KeyRule, index: int = 0) -> None:
        self.is_squeezed = rule.squeezed
        self.slices = rule.shares[index]
        self.parts = sum(map(len, rule.shares))
        groups: dict[str, str] = {}
        text, pieces, place = rule.pattern, [""], 0
        while place < len(text):
            part = _PART.match(text, place)
            if part is None:
                raise ValueError(f"{text} cannot be read backwards")
            place = part.end()
            name, named, plain, first, second, escaped, letter = part.groups()
            if named or plain:
                name = name or str(len(groups) + 1)
                groups[name] = named or plain
                pieces = [f"{piece}\\g<group_{name}>" for piece in pieces]
            else:
                letters = [first, second] if first else [escaped or letter]
                pieces = [piece + each for piece in pieces for each in letters]
        self._stored = pieces
        self._canonical = re.compile(_turn_to_pattern(rule.names[index], groups))

    def apply(self, name: str) -> list[str]:
        """Give the stored names that a canonical one may have; none if the rule is not its."""
        match = self._canonical.fullmatch(name)
        return [match.expand(each) for each in self._stored] if match else []


def reverse_rules(rules: Sequence[KeyRule]) -> list[ReversedRule]:
    """Read rules backwards, name by name, leaving out those of tensors that are ignored."""
    return [ReversedRule(rule, index) for rule in rules for index in range(len(rule.names))]


def _turn_to_pattern(template: str, groups: dict[str, str]) -> str:
    pattern, place = "", 0
    for found in _REFERENCE.finditer(template):
        name = found[1] or found[2]
        pattern += f"{re.escape(template[place : found.start()])}(?P<group_{name}>{groups[name]})"
        place = found.end()
    return pattern + re.escape(template[place:])
