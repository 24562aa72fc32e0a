"""The result of a pass, as the manifest of a build keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PassResult:
    """The result of a pass on one network.

    Args:
        expected: How many the model's config promises; ``None`` where nothing is promised.
        skipped: Why it refused places that match, by their names.
    """

    name: str
    count: int
    expected: int | None
    skipped: Mapping[str, str]

    @property
    def is_as_promised(self) -> bool:
        """Whether the count is the expected one; ``True`` where nothing is promised."""
        return self.expected in (None, self.count)
