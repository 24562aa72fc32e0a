"""The inputs and outputs of a build, read from its manifest alone."""

import json

from fastdeploy_diffusion.runtime.manifest import MANIFEST_FILE
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec


def read_signature(folder):
    """Read what a program is made with to run a build; imports nothing of what builds."""
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    return Signature(
        *(tuple(map(TensorSpec.parse, manifest[kind])) for kind in ("inputs", "outputs"))
    )
