"""torch's own files by `torch.load(weights_only=True)`, once it is certain that they claim no more than they have.

`torch.load` runs no foreign code, but makes what a pickle claims: a file of 900 bytes gets it to allocate gigabytes
(`bytearray(2**31)`). So the pickle is read before with its storages and tensors as claims alone.
"""

import itertools
import math
import mmap
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from bench.errors import BenchError
from bench.weights.pickles import NUMBERS, NUMPY_NAMES, OrderedDict, Refused, RestrictedUnpickler, measure, quoted

MAX_ENTRIES = 100_000  # of a zip; a training checkpoint of Swin-L has 3,000
_TYPES = {torch.bool: "Bool", torch.uint8: "Byte", torch.int8: "Char", torch.int16: "Short", torch.int32: "Int",
          torch.int64: "Long", torch.float16: "Half", torch.bfloat16: "BFloat16", torch.float32: "Float",
          torch.float64: "Double"}  # fmt: skip
STORAGES = {f"torch.{name}Storage": dtype for dtype, name in _TYPES.items()}


def _check_view(numel: int, offset: int, size: tuple, stride: tuple, grad=False, hooks=None, metadata=None) -> None:
    """A tensor is a strided view of a storage with `numel` numbers."""
    if metadata:
        raise Refused("it holds a conjugated or negated tensor")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if min(offset, *size, *stride, 0) < 0 or (0 not in size and (last >= numel or math.prod(size) > numel)):
        raise Refused(f"a tensor of shape {str(size)[:100]} claims more numbers than its storage has")


def _nothing(*arguments: object) -> None:
    pass


TORCH_NAMES = NUMPY_NAMES | {
    "torch._utils._rebuild_tensor": _check_view,
    "torch._utils._rebuild_tensor_v2": _check_view,
    "torch._utils._rebuild_parameter": _nothing,
    "torch._utils._rebuild_parameter_with_state": _nothing,
    "torch.device": _nothing,
    **STORAGES,
    **dict.fromkeys(map(str, _TYPES)),
}


class Claims(RestrictedUnpickler):
    """Reads a pickle of torch without its tensors; storages: key -> the bytes that it claims."""

    copying = {"collections.OrderedDict": OrderedDict, "collections.Counter": OrderedDict, "torch.Size": tuple}

    def __init__(self, stream: BinaryIO):
        super().__init__(stream, TORCH_NAMES)
        self.storages: dict[str, int] = {}

    def persistent_load(self, reference: tuple) -> int:
        kind, dtype, key, _, numel, *view = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype) or view not in ([], [None]):
            raise Refused("its pickle refers to something outside that is no plain storage")
        if type(key) is not str or type(numel) is not int or numel < 0:
            raise Refused("its pickle refers to a storage in a way that torch does not")
        claimed = numel * dtype.itemsize
        if self.storages.setdefault(key, claimed) != claimed:
            raise Refused("its pickle gives one storage two sizes")
        return numel


def read_torch(content: mmap.mmap, path: Path) -> object:
    """What a torch file holds, of either container; tensors are mapped from a zip and may be written to."""
    is_zip = content[:2] == b"PK"
    check = _check_zip if is_zip else _check_legacy
    check(content, path)
    with torch.serialization.safe_globals(_numpy_globals()):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)


def _numpy_globals() -> list:
    """numpy's arrays and scalars, such as the best metric of a training; `Claims` has seen what they are made with."""
    functions = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(1).__reduce__()[0]}
    named = [(functions[name], f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name in functions]
    return [np.ndarray, np.dtype, *{type(np.dtype(code)) for code in NUMBERS}, *named]


def _check_zip(content: mmap.mmap, path: Path) -> None:
    """torch 1.6 and later: NAME/data.pkl, and NAME/data/KEY a storage, all of them uncompressed."""
    headers = re.finditer(b"PK\x01\x02", content)  # one an entry, counted before zipfile makes an object of each
    if sum(1 for _ in itertools.islice(headers, MAX_ENTRIES + 1)) > MAX_ENTRIES:
        raise Refused(f"it has more than {MAX_ENTRIES} entries")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        stored = all(info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1 for info in entries)
        if not stored or sum(info.file_size for info in entries) > len(content):
            raise Refused("its entries are compressed, encrypted or overlap, which torch never does")
        sizes = {info.filename: info.file_size for info in entries}
        pickles = [name for name in sizes if name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(sizes) != len(entries):
            raise BenchError(f"{path} is a zip archive without torch's data.pkl: give the weight file itself")
        _, claims = _claims(BytesIO(archive.read(pickles[0])))
    for key, claimed in claims.items():
        name = f"{pickles[0].removesuffix('data.pkl')}data/{key}"
        if name not in sizes:
            raise zipfile.BadZipFile(f"it lacks storage {quoted(key)}")
        if claimed > sizes[name]:
            raise Refused(f"a storage claims {claimed} bytes, and has {sizes[name]}")


def _check_legacy(content: mmap.mmap, path: Path) -> None:
    """torch before 1.6: magic, version, machine, the object and its storages' keys as pickles, then the storages."""
    content.seek(0)
    *_, (_, claims), (keys, _) = (_claims(content) for _ in range(5))
    if not isinstance(keys, list) or sorted(keys) != sorted(claims):
        raise Refused("its storages are not those of its pickle")
    if sum(claims.values()) + 8 * len(claims) > len(content) - content.tell():  # each has its length before it
        raise EOFError(f"its storages claim {sum(claims.values())} bytes, more than it has")


def _claims(stream: BinaryIO) -> tuple[object, dict[str, int]]:
    """What the next pickle of the stream holds, without tensors, and the bytes that its storages claim."""
    start = stream.tell()
    measure(stream)
    size = stream.tell() - start
    stream.seek(start)
    unpickler = Claims(BytesIO(stream.read(size)))
    return unpickler.load(), unpickler.storages
