"""torch's own files without `torch.load`.

`torch.load(weights_only=True)` runs no foreign code, but makes what a pickle claims: a file of 900 bytes gets it to
allocate gigabytes (`bytearray(2**31)`), and storages of the old format are allocated before they are read. So each
claim would have to be checked by a second reader beforehand; this is that reader. Tests compare it with `torch.load`.
"""

import itertools
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.weights.unpickling import (
    MAX_ENTRIES,
    NUMPY_GLOBALS,
    Global,
    Reader,
    Refused,
    RestrictedUnpickler,
    as_tensor,
    numel,
    quoted,
)

STORAGES = {
    "torch.BoolStorage": (torch.bool, "b1"),
    "torch.ByteStorage": (torch.uint8, "u1"),
    "torch.CharStorage": (torch.int8, "i1"),
    "torch.ShortStorage": (torch.int16, "i2"),
    "torch.IntStorage": (torch.int32, "i4"),
    "torch.LongStorage": (torch.int64, "i8"),
    "torch.HalfStorage": (torch.float16, "f2"),
    "torch.BFloat16Storage": (torch.bfloat16, "u2"),  # numpy has none: the bits are moved as integers
    "torch.FloatStorage": (torch.float32, "f4"),
    "torch.DoubleStorage": (torch.float64, "f8"),
}


@dataclass(eq=False)
class Storage:
    """Stands for a torch storage of `numel` numbers; `data` is found by the reader of the container."""

    type_name: str
    numel: int
    data: memoryview | None = None

    def nbytes(self) -> int:
        return self.numel * int(STORAGES[self.type_name][1][1])


@dataclass(eq=False)
class Strided:
    """Stands for a torch tensor: a strided view of a storage (offset and stride in numbers)."""

    storage: Storage
    offset: int
    shape: tuple
    stride: tuple

    def nbytes(self) -> int:
        """Bytes of the tensor when contiguous. Raises Refused if its storage does not have them."""
        count, storage = numel(self.shape), self.storage
        numel(self.stride)
        if type(storage) is not Storage or storage.data is None:
            raise Refused("a tensor lacks its storage")
        if storage.nbytes() > len(storage.data):
            raise Refused(f"a storage claims {storage.nbytes()} bytes, and has {len(storage.data)}")
        if len(self.shape) != len(self.stride) or type(self.offset) is not int or self.offset < 0:
            raise Refused("a tensor's shape, strides and offset contradict each other")
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if count and (count > storage.numel or last >= storage.numel):
            raise Refused(f"a tensor of shape {tuple(self.shape)} claims more numbers than its storage has")
        return count * int(STORAGES[storage.type_name][1][1])

    def tensor(self) -> Tensor:
        torch_type, code = STORAGES[self.storage.type_name]
        dtype = np.dtype("<" + code)
        if 0 in self.shape:
            return torch.empty(tuple(self.shape), dtype=torch_type)
        strides = tuple(step * dtype.itemsize for step in self.stride)
        numbers = np.ndarray(tuple(self.shape), dtype, self.storage.data, self.offset * dtype.itemsize, strides)
        return as_tensor(numbers).view(torch_type)


def _rebuild_tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None) -> Strided:
    if metadata:
        raise Refused("it holds a conjugated or negated tensor")
    return Strided(storage, offset, size, stride)


def _rebuild_parameter(data, requires_grad, hooks, state=None) -> object:
    return data


class TorchUnpickler(RestrictedUnpickler):
    """Reads the pickles of a torch file; tensors come out as `Strided`, and `storages` maps their keys to them."""

    globals = NUMPY_GLOBALS | {
        "collections.Counter": None,
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
        "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
        "torch.Size": lambda sizes=(): sizes,
        "torch.device": lambda kind, index=None: None,
        **dict.fromkeys(STORAGES),
        **dict.fromkeys(str(dtype) for dtype, _ in STORAGES.values()),
    }

    def __init__(self, reader: Reader):
        super().__init__(reader)
        self.storages: dict[str, Storage] = {}

    def _storage(self) -> None:
        kind, storage_type, key, _, numel, *view = self.stack.pop()
        if kind != "storage" or type(storage_type) is not Global or storage_type.name not in STORAGES:
            raise Refused("its pickle refers to something outside that is no plain storage")
        if type(key) is not str or type(numel) is not int or not 0 <= numel < 2**63 or view not in ([], [None]):
            raise Refused("its pickle refers to a storage in a way that torch does not")
        storage = self.storages.setdefault(key, Storage(storage_type.name, numel))
        if (storage.type_name, storage.numel) != (storage_type.name, numel):
            raise Refused("its pickle gives one storage two sizes")
        self.append(storage)

    dispatch = RestrictedUnpickler.dispatch | {pickle.BINPERSID[0]: _storage}


def read_zip(content: memoryview, path: Path) -> object:
    """torch 1.6 and later: NAME/data.pkl, and NAME/data/KEY a storage, all of them uncompressed."""
    headers = re.finditer(b"PK\x01\x02", content)  # one an entry, counted before zipfile makes an object of each
    if sum(1 for _ in itertools.islice(headers, MAX_ENTRIES + 1)) > MAX_ENTRIES:
        raise Refused(f"it has more than {MAX_ENTRIES} entries")
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        stored = all(info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1 for info in entries.values())
        if not stored or sum(info.file_size for info in archive.infolist()) > len(content):
            raise Refused("its entries are compressed, encrypted or overlap, which torch never does")
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise BenchError(f"{path} is a zip archive without torch's data.pkl: give the weight file itself")
    folder = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and bytes(_entry(content, order)) != b"little":
        raise BenchError(f"{path} is of a big-endian machine: save it again on another one")
    unpickler = TorchUnpickler(Reader(_entry(content, entries[pickles[0]])))
    loaded = unpickler.load()
    for key, storage in unpickler.storages.items():
        if f"{folder}data/{key}" not in entries:
            raise zipfile.BadZipFile(f"it lacks storage {quoted(key)}")
        storage.data = _entry(content, entries[f"{folder}data/{key}"])
    return loaded


def _entry(content: memoryview, info: zipfile.ZipInfo) -> memoryview:
    reader = Reader(content[info.header_offset :])
    header = reader.read(30)
    if header[:4] != b"PK\x03\x04" or info.header_offset < 0:
        raise zipfile.BadZipFile("an entry is not where the directory has it")
    reader.take(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"))
    return reader.take(info.file_size)


def read_legacy(content: memoryview, path: Path) -> object:
    """torch before 1.6: magic, version, machine, the object and its storages' keys as pickles, then the storages."""
    reader = Reader(content)
    _, version, machine = (RestrictedUnpickler(reader).load() for _ in range(3))
    if version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise BenchError(f"{path} is of another torch format or machine: save it again with a current torch")
    unpickler = TorchUnpickler(reader)
    loaded = unpickler.load()
    keys = RestrictedUnpickler(reader).load()
    if not isinstance(keys, list) or sorted(keys) != sorted(unpickler.storages):
        raise Refused("its storages are not those of its pickle")
    for key in keys:
        storage = unpickler.storages[key]
        if int.from_bytes(reader.read(8), "little") != storage.numel:
            raise Refused("a storage has not the size that its pickle claims")
        storage.data = reader.take(storage.nbytes())
    return loaded
