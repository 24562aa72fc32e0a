"""What a result was measured on."""

from pathlib import Path


def read_cpu() -> str:
    """The CPU's model name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
