"""The device that a component runs on."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.suggest import did_you_mean

DeviceKind = Literal["cpu", "gpu", "xpu"]

_SYNONYMS = {
    "cuda": "gpu",
    "nvidia": "gpu",
    "kunlun": "xpu",
    "kunlunxin": "xpu",
    "processor": "cpu",
    "host": "cpu",
}


@dataclass(frozen=True)
class Device:
    """A processor of this machine.

    Args:
        kind: ``"cpu"``, ``"gpu"`` (NVIDIA) or ``"xpu"`` (Kunlunxin).
        index: Which of several; a CPU is always 0.
    """

    kind: DeviceKind
    index: int = 0

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"{self.kind}:{self.index}"


def parse_device(text: str) -> Device:
    """Read a device as users write it.

    Args:
        text: ``"cpu"``, ``"gpu"``, ``"gpu:1"``, ``"xpu"`` or ``"xpu:1"``.

    Returns:
        The device; engines check whether the machine has it.

    Raises:
        ConfigError: The text is none of these.
    """
    if match := re.fullmatch(r"(cpu)|(gpu|xpu)(?::([0-9]{1,4}))?", text):
        kind = cast(DeviceKind, match[1] or match[2])
        return Device(kind, int(match[3] or 0))
    kind_given = text.partition(":")[0]
    raise ConfigError(
        f"unknown device {text!r}",
        allowed="cpu, gpu, gpu:N, xpu, xpu:N (N counts from 0)",
        fix=did_you_mean(kind_given, ("cpu", "gpu", "xpu"), _SYNONYMS),
    )
