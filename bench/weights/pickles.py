"""Pickles from elsewhere: plain containers, numbers, text and numpy arrays, read without running anything in them.

Python's own unpickler with a short list of names that a pickle may ask for, and no claimed length believed: `measure`
walks over the instructions first, and each name stands for a function of this file. Source: `pickletools`, PEP 574.
"""

import pickle
import pickletools
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

MAX_INSTRUCTIONS = 500_000  # 900 parameters with AdamW's state need 0.14 million; one makes ~100 bytes
MAX_DEPTH = 1000  # of containers in containers: hashing or freeing much deeper ones overflows the stack
FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS")  # a container that stays where it is
NUMBERS = {kind + size for kind, sizes in {"f": "248", "i": "1248", "u": "1248", "b": "1"}.items() for size in sizes}


class Refused(pickle.UnpicklingError):
    """What the file asks for is outside of what weight files need."""


def quoted(text: str) -> str:
    """Text of a file for an error message: printable, on one line, not long."""
    return ascii(text if len(text) <= 100 else text[:97] + "...")


def measure(stream: BinaryIO) -> None:
    """Walk over one pickle without making what it says, and leave the stream behind it.

    Raises Refused where reading it would take memory out of proportion, ValueError or LookupError for a damaged one.
    """
    stack, memo = [], {}  # how deep each value is nested; None for a mark
    for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_INSTRUCTIONS:
            raise Refused(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
        if instruction.name.endswith(("PUT", "MEMOIZE")):
            place = len(memo) if argument is None else argument
            if place > MAX_INSTRUCTIONS:  # Python makes a list of this length
                raise Refused(f"its pickle numbers more than {MAX_INSTRUCTIONS} values")
            memo[place] = stack[-1]
        elif instruction.name.endswith("GET"):
            stack.append(memo[argument])
        else:
            _follow(instruction, stack)


def _follow(instruction: pickletools.OpcodeInfo, stack: list[int | None]) -> None:
    before, taken = instruction.stack_before, []
    if pickletools.markobject in before:
        while (top := stack.pop()) is not None:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    taken += [stack.pop() or 0 for _ in before]
    container = taken.pop() if instruction.name in FILLING else 0
    depth = max([container, *(inner + 1 for inner in taken)])
    if depth > MAX_DEPTH:
        raise Refused(f"its pickle nests values deeper than {MAX_DEPTH}")
    stack += [None if value is pickletools.markobject else depth for value in instruction.stack_after]


def tensor_of(array: np.ndarray) -> Tensor:
    """Copies only what is not as torch needs it: native, aligned, C order, writable."""
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "A", "W"]))


class OrderedDict(dict):
    """Stands for collections.OrderedDict; its attributes (torch's `_metadata`) are left out."""

    def __setstate__(self, state: object) -> None:
        pass


class Dtype:
    """Stands for numpy.dtype: plain booleans, integers and floats."""

    def __init__(self, code: str, align: object = False, copy: object = True):
        if code not in NUMBERS:
            raise Refused(f"it holds an array of type {quoted(str(code))}, not numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]
        if self.order not in ("<", ">", "|", "=") or state != (3, self.order, None, None, None, -1, -1, 0):
            raise Refused("it holds an array of a compound type")


class Array:
    """Stands for a numpy array or scalar; data: its bytes, or text of which each character is a byte (protocol 2)."""

    def __init__(self, data: bytes | str = b"", dtype: Dtype | None = None, shape: tuple = (), order: str = "C"):
        self.data, self.dtype, self.shape, self.order = data, dtype, shape, order

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran else "C"
        self.view()

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def view(self) -> np.ndarray:
        """The numbers. Raises Refused if the shape is not that of the bytes."""
        if type(self.dtype) is not Dtype or type(self.data) not in (bytes, bytearray, str):
            raise Refused("an array lacks its type or its numbers")
        data = self.data.encode("latin1") if type(self.data) is str else self.data
        dtype = np.dtype(self.dtype.order + self.dtype.code)
        array = np.ndarray(self.shape, dtype, data, order=self.order)  # ValueError if it has fewer bytes
        if array.nbytes != len(data):
            raise Refused(f"an array of shape {array.shape} needs {array.nbytes} bytes, and has {len(data)}")
        return array


def _encode(text: str, encoding: str) -> str:
    """How Python 3 writes bytes in protocol 2; they stay text, so that copies cannot multiply."""
    if type(text) is not str or encoding != "latin1":
        raise Refused("it asks for an encoding other than latin1")
    return text


def _reconstruct(subtype: object, shape: object, code: object) -> Array:
    if shape != (0,):  # numpy would make one of this shape
        raise Refused("it makes an array before its numbers are there")
    return Array()


_CORES = ("numpy.core", "numpy._core")
NUMPY_NAMES: dict[str, object] = {
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: "",  # empty bytes in protocol 2
    "numpy.ndarray": None,
    "numpy.dtype": Dtype,
    **{f"{core}.multiarray._reconstruct": _reconstruct for core in _CORES},
    **{f"{core}.multiarray.scalar": lambda dtype, data: Array(data, dtype) for core in _CORES},
    **{f"{core}.numeric._frombuffer": Array for core in _CORES},
}


class RestrictedUnpickler(pickle.Unpickler):
    """Reads one measured pickle; arrays come out as `Array`.

    names: what each allowed name stands for. Raises Refused for other names, and `DAMAGE` of `files.py` for a damaged
    pickle.
    """

    copying: dict[str, Callable] = {"collections.OrderedDict": OrderedDict}

    def __init__(self, stream: BinaryIO, names: dict[str, object] = NUMPY_NAMES):
        super().__init__(stream, encoding="latin1")
        self.names, self.left = names, MAX_INSTRUCTIONS

    def find_class(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        if full in self.copying:
            return partial(self._copy, self.copying[full])
        if full not in self.names:
            raise Refused(f"its pickle asks for {quoted(full)}, which no weight file needs")
        value = self.names[full]
        return partial(value) if isinstance(value, type) else value  # a class could be made around its checks

    def _copy(self, make: Callable, items: dict | list | tuple = ()) -> object:
        """One short call can copy a long list again and again: copies count."""
        self.left -= len(items)
        if self.left < 0:
            raise Refused(f"its pickle copies more than {MAX_INSTRUCTIONS} values")
        return make(items)
