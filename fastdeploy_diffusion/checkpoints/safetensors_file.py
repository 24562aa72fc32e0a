"""One ``.safetensors`` file, by its validated header."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from fastdeploy_diffusion.checkpoints.float8 import interpret_float8
from fastdeploy_diffusion.checkpoints.weight_file import StoredTensor, WeightFile
from fastdeploy_diffusion.errors import CheckpointError

# First bytes of other formats, so that the message about a renamed file names its real format.
_FOREIGN_MAGIC = {
    b"PK\x03\x04": "a zip archive, as torch.save writes (a pickle: loading one can execute code)",
    b"\x80": "a pickle (loading one can execute code)",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a Git LFS pointer, not the weights (run `git lfs pull`)",
    b"<": "an HTML page, probably a failed download",
}


class SafetensorsFile(WeightFile):
    """A safetensors file, opened once for its header.

    Args:
        path: The file. Its header is checked by the safetensors library: length, JSON, dtypes,
            sizes, and that the tensors cover the file without gaps or overlaps.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or holds no tensor.
    """

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path)
            with safe_open(path, framework="numpy"):
                pass
            self.tensors = _read_header(path)
            self.tensors = interpret_float8(self)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} is not a readable safetensors file: {error}{_name_foreign_format(path)}",
                allowed="a complete .safetensors file",
                fix="download or export it again, and compare its size and checksum",
            ) from error
        if not self.tensors:
            raise CheckpointError(
                f"{path} holds no tensors", fix="download or export the weights again"
            )


def _read_header(path: Path) -> dict[str, StoredTensor]:
    """Read the tensor table of a file that the safetensors library has accepted."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: StoredTensor(
            entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _name_foreign_format(path: Path) -> str:
    try:
        with path.open("rb") as file:
            beginning = file.read(32)
    except OSError:
        return ""
    for magic, description in _FOREIGN_MAGIC.items():
        if beginning.startswith(magic):
            return f"; it looks like {description}"
    return ""
