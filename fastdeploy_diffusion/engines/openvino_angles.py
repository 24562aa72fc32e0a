"""Keeps angles in float32 where OpenVINO computes in half precision.

In bf16, OpenVINO rounds everything, timesteps too, on their way to sines and
cosines: 801 becomes 800, and a UNet is off by several per cent of its largest value. An attribute
keeps an operator as it is. Python cannot set it, but the reader of OpenVINO's own format can: so
that part of the graph is written, and read again with the attribute.
"""

import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

_READERS = ("Sin", "Cos")
_LEAVES = ("Const", "Parameter", "Result")


def keep_angles_exact(model: Any) -> None:
    """Keep sines, cosines and what leads to them in float32, in a model of static shapes."""
    import openvino

    readers = [each for each in model.get_ordered_ops() if each.get_type_name() in _READERS]
    if not readers:
        return
    _replace_unsqueezes(readers)
    part = openvino.Model([each.output(0) for each in readers], model.get_parameters())
    exact = _mark(part)
    del part  # its results read the sines as well
    for theirs, ours in zip(exact.get_parameters(), model.get_parameters(), strict=True):
        for each in theirs.output(0).get_target_inputs():
            each.replace_source_output(ours.output(0))
    for reader, result in zip(readers, exact.get_results(), strict=True):
        for each in reader.output(0).get_target_inputs():
            each.replace_source_output(result.input_value(0))


def _mark(part: Any) -> Any:
    """Copy a model, with the attribute on every operator."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        text, weights = Path(folder, "part.xml"), Path(folder, "part.bin")
        openvino.serialize(part, text, weights)
        network = ElementTree.parse(text).getroot()
        values = openvino.Tensor(np.fromfile(weights, np.uint8))
    for layer in network.iter("layer"):
        if layer.get("type") not in _LEAVES:
            attributes = layer.find("rt_info")
            if attributes is None:
                attributes = ElementTree.Element("rt_info")
                layer.insert(0, attributes)
            ElementTree.SubElement(attributes, "attribute", name="precise", version="0")
    return openvino.Core().read_model(ElementTree.tostring(network), values)


def _replace_unsqueezes(readers: list[Any]) -> None:
    """Replace each Unsqueeze by a Reshape: OpenVINO's own replacement would lose the attribute."""
    from openvino import opset8

    seen: set[str] = set()
    nodes = [each.input_value(0).get_node() for each in readers]
    while nodes:
        node = nodes.pop()
        if node.get_friendly_name() in seen:
            continue
        seen.add(node.get_friendly_name())
        nodes += [each.get_node() for each in node.input_values()]
        if node.get_type_name() in ("Squeeze", "Unsqueeze"):
            shape = opset8.constant(np.array(node.output(0).get_shape(), np.int64))
            reshape = opset8.reshape(node.input_value(0), shape, False)
            for each in node.output(0).get_target_inputs():
                each.replace_source_output(reshape.output(0))
