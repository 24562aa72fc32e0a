"""How far components are from the limit, and their slowest operators, in words and cells."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.table import UNKNOWN, format_seconds
from fastdeploy_diffusion.benchmark.roofline.roofline import Roofline

ROOFLINE_HEADINGS = (
    *("component", "on", "p50", "GFLOP", "GFLOP plain", "GB", "GFLOP/s", "limit", "of it"),
    *("peak, products", "peak, convolutions", "peak, copies"),
)
OPERATOR_HEADINGS = ("component", "operator", "kind", "time", "share")
_KINDS = 3


def list_rooflines(rooflines: Sequence[Roofline]) -> list[list[str]]:
    """Set each component against its limit: cells under ``ROOFLINE_HEADINGS``."""
    return [
        [
            each.component,
            f"{each.engine} {each.precision}",
            format_seconds(each.p50),
            f"{each.flops / 1e9:.3g}",
            f"{each.plain_flops / 1e9:.3g}",
            f"{each.moved_bytes / 1e9:.3g}",
            f"{each.flops / each.p50 / 1e9:.3g}",
            format_seconds(each.limit),
            f"{each.share:.0%}",
            f"{each.peaks.matrix_product / 1e9:.3g} GFLOP/s",
            f"{each.peaks.convolution / 1e9:.3g} GFLOP/s",
            f"{each.peaks.bandwidth / 1e9:.3g} GB/s" if each.peaks.bandwidth else UNKNOWN,
        ]
        for each in rooflines
    ]


def list_operators(rooflines: Sequence[Roofline]) -> list[list[str]]:
    """Name the slowest operators: cells under ``OPERATOR_HEADINGS``."""
    return [
        [
            each.component,
            operator.name,
            operator.kind,
            format_seconds(operator.seconds),
            f"{operator.seconds / sum(each.kinds.values()):.1%}",
        ]
        for each in rooflines
        for operator in each.operators
    ]


def describe_roofline(roofline: Roofline) -> str:
    """Say how much of what is possible a component reaches, and what takes its time."""
    whole = sum(roofline.kinds.values())
    kinds = [f"{name} {each / whole:.0%}" for name, each in roofline.kinds.items()][:_KINDS]
    return (
        f"{roofline.component} on {roofline.engine} {roofline.precision}, "
        f"{roofline.case.work}: {roofline.share:.0%} of the limit "
        f"({format_seconds(roofline.p50)} a run, {format_seconds(roofline.limit)} at the peaks); "
        + (f"most time in {', '.join(kinds)}" if kinds else f"operators: {roofline.unprofiled}")
    )
