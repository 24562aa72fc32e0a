import pytest

from fastdeploy_diffusion.device import Device, parse_device
from fastdeploy_diffusion.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("cpu", Device("cpu")),
        ("gpu", Device("gpu", 0)),
        ("gpu:0", Device("gpu", 0)),
        ("gpu:11", Device("gpu", 11)),
        ("xpu", Device("xpu", 0)),
        ("xpu:3", Device("xpu", 3)),
    ],
)
def test_devices_are_read(text, device):
    assert parse_device(text) == device
    assert parse_device(str(device)) == device


@pytest.mark.parametrize(
    ("text", "meant"),
    [("cuda", "gpu"), ("cuda:1", "gpu"), ("GPU", "gpu"), ("gpus", "gpu"), ("kunlun:0", "xpu")],
)
def test_a_near_miss_is_explained(text, meant):
    with pytest.raises(ConfigError) as caught:
        parse_device(text)
    assert text in caught.value.problem
    assert caught.value.fix == f"did you mean {meant!r}?"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "cpu:0",
        "gpu:",
        "gpu:-1",
        "gpu:x",
        "gpu:1.0",
        "gpu: 1",
        "gpu:1\n",
        "gpu:١",
        "gpu:1:2",
    ],
)
def test_nonsense_is_refused(text):
    with pytest.raises(ConfigError, match="allowed: cpu, gpu, gpu:N, xpu, xpu:N"):
        parse_device(text)
