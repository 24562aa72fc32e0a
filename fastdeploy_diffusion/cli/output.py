"""Where pictures go, under names that replace nothing silently."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.images import save_png

STEM = "output"


@dataclass(frozen=True)
class OutputTarget:
    """A PNG file, or a folder in which names are chosen.

    Args:
        folder: The folder that gets the files.
        stem: What the names begin with.
        is_chosen: Whether the caller chose the name; if so, the file must not exist.
        overwrite: Whether existing files may be replaced.
    """

    folder: Path
    stem: str
    is_chosen: bool
    overwrite: bool

    @classmethod
    def parse(cls, text: str, *, overwrite: bool) -> "OutputTarget":
        """Read ``--output``: what ends in ``.png`` and is no folder is a file, the rest a folder.

        Raises:
            RequestError: It is empty, ``-``, or a file of another type.
        """
        path = Path(os.path.expanduser(text))
        is_folder = text.endswith(("/", os.sep)) or os.path.isdir(path)
        if path.suffix.lower() == ".png" and not is_folder:
            return cls(path.parent, path.stem, True, overwrite)
        if text in ("", "-") or os.path.isfile(path) or (path.suffix and not is_folder):
            raise RequestError(
                f"--output is {text!r}",
                allowed="a file whose name ends in .png, or a folder",
                fix=f"--output {path.with_suffix('.png')}" if path.suffix else "",
            )
        return cls(path, STEM, False, overwrite)

    def check(self, count: int) -> None:
        """Find out before the work whether its results can be written.

        Args:
            count: Number of pictures.

        Raises:
            RequestError: A file exists already, or the folder is missing or cannot be written.
        """
        folder = self.folder
        if not self.is_chosen:  # is made when there is something to put into it
            folder = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        if not folder.is_dir():
            raise RequestError(f"there is no folder {folder}", fix=f"mkdir -p {folder}")
        if self.is_chosen and not self.overwrite:
            for file in self._name_files(count):
                if file.exists():
                    raise RequestError(
                        f"{file} exists already", fix="choose another --output, or add --overwrite"
                    )
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise RequestError(
                f"{folder} cannot be written: {error.strerror}", fix="choose another --output"
            ) from None

    def save(self, images: Sequence[Any]) -> list[Path]:
        """Write Pillow images; each file appears whole or not at all.

        Returns:
            The files, in order.

        Raises:
            RequestError: A file cannot be written, or appeared while the pictures were drawn.
        """
        try:
            self.folder.mkdir(parents=not self.is_chosen, exist_ok=True)
        except OSError as error:
            raise RequestError(f"{self.folder} cannot be made: {error.strerror}") from None
        files = self._name_files(len(images))
        for image, file in zip(images, files, strict=True):
            save_png(image, file, overwrite=self.overwrite)
        return files

    def _name_files(self, count: int) -> list[Path]:
        plain = self.folder / f"{self.stem}.png"
        is_fixed = self.is_chosen or self.overwrite
        if count == 1 and (is_fixed or not plain.exists()):
            return [plain]
        first = 1 if is_fixed else self._find_highest_number() + 1
        return [self.folder / f"{self.stem}-{first + index}.png" for index in range(count)]

    def _find_highest_number(self) -> int:
        # After the highest, not into gaps: so the numbers tell the order of the runs.
        numbered = re.compile(rf"{re.escape(self.stem)}-([0-9]+)\.png")
        names = os.listdir(self.folder) if self.folder.exists() else []
        return max((int(found[1]) for found in map(numbered.fullmatch, names) if found), default=0)
