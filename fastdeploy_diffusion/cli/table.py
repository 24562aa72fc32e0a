"""Plain text in columns."""

from collections.abc import Sequence

LINE = 100
"""Largest length of a table's lines."""
_SHORTEST = 8  # characters that a cell which is cut keeps at least


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad the cells of each column to one width, two spaces apart; the last cell stays as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]).rstrip()
        for row in rows
    ]


def align_within(width: int, rows: Sequence[Sequence[str]], shortened: int) -> list[str]:
    """Align as `align`, and cut the cells of one column where lines would be too long.

    Args:
        shortened: Index of the column that may be cut, its cells' ends marked with "…".
    """
    excess = max(map(len, align(rows))) - width
    longest = max(max(len(row[shortened]) for row in rows) - excess, _SHORTEST)
    cut = [
        [cell if index != shortened else _cut(cell, longest) for index, cell in enumerate(row)]
        for row in rows
    ]
    return align(cut)


def format_bytes(size: int) -> str:
    """Write a size with its unit: ``2.9 MiB``."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def format_age(seconds: float) -> str:
    """Write how long ago something was: ``5 min``; a clock that was set back gives ``now``."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return "now"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
