"""The few SVG elements that the charts are drawn with, and what carries them in a page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH = 440  # user units; about the pixels of a column on a desktop, scaled down on a phone
_MARGIN = 8
LETTER = 6.5  # width of a small one, about


@dataclass(frozen=True)
class Figure:
    """A chart for the page.

    Args:
        legend: What the colours mean, by CSS class.
    """

    name: str
    title: str
    svg: str
    legend: Mapping[str, str] = field(default_factory=dict)
    caption: str = ""


class Drawing:
    """Collects elements and gives them as one ``<svg>``.

    Args:
        title: Its name for those who do not see it.
        height: In user units.
    """

    def __init__(self, title: str, height: float) -> None:
        self._title, self._height = title, height
        self._elements: list[str] = []

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start") -> None:
        """Write words on a baseline."""
        self._add("text", {"x": x, "y": y, "class": style, "text-anchor": anchor}, escape(words))

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Draw a line."""
        self._add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})

    def bar(
        self, x: float, y: float, width: float, height: float, style: str, says: str, **data: object
    ) -> None:
        """Draw a rectangle that says something when pointed at, and carries its data."""
        shape = {"x": x, "y": y, "width": max(width, 0.5), "height": height, "class": style}
        self._add_mark("rect", shape, says, data)

    def dot(self, x: float, y: float, radius: float, style: str, says: str, **data: object) -> None:
        """Draw a circle that says something when pointed at, and carries its data."""
        self._add_mark("circle", {"cx": x, "cy": y, "r": radius, "class": style}, says, data)

    def render(self) -> str:
        """Give the whole drawing."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {_write(self._height)}" role="img" '
            f'xmlns="http://www.w3.org/2000/svg"><title>{escape(self._title)}</title>'
            f"{''.join(self._elements)}</svg>"
        )

    def _add_mark(
        self, tag: str, shape: Mapping[str, object], says: str, data: Mapping[str, object]
    ) -> None:
        carried = {f"data-{name}": value for name, value in data.items()}
        self._add(tag, {**shape, **carried}, f"<title>{escape(says)}</title>")

    def _add(self, tag: str, attributes: Mapping[str, object], content: str = "") -> None:
        words = "".join(
            f' {name}="{escape(_write(value))}"'
            for name, value in attributes.items()
            if value != ""
        )
        self._elements.append(f"<{tag}{words}>{content}</{tag}>")


@dataclass(frozen=True)
class Scale:
    """Maps values from ``low`` to ``high`` to places from ``start`` to ``end``.

    Args:
        is_log: Whether equal factors are equally far apart.
    """

    low: float
    high: float
    start: float = _MARGIN
    end: float = WIDTH - _MARGIN
    is_log: bool = False

    def place(self, value: float) -> float:
        """Map a value to its place."""
        low, high, value = (
            (math.log(each) if self.is_log else each) for each in (self.low, self.high, value)
        )
        return self.start + (value - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Choose round values: about four, or those of a logarithmic scale."""
        if self.is_log:
            return [
                factor * 10.0**power
                for power in range(
                    math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1
                )
                for factor in (1, 2, 5)
                if self.low <= factor * 10.0**power <= self.high
            ]
        span = (self.high - self.low) or 1
        size = 10 ** math.floor(math.log10(span / 4))
        step = next(each * size for each in (1, 2, 5, 10) if span / (each * size) <= 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def draw_axis(
    drawing: Drawing, scale: Scale, top: float, bottom: float, labels: Sequence[str]
) -> None:
    """Draw upright lines at a scale's ticks, with a label below each that has the room."""
    taken = -math.inf
    for tick, label in zip(scale.ticks(), labels, strict=True):
        x, width = scale.place(tick), LETTER * len(label)
        drawing.line(x, top, x, bottom, "grid")
        left = min(max(x - width / 2, 0), WIDTH - width)
        if left > taken:
            drawing.text(left, bottom + 14, label, "small")
            taken = left + width + LETTER


def _write(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
