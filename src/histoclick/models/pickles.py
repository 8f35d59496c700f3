"""Torch files whose pickles hold objects besides tensors: the tensors, with nothing executed.

Some training code files the objects it was configured with beside the weights. A pickle is a small
program that may call anything, and Python's unpickler runs it. Here it is only read. Instructions
that build plain containers are followed; a name (a class, a function) becomes a ``Foreign`` and is
never looked up, and so does the result of every call but those by which torch describes tensors.
Nothing in the file decides what is imported or called, or which object gets an attribute.

Nor does it decide how much memory is taken: the pickle is short, the record of a storage has the
storage's exact size, all of them together are no larger than the file, and a tensor has no more
elements than its storage.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_PICKLE = 4 << 20  # bytes; those of published click models take less than 0.2 MB
MOST_AXES = 8
_DTYPES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}


class PickleError(Exception):
    """What is wrong with a file, as a part of a sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """Stands for what a file names, or would have made by calling it. Nothing can be done with it.

    ``name``: of the module and, after a space, of what is in it; or of a type.
    """

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class _Storage:
    """What tensors lie on. ``elements``: 1-D."""

    elements: Tensor


def read_tensors(path: Path) -> Any:
    """What the torch file ``path``, a zip archive, holds: tensors on the CPU, numbers, strings,
    lists, tuples and dictionaries as they are, everything else as ``Foreign``.

    A damaged file raises whatever one stumbles on; ``PickleError`` says what else is wrong.
    """
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise PickleError("not written by torch")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise PickleError("a TorchScript archive")
        return _Reader(archive, root, path.stat().st_size).read()


class _Reader:
    """One reading of one archive, whose records lie under ``root``.

    ``budget``: how many bytes of storages may still be read.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str, budget: int) -> None:
        self.archive = archive
        self.root = root
        self.budget = budget
        self.storages: dict[str, _Storage] = {}

    def read(self) -> Any:
        """What the pickle describes."""
        told = f"{self.root}byteorder" in self.archive.namelist()  # older files do not tell
        if told and self._record("byteorder", MOST_PICKLE) != b"little":
            raise PickleError("written on a machine of another byte order")
        try:
            return self._follow(self._record("data.pkl", MOST_PICKLE))
        except (IndexError, KeyError, ValueError) as error:
            raise PickleError("its pickle is damaged") from error

    def _follow(self, program: bytes) -> Any:
        """Runs the stack machine on the instructions of protocol 2, which torch writes."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[Any, Any] = {}  # by number

        def since(height: int) -> list[Any]:
            taken = stack[height:]
            del stack[height:]
            return taken

        for instruction, argument, _ in pickletools.genops(program):
            match instruction.name:
                case "PROTO":
                    pass
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(instruction.name == "NEWTRUE")
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                    stack.append(argument)
                case "GLOBAL":
                    stack.append(Foreign(str(argument)))
                case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3").index(instruction.name)
                    stack.append(tuple(since(len(stack) - count)))
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE":
                    stack.append(tuple(since(marks.pop())))
                case "APPEND":
                    _extend(stack[-2], [stack.pop()])
                case "APPENDS":
                    items = since(marks.pop())
                    _extend(stack[-1], items)
                case "SETITEM":
                    items = since(len(stack) - 2)
                    _update(stack[-1], items)
                case "SETITEMS":
                    items = since(marks.pop())
                    _update(stack[-1], items)
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "REDUCE":
                    arguments = stack.pop()
                    stack.append(self._call(stack.pop(), arguments))
                case "NEWOBJ":
                    stack.pop()
                    stack.append(_result(stack.pop()))
                case "BUILD":
                    stack.pop()  # the state of a foreign object, or metadata of a state dict
                case "STOP":
                    return stack.pop()
                case other:
                    raise PickleError(f"its pickle holds {other}, which torch does not write")
        raise PickleError("its pickle has no end")

    def _call(self, function: Any, arguments: Any) -> Any:
        """What calling ``function`` would have given."""
        name = function.name if isinstance(function, Foreign) else ""
        match name, arguments:
            case "collections OrderedDict", ():
                return {}
            case "torch._utils _rebuild_tensor_v2", (_Storage() as on, at, shape, strides, *_):
                return _tensor(on.elements, at, shape, strides)
            case "torch._utils _rebuild_parameter", (Tensor() as tensor, *_):
                return tensor
        return _result(function)

    def _storage(self, described: Any) -> _Storage:
        """The storage that torch describes as a name, a type, a record, a device and a length."""
        match described:
            case ("storage", Foreign(name=kind), str(key), str(), int(count)) if kind in _DTYPES:
                dtype = _DTYPES[kind]
            case _:
                raise PickleError("it holds tensors of an unknown kind")
        if key not in self.storages:
            data = bytearray(self._record(f"data/{key}", self.budget))
            self.budget -= len(data)
            if len(data) != count * dtype.itemsize:
                raise PickleError(f"{len(data)} bytes for {count} numbers of {dtype}")
            elements = torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)
            self.storages[key] = _Storage(elements)
        found = self.storages[key]
        if (found.elements.dtype, len(found.elements)) != (dtype, count):
            raise PickleError("it describes the same tensor in two ways")
        return found

    def _record(self, name: str, most: int) -> bytes:
        """A record of at most so many bytes."""
        info = self.archive.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise PickleError("compressed, which torch does not do")
        if info.file_size > most:
            raise PickleError(f"its record {name} takes {info.file_size} bytes")
        return self.archive.read(info)


def _tensor(elements: Tensor, start: Any, shape: Any, strides: Any) -> Tensor:
    """The view of ``elements`` that begins at ``start``, after every check torch leaves out."""
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise PickleError("a tensor without a shape")
    whole = all(type(number) is int and number >= 0 for number in (start, *shape, *strides))
    if not whole or len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise PickleError("a tensor of an impossible shape")
    steps = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count > len(elements) or (count and start + steps >= len(elements)):
        raise PickleError("a tensor larger than what is stored of it")
    return elements.as_strided(shape, strides, start) if count else elements.new_empty(shape)


def _result(function: Any) -> Foreign:
    return Foreign(function.name if isinstance(function, Foreign) else type(function).__name__)


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):  # else it is foreign, and so is what it holds
        target.extend(items)


def _update(target: Any, items: list[Any]) -> None:
    """``items``: keys and values in turn. Only text stays a key: other keys could take for ever
    to be hashed."""
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key if type(key) is str else Foreign(type(key).__name__)] = value
