"""What PyTorch's checkpoints describe in a pickle, read without running anything that it names.

Python's own unpickler imports and calls whatever a file asks for. Here a few operations are carried
out on plain values; what a file may call is four functions that describe tensors, and an ordered
dictionary, none of which is imported. The format: Python's ``pickletools``, and ``torch.save``.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fastdeploy_diffusion.shown import show


class PickleError(ValueError):
    """A pickle is damaged, or asks for something that is not allowed."""


@dataclass(frozen=True)
class Storage:
    """Numbers of one dtype in the file.

    Args:
        dtype: As safetensors names it; empty for bytes of any dtype.
        key: Of the entry that holds them.
        count: How many there are.
    """

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class PickledTensor:
    """A part of a storage.

    Args:
        offset: Of its first number in the storage, in numbers.
        strides: Of its axes, in numbers.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """A name that the pickle would import."""

    name: str


_STORAGES: Mapping[str, str] = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
    "torch.storage.UntypedStorage": "",
}
_DTYPES: Mapping[str, str] = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}
# By these, trainers name what they keep beside the weights; they are not called.
_INERT = frozenset(
    f"{package}.callbacks.model_checkpoint.ModelCheckpoint"
    for package in ("pytorch_lightning", "lightning.pytorch")
)
_MARK = object()
_MOST_AXES = 16
_KEYS = (str, int, float, bool, type(None), _Global)


def read_pickle(content: bytes) -> Any:
    """Read a pickle of plain values and tensors.

    Args:
        content: Of ``data.pkl`` in a file of ``torch.save``.

    Returns:
        Dictionaries, lists, tuples, numbers, strings, and `PickledTensor`.

    Raises:
        PickleError: It is damaged, imports or calls a name that is not allowed, or uses an
            operation that no checkpoint needs. The message gives the name.
    """
    try:
        return _Reader().run(content)
    except PickleError:
        raise
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise PickleError(f"its pickle is damaged: {error}") from error


