"""The paper's printed numbers and their tolerances, kept in `results/published/<table>.csv`."""

import csv
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"


@dataclass(frozen=True)
class Published:
    """One printed number. `tolerance` is in percent of `value` when `relative`, else in the unit itself."""

    value: float
    unit: str
    tolerance: float
    relative: bool
    basis: str

    @property
    def tolerance_text(self) -> str:
        """ "3 %" of the value, "0.6 M", or "0.5" points of a percentage."""
        if self.relative:
            return f"{self.tolerance:g} %"
        return f"{self.tolerance:g}" if self.unit == "%" else f"{self.tolerance:g} {self.unit}"


def load_published(table: str, folder: Path = PUBLISHED) -> dict[tuple[int, str], Published]:
    """(row number, metric) -> printed number. Raises BenchError naming the file and line at fault."""
    path = folder / f"{table}.csv"
    if not path.is_file():
        raise BenchError(f"published numbers {path} are missing: run from a checkout of the repository")
    published = {}
    with open(path, encoding="utf-8", newline="") as file:
        for line, entry in enumerate(csv.DictReader(file), start=2):
            try:
                relative = {"relative": True, "absolute": False}[entry["tolerance_unit"]]
                published[int(entry["row"]), entry["metric"]] = Published(
                    float(entry["published"]), entry["unit"], float(entry["tolerance"]), relative, entry["basis"]
                )
            except (KeyError, TypeError, ValueError) as error:
                raise BenchError(f"{path} line {line} is malformed: restore the file from git") from error
    return published
