from pathlib import Path

import pytest

from fastdeploy_diffusion import machine
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec, PayingPasses
from fastdeploy_diffusion.engines.openvino import OpenVINOEngine, read_capabilities

CPU_INFO = "processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu avx512f {flags}\n"


@pytest.fixture
def cpu(monkeypatch):
    """Makes this machine's processor another one."""

    def describe(vendor, *flags):
        text = CPU_INFO.format(vendor=vendor, flags=" ".join(flags))
        read = Path.read_text

        def read_text(path, *args, **kwargs):
            return text if str(path) == "/proc/cpuinfo" else read(path, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", read_text)

    return describe


@pytest.mark.parametrize(
    ("vendor", "flags", "slow"),
    [
        ("GenuineIntel", ("avx512_bf16",), True),
        ("GenuineIntel", ("avx512_bf16", "amx_bf16"), False),
        ("GenuineIntel", (), False),
        ("AuthenticAMD", ("avx512_bf16",), False),
    ],
)
def test_bf16_is_slow_on_intel_without_tiles(cpu, vendor, flags, slow):
    cpu(vendor, *flags)
    assert machine.multiplies_bf16_slowly() is slow
    assert PayingPasses("bf16", (), where_slow=True).fit("bf16", "denoiser", 0) is slow


def test_a_slow_precision_says_why_and_int8_computes_the_rest_in_float32(cpu):
    bf16 = BuildSpec(Device("cpu"), "bf16")
    if "BF16" not in read_capabilities():
        pytest.skip("this CPU has no instructions for bf16")
    engine = OpenVINOEngine()
    cpu("GenuineIntel", "avx512_bf16")
    assert "more slowly" in engine.supports(bf16).slower
    assert "native-attention" in engine.name_default_passes("bf16")
    cpu("AuthenticAMD", "avx512_bf16")
    assert not engine.supports(bf16).slower
    assert "native-attention" not in engine.name_default_passes("bf16")
