"""What the paper prints and says, read from `results/published`: a CSV a table, `notes.toml` and `claims.toml`."""

import csv
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line, unknown_name

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
ROW_COLUMNS = ("name", "method", "backbone", "factors", "base")  # the same on all lines of a row
NOTE_KINDS = ("accuracy", "complexity", "latency", "small")


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


@dataclass(frozen=True)
class PrintedRow:
    """A row as its file declares it.

    name: METHOD-BACKBONE, as `experiment` takes them where the method is built here, and what else tells rows apart.
    method, backbone: labels for people, the method's with the factor in words. factors: "factor=value" pairs between
    spaces, those of the paper's defaults that the row replaces, and "dataset" where it is not the table's. base: name
    of the row that its latency is compared with, empty for MaskFormer with the same backbone. place: file and line.
    """

    name: str
    method: str
    backbone: str
    factors: str = ""
    base: str = ""
    place: str = ""

    def factor_values(self) -> dict[str, str | int]:
        """Raises BenchError where `factors` are not written as pairs."""
        pairs = [pair.partition("=") for pair in self.factors.split()]
        if not all(name and value for name, _, value in pairs):
            raise BenchError(f"factors '{self.factors}' must be FACTOR=VALUE with spaces between")
        return {name: int(value) if value.isdecimal() else value for name, _, value in pairs}


@dataclass(frozen=True)
class Note:
    """What a reader must know about the numbers of one record kind ("small": of small models), below their block."""

    kind: str
    text: str


def load_published(table: str, folder: Path = PUBLISHED) -> dict[tuple[int, str], Published]:
    """(row number, metric) -> printed number. Raises BenchError naming the file and line at fault."""
    return _read(folder / f"{table}.csv")[1]


def load_rows(table: str, folder: Path = PUBLISHED) -> list[PrintedRow]:
    """The rows in the paper's order. Raises BenchError naming the file and line at fault."""
    return _read(folder / f"{table}.csv")[0]


def load_notes(folder: Path = PUBLISHED) -> dict[str, Note]:
    """All notes by name. Raises BenchError naming the file and the note at fault."""
    path, notes = folder / "notes.toml", {}
    for name, entry in load_toml(path).items():
        try:
            found = checked(entry, {"kind": str, "text": str})
            if found["kind"] not in NOTE_KINDS:
                raise unknown_name("kind", found["kind"], NOTE_KINDS)
        except BenchError as error:
            raise BenchError(f"{path}, note {name}: {error}") from error
        notes[name] = Note(found["kind"], one_paragraph(found["text"]))
    return notes


def load_toml(path: Path) -> dict:
    """Raises BenchError naming the file, and the line where it is not TOML."""
    if not path.is_file():
        raise BenchError(f"{path} is missing: run from a checkout of the repository")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BenchError(f"{path} is malformed: {one_line(error)}") from error


def checked(entry: object, types: Mapping[str, Any], optional: Collection[str] = ()) -> dict:
    """The entry, which has keys of these types; BenchError for a key that is unknown, missing or of another type."""
    if not isinstance(entry, dict):
        raise BenchError("must be a table of keys and values")
    for key, value in entry.items():
        if key not in types:
            raise unknown_name("key", key, types)
        if not isinstance(value, types[key]):
            raise BenchError(f"{key} has a value of another type: {value!r}")
    if missing := [key for key in types if key not in entry and key not in optional]:
        raise BenchError(f"{missing[0]} is missing")
    return entry


def one_paragraph(text: str) -> str:
    """Text of several lines as one."""
    return " ".join(text.split())


def _read(path: Path) -> tuple[list[PrintedRow], dict[tuple[int, str], Published]]:
    rows: list[PrintedRow] = []
    numbers: dict[tuple[int, str], Published] = {}
    for place, entry in _lines(path):
        try:
            cell = int(entry["row"]), entry["metric"]
            row = PrintedRow(**{column: entry[column] for column in ROW_COLUMNS}, place=place)
            relative = {"relative": True, "absolute": False}[entry["tolerance_unit"]]
            numbers_of_line = float(entry["published"]), float(entry["tolerance"])
            printed = Published(numbers_of_line[0], entry["unit"], numbers_of_line[1], relative, entry["basis"])
        except (KeyError, ValueError) as error:
            raise BenchError(f"{place} is malformed ({one_line(error)}): restore the file from git") from error
        _join(rows, cell[0], row)
        if cell in numbers:
            raise BenchError(f"{place}: {cell[1]} of row {cell[0]} has a number already: delete one of the two lines")
        numbers[cell] = printed
    for row in rows:
        if row.base and row.base not in (other.name for other in rows):
            raise BenchError(f"{row.place}: {unknown_name('row as base', row.base, [other.name for other in rows])}")
    return rows, numbers


def _lines(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of each line. Raises BenchError for lines with more or fewer cells than the first."""
    if not path.is_file():
        raise BenchError(f"published numbers {path} are missing: run from a checkout of the repository")
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for entry in reader:
                if None in entry or None in entry.values():
                    raise ValueError("too many or too few cells")
                yield f"{path} line {reader.line_num}", entry
        except (UnicodeDecodeError, ValueError, csv.Error) as error:
            place = f"{path} line {reader.line_num}"
            raise BenchError(f"{place} is malformed ({one_line(error)}): restore the file from git") from error


def _join(rows: list[PrintedRow], number: int, row: PrintedRow) -> None:
    """Append a new row; check that another line of the last row says the same as its first."""
    if number == len(rows) + 1:
        if row.name in (other.name for other in rows):
            raise BenchError(f"{row.place}: another row is called '{row.name}': give it a name of its own")
        rows.append(row)
        return
    if not rows or number != len(rows):
        raise BenchError(f"{row.place}: row {number} is out of order: count rows from 1, keep a row's lines together")
    first = rows[-1]
    for column in ROW_COLUMNS:
        here, there = getattr(row, column), getattr(first, column)
        if here != there:
            raise BenchError(
                f"{row.place}: {column} of row {number} is '{here}', but '{there}' on its first line "
                f"({first.place.rpartition(' line ')[2]}): write the same on all lines of a row"
            )
