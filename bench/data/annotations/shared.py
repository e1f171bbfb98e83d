"""Large annotation files are parsed once on a machine: what was read of them lies in the cache, and every process of a
training, and every later one, maps it into its memory instead of parsing the file again."""

import fcntl
import hashlib
import marshal
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from bench.data.annotations.coco_json import Category
from bench.data.coco_files import Packed
from bench.errors import BenchError
from bench.files import whole_file

WORTHWHILE = 50_000_000  # bytes: COCO's training images; smaller files are parsed in a second
FOLDER = "annotations"
_LENGTHS = struct.Struct("<QQ")  # bytes of the facts, number of packed values


class Parsed(Protocol):
    """A frozen dataclass with the fields `path`, `packed` and others of plain values."""

    path: Path
    packed: Packed


Read = TypeVar("Read", bound=Parsed)


def read_once(path: Path, read: Callable[[Path], Read], kind: type[Read]) -> Read:
    """`read(path)`, from the cache where the same file was read before by the same program.

    Processes that come at the same time wait for the first. Without a cache folder that can be written each reads for
    itself. Raises what `read` raises.
    """
    try:
        found = path.stat()
        if found.st_size < WORTHWHILE:
            return read(path)
        cache = _place(path, found)
    except (OSError, BenchError):  # there is no such file, which `read` says, or no folder for a cache
        return read(path)
    with _alone(cache):
        if (known := _load(cache, path, kind)) is not None:
            return known
        parsed = read(path)
        try:
            _save(cache, parsed)
        except (OSError, BenchError):  # the disk is full
            return parsed
        return _load(cache, path, kind) or parsed


def _place(path: Path, found: os.stat_result) -> Path:
    """One file for each annotation file, its state and the sources that parse it, as they decide what is accepted."""
    from bench.data.registry import default_cache  # which imports the readers

    sources = b"".join(source.read_bytes() for source in sorted(Path(__file__).parent.glob("*.py")))
    where = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]
    state = hashlib.sha256(f"{found.st_size} {found.st_mtime_ns}".encode() + sources).hexdigest()[:12]
    return default_cache() / FOLDER / f"{path.stem}-{where}-{state}.bin"


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process at a time, where the cache's folder can be written and has locks."""
    with ExitStack() as stack:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((cache.parent / f"{cache.stem.rpartition('-')[0]}.lock").open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # then each reads for itself
        yield


def _save(cache: Path, parsed: Parsed) -> None:
    """Write the cache; those of earlier states of the file are removed."""
    names = [field.name for field in fields(parsed) if field.name not in ("path", "packed")]
    facts = {name: getattr(parsed, name) for name in names}
    facts["categories"] = [asdict(category) for category in facts["categories"]]
    header = marshal.dumps(facts, 2)
    with whole_file(cache) as temporary, temporary.open("wb") as file:
        file.write(_LENGTHS.pack(len(header), len(parsed.packed)))
        file.write(header)
        file.write(parsed.packed.ends.tobytes())
        file.write(parsed.packed.buffer)
    for other in cache.parent.glob(cache.stem.rpartition("-")[0] + "-*.bin"):
        if other != cache:
            other.unlink(missing_ok=True)


def _load(cache: Path, path: Path, kind: type[Read]) -> Read | None:
    """None where nothing lies there that this user wrote."""
    try:
        with cache.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():  # marshal trusts what it reads
                return None
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        length, count = _LENGTHS.unpack_from(view)
        start = _LENGTHS.size + length
        facts: dict[str, Any] = marshal.loads(view[_LENGTHS.size : start])
        ends = np.frombuffer(view[start : start + 8 * count], np.int64)
        buffer = view[start + 8 * count :]
        if count and ends[-1] != len(buffer):
            return None
        facts["categories"] = tuple(Category(**category) for category in facts["categories"])
        return kind(path=path, packed=Packed.of(ends, buffer), **facts)
    except (OSError, ValueError, EOFError, TypeError, KeyError, struct.error):
        return None
