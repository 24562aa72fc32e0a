"""A distribution from outside that registers passes, installed as pip would: files and metadata."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fastdeploy_diffusion.pass_entry_points import GROUP

MODULE = "acme_passes"

# {body} is what the pass does to a transformer block; {expected} what it promises.
TEMPLATE = """
from paddle import LazyGuard, nn

from fastdeploy_diffusion.models.attention import BasicTransformerBlock
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.base import Derivation, LayerPass, register_op

WEIGHT, BIAS = "ff.net.0.proj.weight", "ff.net.0.proj.bias"


@register_op(f"{__name__}.scale")
def scale(weight, gain):
    return weight * gain


@register_op(f"{__name__}.shift")
def shift(bias, weight, shift):
    return bias + weight @ shift


@register_op(f"{__name__}.spoil")
def spoil(weight):
    return 1.01 * weight


class FoldNorm(LayerPass):
    name = "fold-norm"

    def match(self, layer):
        return isinstance(layer, BasicTransformerBlock) and layer.norm3.weight is not None

    def check(self, layer):
        return ""

    def rewrite(self, layer):
        {body}

    def expect(self, network):
        return {expected} if isinstance(network, UNet2DConditionModel) else 0
"""

FOLD = """width = layer.norm3.weight.shape[0]
        layer.norm3 = nn.LayerNorm(width, weight_attr=False, bias_attr=False)
        return {
            WEIGHT: Derivation((WEIGHT, "norm3.weight"), f"{__name__}.scale"),
            BIAS: Derivation((BIAS, WEIGHT, "norm3.bias"), f"{__name__}.shift"),
        }"""

BLOCKS = 4  # transformer blocks of the tiny model's UNet

Install = Callable[..., Path]


def write_pass(body: str = FOLD, expected: str = str(BLOCKS)) -> str:
    """The source of a pass that folds the LayerNorm before a feed-forward into it, or does not."""
    return TEMPLATE.replace("{body}", body).replace("{expected}", expected)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give a function that installs a distribution for the test; called again, it upgrades."""
    places: list[Path] = []

    def install(
        code: str,
        passes: Mapping[str, str],
        *,
        name: str = "acme-passes",
        version: str = "1.0",
        module: str = MODULE,
    ) -> Path:
        """Install ``module`` with passes by name → attribute; give the folder."""
        place = tmp_path / "site" / name
        metadata = place / f"{name.replace('-', '_')}.dist-info"
        metadata.mkdir(parents=True, exist_ok=True)
        (place / f"{module}.py").write_text(code)
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        lines = [f"{each} = {module}:{attribute}" for each, attribute in passes.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
        forget_modules(place)  # as in the new process that an upgrade needs
        if place not in places:
            places.append(place)
            monkeypatch.syspath_prepend(place)
        return place

    yield install
    for place in places:
        forget_modules(place)


def forget_modules(folder: Path) -> None:
    """Have what was imported from a folder imported anew."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(folder):
            del sys.modules[name]
