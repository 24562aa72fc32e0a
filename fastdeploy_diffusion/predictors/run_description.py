"""The components that ran, for a picture's metadata."""

from collections.abc import Sequence
from typing import Any

from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.component import ComponentReport


def describe_run(components: Sequence[ComponentReport]) -> dict[str, Any]:
    """Describe the components that ran, as JSON values."""
    return {
        "components": {
            each.name: {
                "engine": each.engine,
                "device": each.device,
                "precision": each.precision,
                "fallback": each.fallback,
                "relative_error": each.relative_error,
                **({"left_out": dict(each.left_out)} if each.left_out else {}),
                **_describe_changes(each),
            }
            for each in components
        }
    }


def _describe_changes(report: ComponentReport) -> dict[str, Any]:
    """Describe for a picture's metadata what changes it on purpose: passes, and int8's cost."""
    changes: dict[str, Any] = {}
    if report.changes_picture:
        changes["changes_picture"] = report.changes_picture
    if report.tiling:
        changes["tiling"] = report.tiling
    if report.int8 is not None and PRECISIONS[report.precision].is_quantized:
        changes["int8"] = report.int8.metadata
    return changes
