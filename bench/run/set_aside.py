"""`--force`: what is there is set aside once, so that measuring all again is measuring what is missing.

It moves to `work/before-DATE/` of the store, which is laid out as a store itself. A marker in `work/`, there until all
is measured, keeps a run that was stopped and started again from setting aside what it has measured itself.
"""

import json
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from bench import provenance
from bench.experiments.hashing import content_hash
from bench.experiments.table import Measurement
from bench.files import write_atomically
from bench.records import Store


def set_aside(store: Store, run_name: str, measurements: Iterable[Measurement]) -> tuple[Path, int]:
    """Move records and unfinished work of the measurements; returns the folder they are in and the records moved.

    Where a run of that name, with the same code and software, has set them aside and did not end, nothing moves but
    what that one was killed before moving. What another process is measuring just now stays: it will be new.
    """
    marker, state = _marker(store, run_name), content_hash(provenance.state())
    folder = _folder(marker, state)
    if folder is None:
        folder = marker.with_name(f"before-{datetime.now():%Y-%m-%d-%H%M%S-%f}")
        write_atomically(marker, json.dumps({"state": state, "folder": folder.name}))
    return folder, sum([_move(store, Store(folder), m) for m in measurements])


def forget(store: Store, run_name: str) -> None:
    """All of that run is measured, forced or not: the next forced one sets aside anew."""
    marker = _marker(store, run_name)
    folder = _folder(marker)
    marker.unlink(missing_ok=True)
    if folder and not any(path.is_file() and path.name != ".lock" for path in folder.rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)  # there was nothing to set aside


def _move(store: Store, before: Store, m: Measurement) -> bool:
    """Whether there was a record. The work folder, which a claim creates, moves last: with it, all of this is done."""
    of = m.experiment, m.kind, m.seed
    work, record = before.work_path(*of), before.record_path(*of)
    if work.exists():
        return False
    with store.claim(*of) as mine:
        if not mine:
            work.mkdir(parents=True)
            return False
        found = store.record_path(*of).exists() and not record.exists()
        if found:
            record.parent.mkdir(parents=True, exist_ok=True)
            store.record_path(*of).rename(record)
        work.parent.mkdir(parents=True, exist_ok=True)
        store.work_path(*of).rename(work)
    return found


def _folder(marker: Path, state: str | None = None) -> Path | None:
    """Where the unfinished run has set aside what was there; None without one (of that program, if it is given)."""
    try:
        values = json.loads(marker.read_text(encoding="utf-8"))
        return marker.with_name(values["folder"]) if state in (None, values["state"]) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # none, or one of another program: begin anew
        return None


def _marker(store: Store, run_name: str) -> Path:
    return store.path / "work" / f"measuring-again-{run_name}.json"
