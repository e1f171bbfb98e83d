"""From the records of a store and the published numbers to cells, each computed once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.experiments.experiment import Experiment
from bench.experiments.published import load_published
from bench.experiments.recipe import recipe_for
from bench.experiments.table import Column, PaperTable, Row
from bench.experiments.tables import TABLES
from bench.records import Record, Store
from bench.report.cells import Cell, MeasuredValue, StoreCells, TableCells, mark_best
from bench.report.verdict import judge


def collect_cells(
    store: Store, reference: Store | None = None, tables: Iterable[PaperTable] = TABLES.values()
) -> StoreCells:
    """The cells of the tables; every record is read once, so that all pages show one moment.

    Records of an outdated recipe and seeds that are not the recipe's are left out. The published value never stands in
    a small-scale row. Raises BenchError on a damaged record or published file.
    """
    ours, theirs = _sort(store), _sort(reference)
    cells = {table.name: _table_cells(table, ours, theirs) for table in tables}
    return StoreCells(cells, ours.counting, ours.ignored)


def counts(record: Record) -> bool:
    """Whether it is current and, if of a seed, of one of the recipe's: who may add seeds at will may choose them."""
    return record.is_current and (record.kind != "accuracy" or record.seed in recipe_for(record.experiment).seeds)


@dataclass(frozen=True)
class _Records:
    counting: tuple[Record, ...]
    ignored: tuple[Record, ...]
    by_experiment: Mapping[Experiment, Sequence[Record]]  # those that count

    def of_table(self, table: PaperTable, records: Sequence[Record]) -> list[Record]:
        """Those of `records` that the table shows or would show."""
        shown = {row.experiment for row in (*table.rows, *table.small_rows)}
        return [record for record in records if record.experiment in shown and record.kind in table.kinds]


def _sort(store: Store | None) -> _Records:
    counting, ignored = [], []
    by_experiment: dict[Experiment, list[Record]] = {}
    for record in store.load_all() if store else ():
        if counts(record):
            counting.append(record)
            by_experiment.setdefault(record.experiment, []).append(record)
        else:
            ignored.append(record)
    return _Records(tuple(counting), tuple(ignored), by_experiment)


def _table_cells(table: PaperTable, ours: _Records, theirs: _Records) -> TableCells:
    published = load_published(table.name) if table.printed else {}
    cells = {}
    for row, column, scale in _places(table):
        printed = published.get((row.number, column.metric)) if scale == "paper" else None
        measured, reference = (
            measured_value(records.by_experiment.get(row.experiment, ()), column, scale) for records in (ours, theirs)
        )
        value, n, kind = (measured.value, measured.n, measured.kind) if measured else (None, 0, column.kind)
        busy = measured is not None and any(record.is_of_busy_machine for record in measured.records)
        verdict = judge(printed, value, n, kind, scale, part_of_data(measured), busy)
        cells[row.number, column.metric] = Cell(table, row, column, scale, printed, measured, reference, verdict)
    return TableCells(
        table,
        mark_best(table, cells),
        ours.of_table(table, ours.counting),
        ours.of_table(table, ours.ignored),
        theirs.of_table(table, theirs.counting),
    )


def _places(table: PaperTable) -> Iterator[tuple[Row, Column, str]]:
    for row in table.rows:
        for column in table.columns:
            if not column.datasets or table.dataset_of(row) in column.datasets:
                yield row, column, "paper"
    for block in table.small_blocks:
        for row in block.rows:
            for column in block.columns:
                yield row, column, "small"


def measured_value(records: Sequence[Record], column: Column, scale: str) -> MeasuredValue | None:
    """The value of a column from the records of one experiment; None where none holds it.

    A released checkpoint stands in a row of the paper only where no seed was trained.
    """
    kind = column.kind
    if kind == "accuracy" and scale == "paper" and all(record.kind != "accuracy" for record in records):
        kind = "released"
    found = tuple(record for record in records if record.kind == kind and column.metric in record.metrics)
    if not found:
        return None
    metrics = [record.metrics[column.metric] for record in found]
    if kind == "accuracy":
        values = tuple(metric["value"] for metric in metrics)
        return MeasuredValue(median(values), min(values), max(values), len(values), values, found)
    (metric,) = metrics
    samples = found[0].samples.get(column.metric) or [metric["value"]]
    n = 1 if kind == "released" else metric["n"]  # models behind it, as for accuracy, not images
    return MeasuredValue(metric["value"], min(samples), max(samples), n, (metric["value"],), found, metric.get("p90"))


def part_of_data(measured: MeasuredValue | None) -> tuple[int, int] | None:
    """Images used and images of the whole data set, where a record is of a part of it."""
    for record in measured.records if measured else ():
        for used, official in (("val_images", "official_images"), ("train_images", "official_train_images")):
            images, total = record.details.get(used), record.details.get(official)
            if images and total and images < total:
                return images, total
    return None
