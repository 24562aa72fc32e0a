"""A bundle: a folder that draws without Paddle and the checkpoint that it was built from.

``bundle.yaml`` says what lies in it: the model's configs and tokenizers under ``model/``, a folder
under ``graphs/`` for each program of each component, and a file a component under ``weights/`` with
the tensors that its graphs are bound to, each once, by its digest. They are kept as the graphs want
them: nothing is derived, converted or transposed at a start, and they stay mapped. A refiner is a
bundle of its own under ``refiner/``.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from fastdeploy_diffusion.checksum import measure_files
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.runtime.checked_files import CheckedFiles
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec

BUNDLE_FILE = "bundle.yaml"
MODEL_FOLDER, GRAPHS_FOLDER, WEIGHTS_FOLDER = "model", "graphs", "weights"
REFINER_FOLDER = "refiner"
SCHEMA = 1
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_AGAIN = "make it again: fastdeploy-diffusion bundle"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class BundledBuild(_Record):
    """A build of a component.

    Args:
        folder: Where its graphs lie, as a kept build's.
        passes: How often each pass rewrote the network.
        changes_picture: Those of them that change the picture on purpose.
        relative_error: From the Paddle float32 layer, where it was built.
        rounding_error: What rounding to half precision does to the layer itself.
    """

    inputs: list[Any]
    outputs: list[Any]
    folder: str
    passes: dict[str, int]
    relative_error: float
    tolerance: float
    rounding_error: float | None = None
    changes_picture: tuple[str, ...] = ()

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        specs = (map(TensorSpec.parse, each) for each in (self.inputs, self.outputs))
        return Signature(*map(tuple, specs))


class BundledComponent(_Record):
    """A component: its engine, device, precision and builds.

    Args:
        network: Its name in the checkpoint; its own, of a network that is added to these.
        weights: The file of its weights; ``None`` where they lie in the engine's own files.
        int8: What it costs that layers are in int8, as measured where it was made.
        weight_bits: Of weights in int8 that are multiplied by integers; ``None`` without such.
        digest: Of the weights that it was made of; bundles that do not say it hold no networks
            that are added to a checkpoint's.
    """

    network: str
    engine: str
    device: str
    precision: str
    weights: str | None
    builds: list[BundledBuild]
    int8: dict[str, Any] | None = None
    weight_bits: int | None = None
    digest: str = ""


class Bundle(_Record):
    """The content of ``bundle.yaml``.

    Args:
        sizes: Of the pictures that it was built for, (width, height) in pixels.
        chunks: Of the texts that it was built for; bundles that do not say it have one.
        shown: Pictures for each IP-Adapter that it was built for; one, where it does not say it.
        config: Options of the configuration that it was built with.
        pipeline_options: Behaviour of the whole pipeline.
        files: Size in bytes and checksum of every file, by its path in the folder.
    """

    schema_version: int
    made_by: str
    model: str
    model_digest: str
    family: str
    sizes: list[tuple[int, int]]
    config: dict[str, Any]
    pipeline_options: dict[str, Any]
    components: dict[str, BundledComponent]
    files: dict[str, tuple[int, int]]
    chunks: list[int] = [1]
    shown: list[int] = [1]


def is_bundle(folder: Path) -> bool:
    """Tell whether a folder is a bundle."""
    return (folder / BUNDLE_FILE).is_file()


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle, and check that every file is there in its size.

    Raises:
        CheckpointError: It is damaged, or of another version of the format.
    """
    path = folder / BUNDLE_FILE
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
        version = content["schema_version"]
        if version != SCHEMA:
            raise CheckpointError(
                f"{path} has schema_version {version!r}",
                allowed=f"schema_version {SCHEMA}",
                fix="run it with the version of fastdeploy-diffusion that wrote it "
                f"({content.get('made_by', 'unknown')}), or {_AGAIN}",
            )
        bundle = Bundle.model_validate(content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} cannot be read: {reason}", fix=_AGAIN) from error
    for name, (size, _) in bundle.files.items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes"
            raise CheckpointError(
                f"{file} {what}: the bundle was not copied whole",
                allowed=f"{size} bytes",
                fix=f"copy {folder.name} again, and all that is in it",
            )
    return bundle


def check_files(
    folder: Path, bundle: Bundle, names: list[str], checked: CheckedFiles | None = None
) -> None:
    """Compare the checksums of files.

    Args:
        names: Files, and folders, whose files all count.
        checked: Those that were compared before; ``None`` to compare all, and note none.

    Raises:
        CheckpointError: A file is damaged.
    """
    expected = {
        folder / file: measured
        for file, measured in bundle.files.items()
        if any(file == name or file.startswith(f"{name}/") for name in names)
    }
    unknown = checked.list_unknown(expected) if checked else list(expected)
    for path, found in zip(unknown, measure_files(unknown), strict=True):
        if found != expected[path]:
            raise CheckpointError(
                f"{path} is damaged: its checksum is not that of the build",
                fix=f"copy {folder.name} again, and all that is in it",
            )
    if checked:
        checked.note(expected)
