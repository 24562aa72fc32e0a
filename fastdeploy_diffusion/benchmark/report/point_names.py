"""Names beside the points of a chart, none on a point or on another name."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastdeploy_diffusion.benchmark.report.svg import LETTER, WIDTH, Drawing

_RADIUS, _ASCENT, _DESCENT = 6, 9, 3
# From a point to the baseline of its name, best first.
_STEPS = (17, -9, 30, -22, 43, -35, 56, -48, 69, -61, 82, -74)


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def touches(self, other: "_Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def write_names(
    drawing: Drawing, points: Sequence[tuple[float, float, str]], top: float, bottom: float
) -> None:
    """Write each point's name (its x, its y, the name) where it has the room, near its point.

    Without any room, it stands below its point, even over others.
    """
    taken = [_Box(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y, _ in points]
    for x, y, name in points:
        anchor = "end" if x > WIDTH / 2 else "start"
        width = LETTER * len(name)
        left = x - width if anchor == "end" else x
        boxes = [
            _Box(left, y + step - _ASCENT, left + width, y + step + _DESCENT) for step in _STEPS
        ]
        free = (
            each
            for each in boxes
            if top <= each.top
            and each.bottom <= bottom
            and not any(each.touches(other) for other in taken)
        )
        box = next(free, boxes[0])
        drawing.text(x, box.bottom - _DESCENT, name, "small", anchor)
        taken.append(box)
