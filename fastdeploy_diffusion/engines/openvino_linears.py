"""The choice between OpenVINO's two kernels for float32 linear layers, MLAS and oneDNN.

OpenVINO 2026.4 runs linear layers with MLAS, and only those with an activation behind them with
oneDNN. With AVX-512, oneDNN is 1.1 to 1.4 times as fast where the sums are long and the rows many,
as in Flux and T5, and slower where the rows are few. So an activation that changes no number
follows those: a leaky ReLU that does not leak, with the slope of one.
"""

from math import prod
from typing import Any

import numpy as np

from fastdeploy_diffusion.machine import describe_machine

# Measured on two cores of a Xeon with AVX-512, for 18 widths of SD, SDXL, Flux and T5.
_INPUTS, _ROWS = 2048, 256


def prefer_onednn(model: Any) -> None:
    """Move linear layers of known shapes to oneDNN, in place, where it is faster."""
    if "avx512f" not in (describe_machine()["cpu_flags"] or ()):
        return
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul" and _is_large(node):
            _follow_by_identity(_find_sum(node.output(0)))


def _is_large(product: Any) -> bool:
    rows, weights = product.input_value(0).partial_shape, product.input_value(1)
    return (
        rows.is_static
        and _is_constant(weights)
        and rows[-1].get_length() >= _INPUTS
        and prod(rows.to_shape()[:-1]) >= _ROWS
    )


def _is_constant(value: Any) -> bool:
    node = value.get_node()
    while node.get_type_name() == "Convert":  # weights may be stored in half precision
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _find_sum(product: Any) -> Any:
    """Find the bias sum of a product, before the activation; the product itself without one."""
    nodes = [each.get_node() for each in product.get_target_inputs()]
    is_biased = [each.get_type_name() for each in nodes] == ["Add"] and any(
        _is_constant(each.get_source_output()) for each in nodes[0].inputs()
    )
    return nodes[0].output(0) if is_biased else product


def _follow_by_identity(value: Any) -> None:
    from openvino import opset8

    targets = value.get_target_inputs()
    same = opset8.prelu(value, opset8.constant(np.ones(1, np.float32)))
    for each in targets:
        each.replace_source_output(same.output(0))
