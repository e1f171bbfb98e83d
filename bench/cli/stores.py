"""The stores that the commands read and write."""

from pathlib import Path

from bench.errors import BenchError
from bench.records import Store

RESULTS = Path(__file__).resolve().parents[2] / "results"


def open_store(path: Path | None) -> Store:
    """The store in a folder (default: results/local), which need not exist. Raises BenchError for a file."""
    path = path or RESULTS / "local"
    if path.exists() and not path.is_dir():
        raise BenchError(f"{path} is not a folder: give the folder of the store with --store")
    return Store(path)
