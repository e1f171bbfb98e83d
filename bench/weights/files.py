"""Tensors of weight files from elsewhere: safetensors, pickles of numpy arrays, torch files.

The files are not trusted: nothing in them is run, and no length that they claim is believed.
"""

import hashlib
import mmap
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import safetensors
from torch import Tensor

from bench.errors import BenchError, one_line
from bench.weights.hub_folder import INDEX, read_index, weight_file
from bench.weights.pickles import Array, Refused, RestrictedUnpickler, measure, quoted, tensor_of
from bench.weights.torch_files import MAX_ENTRIES, read_torch

MAX_SHARING = 4  # all tensors together may claim so many times the file: tied weights are stored once
TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # 0x1950a86a20f9469cfc6c as a pickle has it
AGAIN = "download it again"
ELSEWHERE = "take it from another source, or save its weights alone"
# What reading a damaged file raises; RuntimeError is torch's
DAMAGE = (pickle.UnpicklingError, safetensors.SafetensorError, zipfile.BadZipFile, struct.error, RuntimeError, OSError,
          EOFError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError)  # fmt: skip


@dataclass(frozen=True)
class TensorFile:
    """What a weight file holds.

    container: "safetensors", "pickle" or "torch". tensors: as stored (names, shapes, types), contiguous, on the CPU,
    where possible mapped from the file. metadata: that of safetensors. other: names of the entries that are no tensors
    of the model ("optimizer"), those beside tensors as "model.NAME". sha256: of the file, hex; of shards that of the
    lines "SHA-256  NAME" of index and shards, sorted by name. size: bytes of all. values: text and whole numbers among
    the other entries, beside the state dict.
    """

    path: Path
    container: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    other: tuple[str, ...]
    sha256: str
    size: int
    values: Mapping[str, str | int] = field(default_factory=dict)


