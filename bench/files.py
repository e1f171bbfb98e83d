"""Writing a file or a folder whole or not at all, and working in one alone, whoever else reads or writes it."""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bench.errors import BenchError, one_line

_REMEDIES = {
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "check the disk"),
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk says inside, mostly without naming a file, becomes a BenchError about `path`."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename is not None and Path(os.fsdecode(error.filename)).parent != path.parent
        if elsewhere or error.errno not in _REMEDIES:
            raise
        raise BenchError(f"cannot write {path} {_reason(error)} or give another folder (--store, --out)") from error


def _reason(error: OSError) -> str:
    """What the system says, and the first half of the remedy."""
    return f"({error.strerror or one_line(error)}): {_REMEDIES.get(error.errno, 'make it writable')}"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old one, or all of the new one, also after a crash of the machine.

    Raises as `whole_file`.
    """
    with whole_file(path, durable=True) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """A new empty file beside `path` (hidden, ending in .tmp) that takes its place when the block ends without error.

    The folder is made where it is missing. durable: whether to wait for the disk, so that a crash of the machine, and
    not only of the process, leaves the old file or the new one. Raises BenchError where it cannot be written,
    OSError where the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.stem[:32]}-", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        with writing(path):
            yield temporary
            if durable:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_folder(root: Path, marker: str, content: dict, write: Callable[[Path], None], replace: bool = False) -> None:
    """Have `write(folder)` make a folder, with `content` as JSON in its file `marker`, which then becomes `root`.

    Nothing happens where `root` has that content already. replace: whether it may take the place of one with another
    content. Raises BenchError where `root` holds anything else, and where it cannot be written.
    """
    root = Path(os.path.realpath(root))
    if _lies_there(root, marker, content, replace):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    except OSError as error:
        raise BenchError(f"cannot write to {root.parent} {_reason(error)} or choose another folder") from error
    try:
        write(scratch / "new")
        (scratch / "new" / marker).write_text(json.dumps(content), encoding="utf-8")
        _install(scratch / "new", root, marker, content, replace)
    except OSError as error:
        raise BenchError(f"cannot write {root} {_reason(error)} or choose another folder") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_marker(path: Path) -> object:
    """Content of a marker file, None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _lies_there(root: Path, marker: str, content: dict, replace: bool) -> bool:
    """True where this very content lies, False where `root` may be written; BenchError for everything else."""
    found = read_marker(root / marker)
    if found == content:
        return True
    ours = replace and (root / marker).is_file()  # whatever it holds, as after a crash of the machine
    if found is None and not ours and not _is_vacant(root):
        raise BenchError(f"{root} exists and is not an empty folder: choose another folder")
    if found is not None and not replace:
        raise BenchError(f"{root} holds another generated data set: delete it or choose another folder")
    return False


def _is_vacant(root: Path) -> bool:
    try:
        return not any(root.iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return not root.exists()  # below a file: the folder cannot be made, which says so


def _install(new: Path, root: Path, marker: str, content: dict, replace: bool) -> None:
    """Rename new to root; another process may do the same meanwhile."""
    for attempt in range(10):
        try:
            os.rename(new, root)
            return
        except OSError:
            if _lies_there(root, marker, content, replace):  # the other process was faster
                return
            if not replace or not root.exists():
                raise
        try:
            os.rename(root, new.parent / f"old{attempt}")
        except FileNotFoundError:
            pass
    raise BenchError(f"{root} is being replaced over and over by another process: stop it and try again")


@contextmanager
def lock_folder(folder: Path, root: Path) -> Iterator[bool]:
    """Yield True if this process has `folder` for itself, False if another one has. Ends with the process.

    A folder in which nothing was written is removed, and those above it up to `root` as far as they are empty.
    """
    path = folder / ".lock"
    try:
        file = open(path, "w")  # noqa: SIM115
    except FileNotFoundError:  # the folder was removed by who had it until now
        yield False
        return
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if not _is_same(lock, path):  # removed by who had it while this process waited for it
            yield False
            return
        try:
            yield True
        finally:
            # Where the folder was moved away, another process may have made it and its lock again.
            if _is_same(lock, path) and [entry.name for entry in folder.glob("*")] == [path.name]:
                path.unlink()
                _remove_empty(folder, root)


def _is_same(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove the folder, and those above it up to `root` itself, as far as they are empty."""
    for path in (folder, *folder.parents):
        try:
            path.rmdir()
        except OSError:
            return
        if path == root:
            return
