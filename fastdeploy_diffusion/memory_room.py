"""The memory that this process may still take, by the machine, control groups and own limit."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60  # control groups of version 1 say "no limit" with a number near 2**63
_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")


@dataclass(frozen=True)
class MemoryRoom:
    """The free memory, and the limit that it is counted against.

    Args:
        size: In bytes; 0 or more.
        limit: In words: ``"the machine"``.
    """

    size: int
    limit: str

    def __str__(self) -> str:
        return f"{format_size(self.size)} of {self.limit}"


def find_memory_room(root: Path = Path("/")) -> MemoryRoom | None:
    """Find the tightest of the limits that Linux sets; ``None`` if it is unknown.

    Pages of files that can be dropped count as room, and so does free swap.
    """
    rooms = [*_ask_machine(root), *_ask_cgroups(root), *_ask_address_space(root)]
    return min(rooms, key=lambda room: room.size, default=None)


def measure_own_memory(root: Path = Path("/")) -> int:
    """Measure the bytes that this process holds, without mapped files; 0 if unknown."""
    return _read_fields(root / "proc/self/status").get("RssAnon", 0)


def format_size(size: int) -> str:
    """Write bytes in a fitting unit, with powers of 1024."""
    if size >= 2**60:
        return "more than 1,000,000 TiB"
    unit, power = next(
        (unit, power)
        for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20))
        if size >= 2**power or unit == "MiB"
    )
    return f"{size / 2**power:,.1f} {unit}"


def _ask_machine(root: Path) -> Iterator[MemoryRoom]:
    memory = _read_fields(root / "proc/meminfo")
    if "MemAvailable" in memory:
        yield MemoryRoom(memory["MemAvailable"] + memory.get("SwapFree", 0), "this machine")


def _ask_cgroups(root: Path) -> Iterator[MemoryRoom]:
    """Read the limits of this process's control groups and their parents, which all hold."""
    swap = _read_fields(root / "proc/meminfo").get("SwapFree", 0)
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
            names, prefix = ("memory.max", "memory.current"), ""
        elif "memory" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup/memory"]
            names, prefix = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_"
        else:
            continue
        for mount in mounts:
            # In a container the path is often the host's, and the mount shows the group itself.
            group = mount / path.lstrip("/")
            for folder in (group, *group.parents) if group.is_dir() else (mount,):
                limit, used = (_read_number(folder / name) for name in names)
                if limit is not None and used is not None and limit < _UNLIMITED:
                    kept = _read_fields(folder / "memory.stat", separator=" ")
                    free = sum(kept.get(prefix + name, 0) for name in _RECLAIMABLE)
                    room = max(limit - used + free + swap, 0)
                    yield MemoryRoom(room, f"the control group {folder}")
                if folder == mount:
                    break


def _ask_address_space(root: Path) -> Iterator[MemoryRoom]:
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _read_fields(root / "proc/self/status").get("VmSize")
    if limit != resource.RLIM_INFINITY and used is not None:
        yield MemoryRoom(max(limit - used, 0), "the limit of this process (ulimit -v)")


def _read_fields(file: Path, separator: str = ":") -> dict[str, int]:
    """Read lines of a name and a number; kB become bytes."""
    fields = {}
    for line in _read_text(file).splitlines():
        name, _, rest = line.partition(separator)
        number, *unit = rest.split() or [""]
        if number.isdecimal():
            fields[name.strip()] = int(number) * (1024 if unit == ["kB"] else 1)
    return fields


def _read_number(file: Path) -> int | None:
    text = _read_text(file).strip()
    return int(text) if text.isdecimal() else None


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not there on this system