class _Reader:
    """A stack of values, and those that are remembered for later use."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """Carry out the operations, up to the end."""
        stream = io.BytesIO(content)
        for operation, argument, _ in pickletools.genops(stream):
            name = operation.name
            if name in _IGNORED:
                continue
            if name == "STOP":
                if len(self.stack) != 1:
                    raise PickleError("its pickle leaves values behind")
                return self.stack[0]
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                self.stack.append(argument)
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            else:
                raise PickleError(f"its pickle does {name}, which no file of weights needs")
        raise PickleError("its pickle has no end")

    def pop_to_mark(self) -> list[Any]:
        """Take the values above the last mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1  # to before the first one, of which the index is out of range
            if place < 0:
                raise PickleError("its pickle lacks a mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def pop(self, count: int) -> tuple[Any, ...]:
        """Take some values, in the order in which they were put."""
        values = self.stack[-count:]
        if len(values) < count or any(value is _MARK for value in values):
            raise PickleError("its pickle lacks a value")
        del self.stack[-count:]
        return tuple(values)

    def remember(self, place: int) -> None:
        """Remember the last value."""
        self.memo[place] = self.stack[-1]

    def import_name(self, module: str, name: str) -> None:
        """Put a name that is allowed."""
        known = f"{module}.{name}"
        if known not in _CALLS and known not in {*_STORAGES, *_DTYPES, *_INERT}:
            refuse(known)
        self.stack.append(_Global(known))

    def import_stacked(self, _: Any) -> None:
        """Likewise, of the two last values."""
        module, name = self.pop(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("its pickle imports something without a name")
        self.import_name(module, name)

    def call(self, _: Any) -> None:
        """Describe a tensor, or make a dictionary."""
        called, arguments = self.pop(2)
        if not isinstance(called, _Global) or called.name not in _CALLS:
            refuse(called.name if isinstance(called, _Global) else show(called))
        self.stack.append(_CALLS[called.name](*arguments))

    def load_storage(self, _: Any) -> None:
        """Put a storage, which torch.save names by a tuple."""
        (described,) = self.pop(1)
        kind, named, key, _device, count = described
        if kind != "storage" or not isinstance(named, _Global) or named.name not in _STORAGES:
            raise PickleError(f"its pickle names a storage as {show(kind)}")
        if not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise PickleError("its pickle names a storage without a key or a size")
        self.stack.append(Storage(_STORAGES[named.name], key, count))

    def set_items(self, pairs: Sequence[Any]) -> None:
        """Put keys and values into the dictionary that is the last value."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise PickleError("its pickle sets keys of something else than a dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Others could take for ever to hash.
            if not isinstance(key, _KEYS):
                raise PickleError(f"its pickle has a key that is a {type(key).__name__}")
            target[key] = value

    def append(self, values: Sequence[Any]) -> None:
        """Put values into the list that is the last value."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise PickleError("its pickle appends to something else than a list")
        target.extend(values)

    def set_state(self, _: Any) -> None:
        """Leave out attributes: an ordered dictionary of PyTorch has notes on its versions."""
        target, _state = self.pop(2)
        if not isinstance(target, dict):
            raise PickleError("its pickle sets attributes of something else than a dictionary")
        self.stack.append(target)


def refuse(name: str) -> NoReturn:
    """Refuse what a pickle wants to import or call."""
    raise PickleError(
        f"its pickle asks for {show(name)}, which no file of weights needs; nothing was run"
    )


def _make_dict(*arguments: Any) -> dict[Any, Any]:
    if any(argument not in ([], ()) for argument in arguments):
        raise PickleError("its pickle fills a dictionary in another way than torch.save")
    return {}


def _make_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> PickledTensor:
    """Describe a tensor; what follows its strides are gradients, hooks, and sometimes its dtype."""
    if not isinstance(storage, Storage) or not isinstance(offset, int) or offset < 0:
        raise PickleError("its pickle makes a tensor of something else than a storage")
    if not all(isinstance(each, tuple) and len(each) <= _MOST_AXES for each in (shape, strides)):
        raise PickleError("its pickle makes a tensor without a shape")
    numbers = (*shape, *strides)
    if len(shape) != len(strides) or not all(
        isinstance(each, int) and each >= 0 for each in numbers
    ):
        raise PickleError("its pickle makes a tensor with a shape that is none")
    named = [each.name for each in rest if isinstance(each, _Global) and each.name in _DTYPES]
    dtype = _DTYPES[named[0]] if named else storage.dtype
    if not dtype:
        raise PickleError("its pickle makes a tensor without a dtype")
    return PickledTensor(storage, dtype, offset, shape, strides)


def _make_parameter(data: Any, *_: Any) -> PickledTensor:
    if not isinstance(data, PickledTensor):
        raise PickleError("its pickle makes a parameter of something else than a tensor")
    return data


def _make_size(numbers: Any) -> tuple[Any, ...]:
    if not isinstance(numbers, list | tuple) or len(numbers) > _MOST_AXES:
        raise PickleError("its pickle makes a shape that is none")
    return tuple(numbers)


def _make_device(*_: Any) -> None:
    """Leave out the device that a tensor was on."""


_CALLS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _make_dict,
    "torch._utils._rebuild_tensor_v2": _make_tensor,
    "torch._utils._rebuild_tensor_v3": _make_tensor,
    "torch._utils._rebuild_parameter": _make_parameter,
    "torch.Size": _make_size,
    "torch.device": _make_device,
}
_IGNORED = frozenset(("PROTO", "FRAME"))
_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES"),
    )
)
_OPERATIONS: Mapping[str, Callable[[_Reader, Any], None]] = {
    "MARK": lambda reader, _: reader.stack.append(_MARK),
    "EMPTY_DICT": lambda reader, _: reader.stack.append({}),
    "EMPTY_LIST": lambda reader, _: reader.stack.append([]),
    "EMPTY_TUPLE": lambda reader, _: reader.stack.append(()),
    "TUPLE": lambda reader, _: reader.stack.append(tuple(reader.pop_to_mark())),
    "TUPLE1": lambda reader, _: reader.stack.append(reader.pop(1)),
    "TUPLE2": lambda reader, _: reader.stack.append(reader.pop(2)),
    "TUPLE3": lambda reader, _: reader.stack.append(reader.pop(3)),
    "SETITEM": lambda reader, _: reader.set_items(reader.pop(2)),
    "SETITEMS": lambda reader, _: reader.set_items(reader.pop_to_mark()),
    "APPEND": lambda reader, _: reader.append(reader.pop(1)),
    "APPENDS": lambda reader, _: reader.append(reader.pop_to_mark()),
    "BINPUT": _Reader.remember,
    "LONG_BINPUT": _Reader.remember,
    "MEMOIZE": lambda reader, _: reader.remember(len(reader.memo)),
    "BINGET": lambda reader, place: reader.stack.append(reader.memo[place]),
    "LONG_BINGET": lambda reader, place: reader.stack.append(reader.memo[place]),
    "GLOBAL": lambda reader, name: reader.import_name(*name.split(" ", 1)),
    "STACK_GLOBAL": _Reader.import_stacked,
    "BINPERSID": _Reader.load_storage,
    "REDUCE": _Reader.call,
    "BUILD": _Reader.set_state,
}
