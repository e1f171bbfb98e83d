"""`--force`, in a way that a run that was stopped goes on: files count as measured anew since the forced run began.

Its beginning is the time of a marker file in the store, so that one clock, that of the store's disk, times everything.
"""

from pathlib import Path

from bench import provenance
from bench.experiments.hashing import content_hash
from bench.files import write_atomically
from bench.records import Store


def begin(store: Store, name: str) -> float:
    """When the forced run of this name began, in seconds since the epoch: now, or when an unfinished one did.

    With other code or other software than that one, it begins now.
    """
    path, state = _path(store, name), content_hash(provenance.state())
    try:
        unfinished = path.read_text(encoding="utf-8") == state
    except (OSError, ValueError):
        unfinished = False
    if not unfinished:
        write_atomically(path, state)
    return path.stat().st_mtime


def end(store: Store, name: str) -> None:
    """All of it is measured, forced or not: the next forced run of this name begins anew."""
    _path(store, name).unlink(missing_ok=True)


def is_older(path: Path, since: float | None) -> bool:
    """Whether a file is there, from before a forced run began (None: there is none)."""
    return since is not None and path.exists() and path.stat().st_mtime < since


def _path(store: Store, name: str) -> Path:
    return store.path / "work" / f"forced-{name}"
