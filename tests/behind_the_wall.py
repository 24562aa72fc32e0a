"""Draw in a process in which nothing that builds can be imported."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_DRAW = """
import json, sys
from importlib.machinery import ModuleSpec
import numpy as np

BUILDERS = {"paddle", "onnx", "onnx_ir", "onnxscript", "paddle2onnx", "torch", "diffusers"}
installed, cases = json.loads(sys.argv[1])

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in BUILDERS:
            return None
        if not installed:
            raise ImportError(name + " is below the wall")
        return ModuleSpec(name, self)  # found, and fails when it is imported

    def create_module(self, spec):
        raise ImportError(spec.name + " is imported")

sys.meta_path.insert(0, Wall())
from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.pipelines.opening import open_pipeline
cached = True
for file, (options, settings) in cases.items():
    with open_pipeline(DiffusionConfig(**options)) as pipeline:
        np.save(file, pipeline.text_to_image("a cat", **settings))
        cached = cached and all(each.cached for each in pipeline.report.components)
modules = [name for name in sys.modules if name.startswith("fastdeploy_diffusion.")]
print(json.dumps({"cached": cached, "modules": modules}))
"""


def draw_behind_the_wall(cases, *, installed):
    """Draw a cat for each case, and save it.

    Args:
        cases: The file to save to, and what is drawn with: options of a configuration, and
            settings of a request.
        installed: Whether what builds is found, as where it is installed, though it cannot be
            imported.

    Returns:
        ``cached``, whether kept builds alone were run; and the ``modules`` of the package that were
        imported.
    """
    result = subprocess.run(
        [sys.executable, "-c", _DRAW, json.dumps([installed, cases])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])
