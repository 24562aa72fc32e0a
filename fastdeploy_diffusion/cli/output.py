"""The files of pictures, under names that replace nothing silently."""

import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fastdeploy_diffusion.contact_sheet import make_sheet
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.images import IMAGE_SUFFIXES, check_folder, explain_unwritten, save_image

STEM = "output"
_OTHER_PICTURES = (".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class OutputTarget:
    """A file, or a folder in which names of PNG files are chosen.

    Args:
        stem: Prefix of the names.
        suffix: Their ending, which names the format.
        is_chosen: Whether the caller chose the name; if so, the file must not exist.
    """

    folder: Path
    stem: str
    is_chosen: bool
    overwrite: bool
    suffix: str = ".png"

    @classmethod
    def parse(cls, text: str, *, overwrite: bool) -> "OutputTarget":
        """Parse ``--output``: a file if it ends as pictures do and is no folder, else a folder.

        Raises:
            RequestError: It is empty, ``-``, or a file of another type.
        """
        path = Path(os.path.expanduser(text))
        is_folder = text.endswith(("/", os.sep)) or os.path.isdir(path)
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES and not is_folder:
            return cls(path.parent, path.stem, True, overwrite, suffix)
        is_something = os.path.lexists(path) and not os.path.isdir(path)
        if text in ("", "-") or is_something or (path.suffix and not is_folder):
            raise RequestError(
                f"--output is {text!r}{_name_kind(path)}",
                allowed=f"a file whose name ends in {', '.join(IMAGE_SUFFIXES)}, or a folder",
                fix=_suggest(path),
            )
        return cls(path, STEM, False, overwrite)

    def check(self, count: int, *, with_grid: bool = False) -> None:
        """Check before drawing that ``count`` pictures, and their grid, can be written.

        Raises:
            RequestError: A file exists already, the folder is missing or cannot be written, or a
                grid is asked for of one picture.
        """
        if with_grid and count == 1:
            raise RequestError(
                "--grid has no effect on one picture",
                allowed="--grid with --images 2 or more",
                fix="leave --grid out",
            )
        self.check_folder()
        if self.is_chosen and not self.overwrite:
            grids = [self.name_grid(self.name_file(0, count))] if with_grid else []
            for file in (*(self.name_file(index, count) for index in range(count)), *grids):
                if os.path.lexists(file):
                    raise RequestError(
                        f"{file} exists already", fix="choose another --output, or add --overwrite"
                    )

    def check_folder(self) -> None:
        """Check before drawing that files can be written into the folder.

        Raises:
            RequestError: It is missing, or cannot be written.
        """
        folder = self.folder
        if not self.is_chosen:  # is made with the first picture
            parents = (folder, *folder.absolute().parents)
            folder = next(each for each in parents if os.path.lexists(each))
        check_folder(folder)
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise RequestError(
                f"{folder} cannot be written: {error.strerror}", fix="choose another --output"
            ) from None

    def name_file(self, index: int, count: int, first: int = 1) -> Path:
        """Name one of ``count`` pictures, which are counted from ``first``."""
        number = "" if count == 1 else f"-{first + index}"
        return self.folder / f"{self.stem}{number}{self.suffix}"

    def name_grid(self, first: Path) -> Path:
        """Name the grid of pictures, the first of which has a name of its own."""
        stem = self.stem if self.is_chosen else first.stem
        return self.folder / f"{stem}-grid{self.suffix}"


class PictureFiles:
    """The files of one command, which are written one by one.

    Attributes:
        saved: The written ones, in order.
        grid: That of all of them; ``None`` before it is written.
    """

    def __init__(self, target: OutputTarget, count: int) -> None:
        self._target = target
        self.count = count
        self.saved: list[Path] = []
        self.grid: Path | None = None
        self._offset: int | None = None

    def save(self, image: Image.Image) -> Path:
        """Write the next picture; its file appears whole or not at all.

        Raises:
            RequestError: It cannot be written, or its name was taken while pictures were drawn.
            ResourceError: There is no space left.
        """
        target = self._target
        self._make_folder()
        while True:
            file = self._choose_name()
            try:
                save_image(image, file, overwrite=target.overwrite)
            except RequestError:
                # In a folder, another command that draws at the same time takes names, too.
                if target.is_chosen or not os.path.lexists(file):
                    raise
                self._offset = None
                continue
            self.saved.append(file)
            return file

    def save_grid(self) -> None:
        """Write the grid of all saved pictures.

        Raises:
            RequestError: It cannot be written, or its name is taken.
            ResourceError: There is no space left.
        """
        file = self._target.name_grid(self.saved[0])
        save_image(make_sheet(self.saved), file, overwrite=self._target.overwrite)
        self.grid = file

    def _make_folder(self) -> None:
        target = self._target
        try:
            target.folder.mkdir(parents=not target.is_chosen, exist_ok=True)
        except OSError as error:
            raise explain_unwritten(target.folder, error) from None

    def _choose_name(self) -> Path:
        target, index = self._target, len(self.saved)
        if target.is_chosen or target.overwrite:
            return target.name_file(index, self.count)
        plain = target.name_file(0, 1)
        if self.count == 1 and not os.path.lexists(plain):
            return plain
        if self._offset is None:
            # After the highest, not into gaps: so the numbers tell the order of the runs.
            self._offset = self._find_highest_number() - index
        return target.folder / f"{target.stem}-{self._offset + index + 1}.png"

    def _find_highest_number(self) -> int:
        numbered = re.compile(rf"{re.escape(self._target.stem)}-([0-9]+)\.png")
        names = os.listdir(self._target.folder)
        return max((int(found[1]) for found in map(numbered.fullmatch, names) if found), default=0)


class ListedFiles(PictureFiles):
    """Files whose names are known before.

    Args:
        names: Of the pictures to draw, in order.
        shown: Of all that the grid shows, in order.
        grid: Of the grid.
    """

    def __init__(
        self, target: OutputTarget, names: Sequence[Path], shown: Sequence[Path], grid: Path
    ) -> None:
        super().__init__(target, len(names))
        self._names, self._shown, self._grid_name = names, shown, grid

    def save(self, image: Image.Image) -> Path:
        """Write the next picture; its file appears whole or not at all.

        Raises:
            RequestError: It cannot be written, or its name was taken while pictures were drawn.
            ResourceError: There is no space left.
        """
        self._make_folder()
        file = self._names[len(self.saved)]
        save_image(image, file, overwrite=self._target.overwrite)
        self.saved.append(file)
        return file

    def save_grid(self) -> None:
        """Write the grid; errors are those of `save`."""
        sheet = make_sheet(self._shown)
        save_image(sheet, self._grid_name, overwrite=self._target.overwrite)
        self.grid = self._grid_name


def _name_kind(path: Path) -> str:
    """Name what a path leads to that is neither a folder nor a picture."""
    if os.path.isfile(path):
        return ", which is a file"
    return ", which is no folder" if os.path.lexists(path) and not os.path.isdir(path) else ""


def _suggest(path: Path) -> str:
    if not path.suffix:
        return ""
    png = path.with_suffix(".png")
    fix = f"--output {shlex.quote(str(png))}"
    if path.suffix.lower() in _OTHER_PICTURES:
        code = f"from PIL import Image; Image.open({str(png)!r}).convert('RGB').save({str(path)!r})"
        fix += (
            f", and then, without the settings that the PNG file carries: "
            f"python -c {shlex.quote(code)}"
        )
    return fix
