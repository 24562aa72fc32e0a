"""Keeps in float32 what half precision would spoil, where OpenVINO computes in half precision.

In bf16, OpenVINO rounds everything. Timesteps are rounded on their way to sines and cosines: 801
becomes 800, and a UNet is off by several per cent of its largest value. The sums of a GroupNorm
are rounded, too, although they are added up in float32, and of two rounded ones, the mean square
and the squared mean, the difference is wanted. These few numbers cost nothing in float32.

An attribute keeps an operator as it is. Python cannot set it, but the reader of OpenVINO's own
format can: so that part of the graph is written, and read again with the attribute.
"""

import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

_ANGLE_READERS = ("Sin", "Cos")
_SUMS = ("ReduceL2", "ReduceMean")
_PIXELS = (2, 3)  # of pictures with channels first
_LEAVES = ("Const", "Parameter", "Result")


def keep_exact(model: Any) -> None:
    """Keep angles, and the statistics of GroupNorms, in float32, in a model of static shapes."""
    _keep_angles(model)
    _keep_statistics(model)


def _keep_angles(model: Any) -> None:
    """Keep sines, cosines and what leads to them."""
    readers = [each for each in model.get_ordered_ops() if each.get_type_name() in _ANGLE_READERS]
    if readers:
        _replace_unsqueezes(readers)
        inputs = [each.output(0) for each in model.get_parameters()]
        _replace(model.get_parameters(), inputs, [each.output(0) for each in readers])


def _keep_statistics(model: Any) -> None:
    """Keep what is made of the sums over pixels, and of constants, alone."""
    import openvino

    nodes = model.get_ordered_ops()
    sums = [each for each in nodes if each.get_type_name() in _SUMS and _reduces_pixels(each)]
    if not sums:
        return
    known = {each.get_friendly_name() for each in sums}
    constant = {each.get_friendly_name() for each in nodes if each.get_type_name() == "Constant"}
    for node in nodes:
        read = {each.get_node().get_friendly_name() for each in node.input_values()}
        if read and read <= known | constant:
            (known if read & known else constant).add(node.get_friendly_name())
    # What others read of it; and in place of the sums, parameters to cut there.
    inner = known - {each.get_friendly_name() for each in sums}
    outputs = [
        node.output(0)
        for node in nodes
        if node.get_friendly_name() in inner
        and any(
            each.get_node().get_friendly_name() not in inner
            for each in node.output(0).get_target_inputs()
        )
    ]
    parameters = []
    for each in sums:
        value = each.output(0)
        parameter = openvino.op.Parameter(value.get_element_type(), value.get_partial_shape())
        for target in value.get_target_inputs():
            target.replace_source_output(parameter.output(0))
        parameters.append(parameter)
    _replace(parameters, [each.output(0) for each in sums], outputs)


def _reduces_pixels(node: Any) -> bool:
    axes = node.input_value(1).get_node()
    return axes.get_type_name() == "Constant" and tuple(axes.get_data().tolist()) == _PIXELS


def _replace(parameters: list[Any], inputs: list[Any], outputs: list[Any]) -> None:
    """Replace a part of a graph by its copy with the attribute on every operator.

    Args:
        parameters: Where the part begins.
        inputs: The values that they stand for.
        outputs: The values that are read of it.
    """
    import openvino

    part = openvino.Model(outputs, parameters)
    exact = _mark(part)
    del part  # its results read the values as well
    for parameter, value in zip(exact.get_parameters(), inputs, strict=True):
        for each in parameter.output(0).get_target_inputs():
            each.replace_source_output(value)
    for value, result in zip(outputs, exact.get_results(), strict=True):
        for each in value.get_target_inputs():
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
