"""Pickles from elsewhere, read without running anything in them.

Python's own machine (`pickle._Unpickler`) with three changes: only the instructions that weight files need, only
globals that stand for themselves (a call makes a description, never the object named), and no claimed length believed
before the bytes are there. Sources: `pickletools` (instructions), PEP 574 (protocol 5), `torch.save` (storages).
"""

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

MAX_INSTRUCTIONS = 500_000  # 900 parameters with AdamW's state need 0.14 million; one makes ~100 bytes
MAX_ENTRIES = 100_000  # tensors of a safetensors file, entries of a zip; a training checkpoint of Swin-L has 3,000
MAX_DIMENSIONS = 32
NUMBERS = {kind + size for kind, sizes in {"f": "248", "i": "1248", "u": "1248", "b": "1"}.items() for size in sizes}


# What reading a damaged pickle raises
DAMAGE = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class Refused(pickle.UnpicklingError):
    """What the pickle asks for is outside of what weight files need."""


def quoted(text: str) -> str:
    """Text of a file for an error message: printable, on one line, not long."""
    return ascii(text if len(text) <= 100 else text[:97] + "...")


class Reader:
    """Consecutive pieces of a buffer. A piece is there completely, or EOFError is raised before anything is made."""

    def __init__(self, buffer: memoryview):
        self.buffer, self.position = buffer, 0

    def take(self, size: int) -> memoryview:
        if not 0 <= size <= len(self.buffer) - self.position:
            raise EOFError("it ends too early")
        self.position += size
        return self.buffer[self.position - size : self.position]

    def read(self, size: int) -> bytes:
        return bytes(self.take(size))

    def readline(self) -> bytes:
        line = bytes(self.buffer[self.position : self.position + 256])
        return self.read(line.index(b"\n") + 1)


@dataclass(frozen=True)
class Global:
    """A name that stands for itself."""

    name: str


class OrderedDict(dict):
    """Stands for collections.OrderedDict; its attributes (torch's `_metadata`) are left out."""

    def build(self, state: object) -> None:
        pass


class Dtype:
    """Stands for numpy.dtype: plain booleans, integers and floats."""

    def __init__(self, code: str, align: object = False, copy: object = True):
        if type(code) is not str or code not in NUMBERS:
            raise Refused(f"it holds an array of type {quoted(code) if type(code) is str else 'unknown'}, not numbers")
        self.code, self.order = code, "="

    def build(self, state: tuple) -> None:
        _, order, *inner = state[:5]
        if order not in ("<", ">", "|", "=") or inner != [None] * 3:
            raise Refused("it holds an array of a compound type")
        self.order = order

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class Array:
    """Stands for a numpy array or scalar; `data` is what the file has of it, str where each character is a byte."""

    def __init__(self, data: object = None, dtype: object = None, shape: object = (), order: str = "C"):
        self.data, self.dtype, self.shape, self.order = data, dtype, shape, order

    def build(self, state: tuple) -> None:
        *_, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran else "C"

    def nbytes(self) -> int:
        """Bytes claimed. Raises Refused if they are not exactly those in the file."""
        if type(self.dtype) is not Dtype or not isinstance(self.data, str | memoryview):
            raise Refused("an array lacks its type or its numbers")
        claimed = numel(self.shape) * self.dtype.numpy().itemsize
        if claimed != len(self.data):
            raise Refused(f"an array of shape {tuple(self.shape)} needs {claimed} bytes, and has {len(self.data)}")
        return claimed

    def tensor(self) -> Tensor:
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        order = "F" if self.order == "F" else "C"
        return as_tensor(np.ndarray(tuple(self.shape), self.dtype.numpy(), data, order=order))


def numel(shape: object) -> int:
    sizes = shape if isinstance(shape, tuple | list) else [None]
    if len(sizes) > MAX_DIMENSIONS or any(type(size) is not int or not 0 <= size < 2**63 for size in sizes):
        raise Refused("a shape or stride is not a short list of counts")
    return math.prod(sizes)


def as_tensor(array: np.ndarray) -> Tensor:
    """Copies only what is not as torch needs it: native, aligned, C order, writable."""
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "A", "W"]))


def _encode(text: str, encoding: str) -> str:
    """How Python 3 writes bytes in protocol 2; they stay text, so that copies cannot multiply."""
    if type(text) is not str or encoding != "latin1":
        raise Refused("it asks for an encoding other than latin1")
    return text


def _reconstruct(subtype: object, shape: object, code: object) -> Array:
    return Array()


