"""Energy of the processor packages, from the counters that Linux calls RAPL."""

from pathlib import Path

_ROOT = Path("/sys/class/powercap")
# Packages only: their cores and memory controllers are counted in them.
_PACKAGES = "intel-rapl:[0-9]"


class EnergyMeter:
    """Counts joules of the whole machine's processors."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._folders = sorted(root.glob(_PACKAGES))
        self._started = self._read()

    @property
    def obstacle(self) -> str:
        """Why energy cannot be measured; empty if it can."""
        if not self._folders:
            return "this machine has no energy counters (RAPL)"
        return "" if self._started else "the energy counters (RAPL) need root to be read"

    def read_joules(self) -> float | None:
        """Joules since the start; ``None`` if nothing can be counted."""
        now = self._read()
        if not now or len(now) != len(self._started):
            return None
        # Microjoules that begin again at 0 when they are full.
        used = [
            (after - before) % full
            for (before, full), (after, _) in zip(self._started, now, strict=True)
        ]
        return sum(used) / 1e6

    def _read(self) -> list[tuple[int, int]]:
        try:
            return [
                (_read_number(each / "energy_uj"), _read_number(each / "max_energy_range_uj") + 1)
                for each in self._folders
            ]
        except (OSError, ValueError):
            return []


def _read_number(file: Path) -> int:
    return int(file.read_text(encoding="utf-8"))
