"""An exported graph with its weights in place, as OpenVINO reads it and as it keeps it.

The weights that passes make take longer to compute than to read. So they lie beside a kept build in
OpenVINO's own format, which it maps into memory: nothing of the checkpoint is read at the next
start. What OpenVINO compiles of it is not kept: that takes as long to load as to compile again.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.engines.cache import CacheWarning
from fastdeploy_diffusion.export.manifest import GRAPH_FILE, check_manifest
from fastdeploy_diffusion.program import Program

MODEL_FILE, WEIGHTS_FILE = "model.xml", "model.bin"


def read_model(program: Program, artifact: Path) -> Any:
    """Give the model of a build: the kept one, or the graph with the program's weights.

    Raises:
        EngineError: The build is damaged, or another program's.
    """
    import openvino

    types = check_manifest(program, artifact)
    kept = artifact / MODEL_FILE
    if kept.exists():
        return openvino.Core().read_model(kept)

    from fastdeploy_diffusion.export.weights import read_weights

    weights = read_weights(program, types)
    model = openvino.Core().read_model(artifact / GRAPH_FILE)
    for parameter in model.get_parameters():
        name = parameter.get_friendly_name()
        if name in weights:
            # OpenVINO only reads it, but shares no memory that it could not write.
            shared = weights[name].view()
            shared.flags.writeable = True
            constant = openvino.op.Constant(shared, shared_memory=True)
            parameter.output(0).replace(constant.output(0))
            model.remove_parameter(parameter)
    return model


def keep_model(program: Program, artifact: Path) -> None:
    """Write the model into its build, weights and all.

    Where there is no room, a `CacheWarning` says so, and they are read from the checkpoint at each
    start.
    """
    import openvino

    model = read_model(program, artifact)
    constants = [each for each in model.get_ops() if each.get_type_name() == "Constant"]
    needed = sum(each.data.nbytes for each in constants)
    free = shutil.disk_usage(artifact).free
    try:
        if needed > free:
            raise OSError(f"they take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free")
        openvino.save_model(model, artifact / MODEL_FILE, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:
        for name in (MODEL_FILE, WEIGHTS_FILE):
            (artifact / name).unlink(missing_ok=True)
        message = f"{program.name}: the weights of this build are not kept beside it: {error}"
        warnings.warn(message, CacheWarning, stacklevel=2)
