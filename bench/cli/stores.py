"""The stores that the commands read and write."""

from collections.abc import Mapping
from pathlib import Path

from bench.errors import BenchError
from bench.records import Record, Store

RESULTS = Path(__file__).resolve().parents[2] / "results"


def open_store(path: Path | None) -> Store:
    """The store in a folder (default: results/local), which need not exist. Raises BenchError for a file."""
    path = path or RESULTS / "local"
    if path.exists() and not path.is_dir():
        raise BenchError(f"{path} is not a folder: give the folder of the store with --store")
    return Store(path)


def weights_of(store: Store, record: Record) -> Path | None:
    """The weights that a training left, if its record names them and they are still there."""
    facts = record.details.get("weights")
    file = facts.get("file") if record.kind == "accuracy" and isinstance(facts, Mapping) else None
    path = store.path / file if isinstance(file, str) else None
    return path if path and path.is_file() else None
