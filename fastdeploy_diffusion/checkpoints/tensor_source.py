"""The tensors of one component under their canonical names, from any layout of files."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints.weight_file import StoredTensor, WeightFile
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.families.keys.rules import KeyRule


@dataclass(frozen=True)
class TensorView:
    """A stored tensor in the model's canonical layout.

    Attributes:
        file: The file that holds the tensor.
        stored_name: Its name in that file.
        slices: Which of ``parts`` equal slices along axis 0 make the tensor, in their order
            (OpenCLIP stores Q, K and V as one).
        parts: How many slices the stored tensor holds.
        transposed: Stored as [in, out] where the canonical layout is [out, in].
        squeezed: A 1×1 convolution kernel where the canonical layout is a matrix.
    """

    file: WeightFile
    stored_name: str
    slices: tuple[int, ...] = (0,)
    parts: int = 1
    transposed: bool = False
    squeezed: bool = False

    is_lasting: ClassVar[bool] = True
    """Whether what is made of it is worth keeping for other starts."""

    @property
    def dtype(self) -> str:
        """The format's name of the stored dtype."""
        return self._stored.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the canonical layout."""
        shape = self._stored.shape
        if self.squeezed and set(shape[2:]) == {1}:
            shape = shape[:2]
        if self.parts > 1:
            shape = (shape[0] // self.parts * len(self.slices), *shape[1:])
        return shape[::-1] if self.transposed else shape

    @property
    def _stored(self) -> StoredTensor:
        return self.file.tensors[self.stored_name]

    def describe(self) -> list[Any]:
        """Describe the view, without the file, as JSON values."""
        return [self.stored_name, *self.slices, self.parts, self.transposed, self.squeezed]

    def read_stored(self) -> npt.NDArray[Any]:
        """Map the tensor in the canonical layout, still in its stored dtype."""
        array = self.file.read_stored(self.stored_name)
        if self.parts > 1:
            rows = len(array) // self.parts
            first, last = self.slices[0], self.slices[-1]
            if self.slices == tuple(range(first, last + 1)):
                array = array[first * rows : (last + 1) * rows]  # still mapped
            else:
                chosen = [array[index * rows : (index + 1) * rows] for index in self.slices]
                array = np.concatenate(chosen)
        return array.T if self.transposed else array.reshape(self.shape)

    def read(self) -> npt.NDArray[np.float32]:
        """Read the tensor in the canonical layout as float32."""
        return self.file.to_float32(self.stored_name, self.read_stored())

    def read_into(self, out: npt.NDArray[Any]) -> None:
        """Copy the tensor in the canonical layout and its stored dtype; see `TensorSource`."""
        if self.transposed:
            out[...] = self.read_stored()
            return
        content = out.reshape(-1).view(np.uint8)
        size = len(content) // len(self.slices)
        for position, index in enumerate(self.slices):
            part = content[position * size : (position + 1) * size]
            self.file.read_bytes(self.stored_name, index * size, part)

    def digest(self) -> str:
        """Hash dtype, shape and values; sha256 as hexadecimal digits."""
        content = hashlib.sha256(f"{self.dtype} {self.shape}\n".encode())
        content.update(np.ascontiguousarray(self.read_stored()).data)
        return content.hexdigest()


class TensorSource:
    """Read access to the weights of one component.

    Args:
        origin: Where the tensors come from, for messages.
        views: Canonical name → where and how the tensor is stored.
    """

    def __init__(self, origin: str, views: Mapping[str, TensorView]) -> None:
        self.origin = origin
        self._views = dict(views)
        self._digests: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names, sorted."""
        return tuple(sorted(self._views))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self._views)

    def __contains__(self, name: object) -> bool:
        return name in self._views

    def count_layers(self) -> dict[str, int]:
        """Count the layers that the names number: ``{"encoder.layers": 12}``."""
        indexes: dict[str, set[str]] = {}
        for name in self._views:
            parts = name.split(".")
            for place, part in enumerate(parts):
                if part.isdecimal():
                    indexes.setdefault(".".join(parts[:place]), set()).add(part)
        return {name: len(found) for name, found in indexes.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor in PyTorch's layout (a linear weight is [out, in])."""
        return self._view(name).shape

    def dtype(self, name: str) -> str:
        """Name the stored dtype as safetensors does: ``F32``, ``F16``, ``BF16`` and so on."""
        return self._view(name).dtype

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read one tensor as float32, in PyTorch's layout.

        Returns:
            For an F32 file a read-only array mapped from it, otherwise a new array. Drop it to
            give the memory back.

        Raises:
            CheckpointError: No such tensor, a dtype that holds no weights, or a changed file.
        """
        return self._view(name).read()

    def read_stored(self, name: str) -> npt.NDArray[Any]:
        """Map one tensor in its stored dtype, in PyTorch's layout.

        Raises:
            CheckpointError: No such tensor, or a changed file.
        """
        return self._view(name).read_stored()

    def read_into(self, name: str, out: npt.NDArray[Any]) -> None:
        """Copy one tensor in its stored dtype, in PyTorch's layout, into memory of the caller's.

        Nothing is mapped, unless the file holds the tensor in another layout.

        Args:
            out: Of its shape and stored dtype (bfloat16 as its uint16 bits), contiguous.

        Raises:
            CheckpointError: No such tensor, or a file that changed or cannot be read.
        """
        self._view(name).read_into(out)

    def rename(self, names: Mapping[str, str]) -> "TensorSource":
        """Select tensors under other names.

        Args:
            names: New name → name here.

        Raises:
            CheckpointError: There is no tensor of a name.
        """
        return TensorSource(self.origin, {new: self._view(old) for new, old in names.items()})

    def replace(self, make: Mapping[str, Callable[[TensorView], TensorView]]) -> "TensorSource":
        """Replace the views of some tensors; those that are not here are left out.

        Args:
            make: Makes a view of the present one, by names.
        """
        changed = {name: make[name](self._views[name]) for name in make if name in self._views}
        replaced = TensorSource(self.origin, {**self._views, **changed})
        known = {name: each for name, each in self._digests.items() if name not in changed}
        replaced.remember_digests(known)
        return replaced

    def is_lasting(self, name: str) -> bool:
        """Tell whether what is made of a tensor is worth keeping for other starts."""
        return self._view(name).is_lasting

    def digest(self) -> str:
        """Hash every name, dtype, shape and value; sha256 as hexadecimal digits.

        It depends neither on where the files lie nor on how they are split or named: a single file
        and a diffusers folder of the same weights agree. Computed once; later calls only check that
        the files are still those that were hashed.

        Raises:
            CheckpointError: A file changed after it was opened.
        """
        views = {name: view for name, view in self._views.items() if name not in self._digests}
        with ThreadPoolExecutor() as pool:  # hashing releases Python's lock
            digests = pool.map(TensorView.digest, views.values())
            self._digests.update(zip(views, digests, strict=True))
        self._check_unchanged()
        total = hashlib.sha256()
        for name in self.names:
            total.update(f"{name} {self._digests[name]}\n".encode())
        return total.hexdigest()

    def digest_tensor(self, name: str) -> str:
        """Hash a tensor's dtype, shape and values; sha256 as hexadecimal digits.

        Raises:
            CheckpointError: No such tensor, or a changed file.
        """
        if name not in self._digests:
            self._digests[name] = self._view(name).digest()
        return self._digests[name]

    def list_digests(self) -> dict[str, str]:
        """List the digests of single tensors that are known so far, by name."""
        return dict(self._digests)

    def remember_digests(self, digests: Mapping[str, str]) -> None:
        """Take over digests from an earlier time; valid as long as `describe` is the same."""
        self._digests.update(digests)

    def _check_unchanged(self) -> None:
        for file in {view.file.path: view.file for view in self._views.values()}.values():
            file.check_unchanged()

    def describe(self) -> dict[str, Any]:
        """Describe the files and views in use; while that is the same, so is ``digest``.

        Returns:
            JSON values. No tensor is read for them.
        """
        files = {view.file.path: view.file for view in self._views.values()}
        places = {path: str(path.resolve()) for path in files}
        return {
            "files": {places[path]: _identify(file.status) for path, file in files.items()},
            "views": {
                name: [places[view.file.path], *view.describe()]
                for name, view in sorted(self._views.items())
            },
        }

    def _view(self, name: str) -> TensorView:
        if name in self._views:
            return self._views[name]
        similar = ", ".join(get_close_matches(name, self._views, n=3))
        raise CheckpointError(f"{self.origin} has no tensor {name!r}", allowed=similar)


def collect_tensors(
    origin: Path, files: Iterable[WeightFile], rules: Sequence[KeyRule], prefix: str = ""
) -> TensorSource:
    """Collect the tensors of one component under their canonical names.

    Args:
        origin: The component's folder or file, for messages.
        rules: The first rule that matches decides. A name that no rule matches stays as it is, so
            that loading either finds it in the model or reports it.
        prefix: Only tensors whose name begins with it belong to the component.

    Raises:
        CheckpointError: Two stored tensors would get one name, or a fused tensor does not divide.
    """
    views: dict[str, TensorView] = {}
    for file in files:
        for stored_name in file.tensors:
            if not stored_name.startswith(prefix):
                continue
            for name, view in _apply(rules, file, stored_name, stored_name[len(prefix) :]):
                if name in views:
                    other = views[name]
                    raise CheckpointError(
                        f"{origin} gives {name!r} twice: as {other.stored_name!r} in "
                        f"{other.file.path.name} and as {stored_name!r} in {file.path.name}",
                        fix="remove one of the two; nothing shows which one is meant",
                    )
                views[name] = view
    return TensorSource(str(origin), views)


def _identify(status: os.stat_result) -> list[int]:
    """Identify a file: size, inode, device, and times of modification and status change, in ns."""
    place = status.st_size, status.st_ino, status.st_dev
    return [*place, status.st_mtime_ns, status.st_ctime_ns]


def _apply(
    rules: Sequence[KeyRule], file: WeightFile, stored_name: str, name: str
) -> list[tuple[str, TensorView]]:
    for rule in rules:
        match = rule.match(name)
        if match is None:
            continue
        parts = sum(len(share) for share in rule.shares)
        rows = (*file.tensors[stored_name].shape, 1)[0]
        if parts > 1 and rows % parts:
            raise CheckpointError(
                f"{file.path}: {stored_name!r} has {rows} rows",
                allowed=f"a multiple of {parts}: it holds {parts} tensors in one",
            )
        return [
            (
                match.expand(template),
                TensorView(file, stored_name, share, parts, rule.transposed, rule.squeezed),
            )
            for share, template in zip(rule.shares, rule.names, strict=True)
        ]
    return [(name, TensorView(file, stored_name))]