_CORES = ("numpy.core", "numpy._core")
NUMPY_GLOBALS: dict[str, Callable | None] = {
    "collections.OrderedDict": None,  # a method: what it copies is charged
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: "",  # empty bytes in protocol 2
    "numpy.ndarray": None,
    "numpy.dtype": Dtype,
    **{f"{core}.multiarray._reconstruct": _reconstruct for core in _CORES},
    **{f"{core}.multiarray.scalar": lambda dtype, data: Array(data, dtype) for core in _CORES},
    **{f"{core}.numeric._frombuffer": Array for core in _CORES},
}


class RestrictedUnpickler(pickle._Unpickler):
    """Reads one pickle of plain containers, numbers, text and numpy arrays from a Reader.

    Bytes come out as views of the buffer, arrays as `Array`. Raises Refused for what no weight file needs, and
    whatever Python raises (`DAMAGE`) for a damaged pickle.
    """

    globals: ClassVar[Mapping[str, Callable | None]] = NUMPY_GLOBALS

    def __init__(self, reader: Reader):
        super().__init__(reader, encoding="latin1")
        self.take, self.read, self.readline = reader.take, reader.read, reader.readline
        self.stack, self.metastack, self.left = [], [], MAX_INSTRUCTIONS
        self.append = self.stack.append

    def load(self) -> object:
        dispatch = self.dispatch
        while (code := self.take(1)[0]) != pickle.STOP[0]:
            if code not in dispatch:
                raise Refused(f"its pickle has instruction {code:#04x}, which no weight file needs")
            self.spend(1)
            dispatch[code](self)
        return self.stack.pop()

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Refused(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")

    def find_class(self, module: str, name: str) -> Global:
        full = f"{module}.{name}"
        if full not in self.globals:
            raise Refused(f"its pickle asks for {quoted(full)}, which no weight file needs")
        return Global(full)

    def _ordered(self, items: object = ()) -> OrderedDict:
        pairs = list(items.items()) if isinstance(items, dict) else items
        if not isinstance(pairs, list | tuple):
            raise Refused("a dictionary is made of something else than pairs")
        self.spend(len(pairs))
        return self._fill(OrderedDict(), [entry for key, value in pairs for entry in (key, value)])

    def _fill(self, target: dict, items: list) -> dict:
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a deep tuple overflows the stack, and huge integers can all share one hash
            if type(key) is not str and (type(key) is not int or key.bit_length() > 63):
                raise Refused("a dictionary has a key that is neither text nor a number")
            target[key] = value
        return target

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise Refused("its pickle calls something that is no function")
        call = self._ordered if function.name.startswith("collections.") else self.globals[function.name]
        if call is None:
            raise Refused(f"its pickle calls {function.name}, which no weight file needs")
        self.append(call(*arguments))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) not in (OrderedDict, Dtype, Array):
            raise Refused("its pickle sets attributes of an object that has none")
        target.build(state)

    def _extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("its pickle appends to something that is no list")
        self.stack[-1].extend(items)

    def _update(self, items: list) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict):
            raise Refused("its pickle sets an item of something that is no dictionary")
        self._fill(self.stack[-1], items)

    def _bytes(self, width: int) -> None:
        self.append(self.take(int.from_bytes(self.read(width), "little")))

    dispatch = {
        code[0]: pickle._Unpickler.dispatch[code[0]]
        for code in (
            *(pickle.PROTO, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
            *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
            *(pickle.SHORT_BINSTRING, pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8),
            *(pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE),
            *(pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.GLOBAL, pickle.STACK_GLOBAL),
            *(pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
        )
    } | {
        pickle.FRAME[0]: lambda self: self.read(8),  # a hint for buffering
        pickle.REDUCE[0]: _reduce,
        pickle.BUILD[0]: _build,
        pickle.APPEND[0]: lambda self: self._extend([self.stack.pop()]),
        pickle.APPENDS[0]: lambda self: self._extend(self.pop_mark()),
        pickle.SETITEM[0]: lambda self: self._update([self.stack.pop(), self.stack.pop()][::-1]),
        pickle.SETITEMS[0]: lambda self: self._update(self.pop_mark()),
        pickle.SHORT_BINBYTES[0]: lambda self: self._bytes(1),
        pickle.BINBYTES[0]: lambda self: self._bytes(4),
        pickle.BINSTRING[0]: lambda self: self._bytes(4),  # Python 2's bytes; its short ones may be names
        pickle.BINBYTES8[0]: lambda self: self._bytes(8),
        pickle.BYTEARRAY8[0]: lambda self: self._bytes(8),
    }
