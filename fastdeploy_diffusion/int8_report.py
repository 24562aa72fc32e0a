"""What int8 costs a model, measured on its pictures: for reports, metadata and bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class PictureQuality:
    """How far pictures in int8 are from those in float32, of the same prompts and seeds.

    Args:
        psnr: Mean over the pictures, in dB.
        worst_psnr: Of the worst picture.
        ssim: Mean structural similarity; 1 is the same.
        pictures: Their number.
        steps: Of each.
    """

    psnr: float
    worst_psnr: float
    ssim: float
    pictures: int
    steps: int

    def __str__(self) -> str:
        return (
            f"PSNR {self.psnr:.1f} dB (worst {self.worst_psnr:.1f}), SSIM {self.ssim:.3f}, "
            f"{self.pictures} pictures of {self.steps} steps"
        )


@dataclass(frozen=True)
class BlockCost:
    """What a block costs when it alone is in int8.

    Args:
        block: Prefix of its layers' names.
        layers: How many of them can be quantized.
        error: Root mean square of the change of the component's output, as a share of the output's;
            ``None`` where it was not measured, for no block had to go back.
        is_kept: Whether it went back to floating point.
    """

    block: str
    layers: int
    error: float | None = None
    is_kept: bool = False


@dataclass(frozen=True)
class Int8Report:
    """The layers of a component that are in int8, and what that costs.

    Args:
        quality: Of the model's pictures with every component as it runs.
        target: The least PSNR that was asked for, in dB.
        unquantized: The precision of what is not in int8.
        unquantized_psnr: Of pictures wholly in that precision, in dB; ``None`` where it was not
            measured, for the target was reached at once.
        own_psnr: Of the decoder alone, where it was judged by itself, in dB.
        blocks: By cost, the worst first, where that was measured; empty where weights alone are in
            int8.
        sensitive: How many layers stay in floating point without being measured.
        stand_in: The engine, and the device, on which all of it was measured, if not on its own.
    """

    quality: PictureQuality
    target: float
    unquantized: str
    unquantized_psnr: float | None = None
    own_psnr: float | None = None
    blocks: tuple[BlockCost, ...] = ()
    sensitive: int = 0
    stand_in: str = ""

    @property
    def quantized(self) -> int:
        """The number of layers in int8."""
        return sum(each.layers for each in self.blocks if not each.is_kept)

    @property
    def kept(self) -> tuple[BlockCost, ...]:
        """The blocks that went back to floating point."""
        return tuple(each for each in self.blocks if each.is_kept)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the metadata of a picture says."""
        measured_on = {"measured_on": self.stand_in} if self.stand_in else {}
        return {"target_psnr": self.target, **asdict(self.quality), **measured_on}

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> Int8Report:
        """Parse what ``dataclasses.asdict`` made of one."""
        return replace(
            cls(**described),
            quality=PictureQuality(**described["quality"]),
            blocks=tuple(BlockCost(**each) for each in described["blocks"]),
        )
