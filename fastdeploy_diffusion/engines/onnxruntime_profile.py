"""The trace that ONNX Runtime writes when it profiles, as times of operators."""

import json
from collections import defaultdict
from pathlib import Path

from fastdeploy_diffusion.runtime.session import OperatorTime

_KERNEL = "_kernel_time"


def read_profile(path: Path) -> list[OperatorTime]:
    """Average each operator's time over the runs of a trace, without the first, which allocates."""
    events = json.loads(path.read_text(encoding="utf-8"))
    starts = sorted(each["ts"] for each in events if each["name"] == "model_run")
    totals: dict[tuple[str, str], float] = defaultdict(float)
    for each in events:
        if each["cat"] == "Node" and each["name"].endswith(_KERNEL) and each["ts"] >= starts[1]:
            name = each["name"].removesuffix(_KERNEL)
            totals[name, each["args"]["op_name"]] += each["dur"] / 1e6
    return [OperatorTime(*key, total / (len(starts) - 1)) for key, total in totals.items()]
