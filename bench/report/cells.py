"""`Cell`: all that is known of one metric of one row. Every page, export and claim is made of these."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.experiments.published import Published
from bench.experiments.table import Column, PaperTable, Row
from bench.records import Record
from bench.report.verdict import Verdict, VerdictKind

PRINTED_AND_MEASURED = ("published", "measured")
BOLD = (
    "Bold: the best printed and the best measured value among rows of one backbone and data set (the highest accuracy, "
    "the fewest parameters and FLOPs)."
)
BOLD_SMALL = "Bold: the highest median, which ranks nothing where the ranges overlap."


@dataclass(frozen=True)
class MeasuredValue:
    """One metric of an experiment as records hold it.

    value: median of the seeds of an accuracy or of the rounds of a latency. low, high: their range. n: seeds or rounds,
    1 for a released checkpoint. values: those of the seeds; the value alone for other kinds.
    """

    value: float
    low: float
    high: float
    n: int
    values: tuple[float, ...]
    records: tuple[Record, ...]
    p90: float | None = None

    @property
    def kind(self) -> str:
        """Of its records: "released" where an accuracy is that of a checkpoint that others trained."""
        return self.records[0].kind


@dataclass(frozen=True)
class Cell:
    """What the paper prints of a metric of a row, what this store and the reference measured, and what that makes.

    scale: "paper" or "small". best: which of "published" and "measured" is the best of its block (`mark_best`).
    """

    table: PaperTable
    row: Row
    column: Column
    scale: str
    published: Published | None
    measured: MeasuredValue | None
    reference: MeasuredValue | None
    verdict: Verdict
    best: frozenset[str] = frozenset()

    @property
    def dataset(self) -> str:
        return self.table.dataset_of(self.row)

    def value(self, source: str) -> float | None:
        """The number that is "published", "measured" or the "reference"."""
        found = getattr(self, source)
        return None if found is None else found.value

    def digits(self, source: str) -> int:
        """Decimals to show. The paper prints parameters and FLOPs in whole millions and G."""
        return 0 if source == "published" and self.column.kind == "complexity" else self.column.digits

    def has(self, *sources: str) -> bool:
        return any(getattr(self, source) is not None for source in sources)


@dataclass(frozen=True)
class TableCells:
    """A table with its cells by row number and metric, in the table's order; a row may lack a metric.

    records: of the store, behind the table. ignored: such that do not count (see `counts`). reference_records: of the
    reference, that count.
    """

    table: PaperTable
    cells: Mapping[tuple[int, str], Cell]
    records: Sequence[Record]
    ignored: Sequence[Record]
    reference_records: Sequence[Record]

    def columns(self, kind: str) -> list[Column]:
        return [column for column in self.table.columns if column.kind == kind]

    def of_row(self, row: Row, columns: Iterable[Column]) -> list[Cell]:
        """The cells that the row has."""
        return [cell for column in columns if (cell := self.cells.get((row.number, column.metric)))]

    def of_column(self, column: Column, rows: Iterable[Row]) -> list[Cell | None]:
        """One a row; None where it does not have the metric."""
        return [self.cells.get((row.number, column.metric)) for row in rows]


@dataclass(frozen=True)
class StoreCells:
    """The cells of every table of one store by the table's name, and the store's records (`ignored` do not count)."""

    tables: Mapping[str, TableCells]
    records: Sequence[Record]
    ignored: Sequence[Record]

    @property
    def cells(self) -> list[Cell]:
        """Of all tables, in order."""
        return [cell for of_table in self.tables.values() for cell in of_table.cells.values()]


def group_of(table: PaperTable, row: Row) -> tuple[str, str]:
    """What rows must share to be compared."""
    return row.backbone, table.dataset_of(row)


def mark_best(table: PaperTable, cells: Mapping[tuple[int, str], Cell]) -> dict[tuple[int, str], Cell]:
    """The cells with `best`: compared as shown, ties included.

    None is best where fewer than two rows have a number, where all are equal, or where measured accuracies are not of
    one kind (seeds, released checkpoint, part of the data set).
    """
    best = set()
    for rows, columns in _blocks(table):
        for column in columns:
            block = [cells[key] for row in rows if (key := (row.number, column.metric)) in cells]
            for source in PRINTED_AND_MEASURED:
                best |= {(cell.row.number, column.metric, source) for cell in _best(block, column, source)}
    return {
        key: replace(cell, best=frozenset(source for source in PRINTED_AND_MEASURED if (*key, source) in best))
        for key, cell in cells.items()
    }


def _blocks(table: PaperTable) -> Iterator[tuple[Sequence[Row], Sequence[Column]]]:
    for group in dict.fromkeys(group_of(table, row) for row in table.rows):
        yield [row for row in table.rows if group_of(table, row) == group], table.columns
    for block in table.small_blocks:
        yield block.rows, block.columns


def _best(cells: Sequence[Cell], column: Column, source: str) -> list[Cell]:
    present = [cell for cell in cells if cell.has(source)]
    shown = [round(cell.value(source), cell.digits(source)) for cell in present]
    if len(set(shown)) < 2 or column.kind == "latency":
        return []
    if source == "measured" and column.kind == "accuracy" and len(set(map(_comparable, present))) > 1:
        return []
    best = min(shown) if column.kind == "complexity" else max(shown)
    return [cell for cell, value in zip(present, shown, strict=True) if value == best]


def _comparable(cell: Cell) -> tuple[int, bool, bool]:
    """What measured accuracies must share to be compared."""
    return cell.measured.n, cell.verdict.released, cell.verdict.kind is VerdictKind.PART