def sha256(path: Path) -> str:
    """sha256 (hex) of a file, streamed. Raises BenchError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror}): check its path and rights") from error


def read_tensors(path: Path) -> TensorFile:
    """Tensors of a weight file, whose format is told by its content; of shards, whose index `path` is; of the hub's
    folder of a model.

    The state dict is the entry "model" (detectron2, Swin), else "state_dict", else the dictionary itself. Raises
    BenchError for files that are missing, damaged, hostile, of another kind or without tensors.
    """
    path = weight_file(Path(path))
    file = _read_shards(path) if path.name.endswith(INDEX) else _read_one(path)
    if all(name.startswith("module.") for name in file.tensors):  # of torch's DistributedDataParallel
        return replace(file, tensors={name.removeprefix("module."): value for name, value in file.tensors.items()})
    return file


def _read_shards(index: Path) -> TensorFile:
    places = read_index(index)
    shards = [_read_one(index.with_name(name)) for name in sorted(set(places.values()))]
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        strange = [name for name in shard.tensors if places.get(name) != shard.path.name]
        if strange:
            raise BenchError(
                f"{shard.path} is refused, it holds {quoted(strange[0])}, of which {index.name} says otherwise: {AGAIN}"
            )
        tensors |= shard.tensors
    missing = [name for name in places if name not in tensors]
    if missing:
        raise BenchError(f"{index.with_name(places[missing[0]])} lacks {quoted(missing[0])} of {index.name}: {AGAIN}")
    digests = {shard.path.name: shard.sha256 for shard in shards} | {index.name: sha256(index)}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    other = tuple(dict.fromkeys(name for shard in shards for name in shard.other))
    size = index.stat().st_size + sum(shard.size for shard in shards)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return TensorFile(index, f"{shards[0].container}, {len(shards)} shards", tensors, {}, other, digest, size)


def _read_one(path: Path) -> TensorFile:
    content = _map(path)
    container, read = _format(content, path)
    try:
        with warnings.catch_warnings(action="ignore"):  # what torch and pickletools say of a damaged pickle
            tensors, metadata, other, values = read(content, path)
    except Refused as error:
        raise BenchError(f"{path} is refused, {error}: {ELSEWHERE}") from error
    except DAMAGE as error:
        raise BenchError(f"{path} is damaged ({quoted(one_line(error))}): {AGAIN}") from error
    return TensorFile(path, container, tensors, metadata, other, sha256(path), len(content), values)


def _map(path: Path) -> mmap.mmap:
    """The file as memory, read when it is used."""
    if not path.exists():
        raise BenchError(f"no weight file {path}: check its path")
    if not path.is_file():
        raise BenchError(f"{path} is no file: give the weight file itself")
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise BenchError(f"{path} is empty: {AGAIN}")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror}): check its path and rights") from error


def _format(content: mmap.mmap, path: Path) -> tuple[str, Callable]:
    head = content[:512]
    # A pickle's first byte may begin a safetensors length too; that one has zeros at its end
    if head[8:9] == b"{" and (head[0] != 0x80 or head[4:8] == bytes(4)):
        return "safetensors", _safetensors
    if head.startswith(b"PK\x03\x04"):
        return "torch", _torch
    if head[0] == 0x80 and TORCH_MAGIC in head[:32]:
        return "torch", _torch
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle", _pickle
    if head.startswith(b"version https://git-lfs"):
        raise BenchError(f"{path} is a Git LFS pointer, not the weights: fetch them with 'git lfs pull'")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise BenchError(f"{path} is a web page, not weights: {AGAIN}, with the address of the file itself")
    raise BenchError(f"{path} is no weight file (safetensors, pickle or torch): {AGAIN}")


def _safetensors(content: mmap.mmap, path: Path) -> tuple[dict, dict, tuple, dict]:
    """Header first: the library checks every offset and size in it against the file."""
    with safetensors.safe_open(path, "pt", device="cpu") as file:
        names = list(file.keys())
        if not names:
            raise BenchError(f"{path} holds no tensors: {ELSEWHERE}")
        if len(names) > MAX_ENTRIES:
            raise Refused(f"it has more than {MAX_ENTRIES} tensors")
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {}), (), {}


def _pickle(content: mmap.mmap, path: Path) -> tuple[dict, dict, tuple, dict]:
    measure(content)
    content.seek(0)
    return _model(RestrictedUnpickler(content).load(), content, path)


def _torch(content: mmap.mmap, path: Path) -> tuple[dict, dict, tuple, dict]:
    return _model(read_torch(content, path), content, path)


def _model(loaded: object, content: mmap.mmap, path: Path) -> tuple[dict, dict, tuple, dict]:
    """The state dict in what a pickle holds, and the names of the rest; tensors are made once all claims hold."""
    if not isinstance(loaded, dict):
        kind = "single tensor" if isinstance(loaded, Array | Tensor) else type(loaded).__name__
        raise BenchError(f"{path} holds a {kind}, no state dict: give a file of weights")
    section = next((name for name in ("model", "state_dict") if _arrays(loaded.get(name))), None)
    state = loaded[section] if section else loaded
    arrays = _arrays(state)
    if not arrays:
        keys = ", ".join(quoted(str(key)) for key in list(loaded)[:5]) or "nothing"
        raise BenchError(f"{path} holds no state dict but {keys}: give a file of weights")
    if sum(array.nbytes for array in arrays.values()) > MAX_SHARING * len(content):
        raise Refused("its tensors together claim many times the file")
    made: dict[int, Tensor] = {}  # two names of one array share its tensor
    for array in arrays.values():
        if id(array) not in made:
            made[id(array)] = _tensor(array)
    other = [str(name) for name in loaded if section and name != section]
    other += [f"{section}.{name}" if section else str(name) for name in state if name not in arrays]
    values = {name: value for name, value in loaded.items() if isinstance(name, str) and type(value) in (str, int)}
    return {name: made[id(array)] for name, array in arrays.items()}, {}, tuple(other), values


def _arrays(state: object) -> dict[str, Array | Tensor | np.ndarray | np.generic]:
    kinds, entries = Array | Tensor | np.ndarray | np.generic, state.items() if isinstance(state, dict) else ()
    return {name: value for name, value in entries if isinstance(name, str) and isinstance(value, kinds)}


def _tensor(array: Array | Tensor | np.ndarray | np.generic) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().contiguous()
    return tensor_of(array.view() if isinstance(array, Array) else np.asarray(array))
