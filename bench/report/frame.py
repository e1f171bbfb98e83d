"""One tidy line a cell: published, reference and measured value of every metric of every row."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

import pandas as pd

from bench.experiments.experiment import Experiment
from bench.experiments.published import load_published
from bench.experiments.recipe import recipe_for
from bench.experiments.table import Column, PaperTable, Row
from bench.records import Record, Store
from bench.report.verdict import RELEASED, verdict

COLUMNS = (
    "table,row,method,backbone,dataset,scale,metric,unit,published,reference,measured,min,max,n,tolerance,"
    "verdict,record"
).split(",")


@dataclass(frozen=True)
class Value:
    """A cell as measured: the median with its range, the seeds or samples behind it, and its records."""

    value: float
    low: float
    high: float
    n: int
    records: tuple[Record, ...]


def build_table(table: PaperTable, store: Store, reference: Store | None = None) -> pd.DataFrame:
    """Tidy frame with `COLUMNS`, empty (NaN) where nobody measured.

    Accuracy is the median of the seeds with range and `n`, or that of a released checkpoint (`released_stand_in`); a
    latency's range is that of its samples, and its 90th percentile is a metric of its own (`<metric>_p90`). Records
    of an outdated recipe are left out. The published value never stands in a small-scale row. Raises BenchError on a
    damaged record or published file.
    """
    return _frame(table, store, by_experiment(store), by_experiment(reference))


def build_tables(tables: Iterable[PaperTable], store: Store) -> dict[str, pd.DataFrame]:
    """Table name -> frame as of `build_table` without reference; the records are read once."""
    groups = by_experiment(store)
    return {table.name: _frame(table, store, groups, {}) for table in tables}


def _frame(table: PaperTable, store: Store, ours: dict, theirs: dict) -> pd.DataFrame:
    published = load_published(table.name) if table.rows else {}
    lines = []
    for row, column in _cells(table):
        small = row in table.small_rows
        scale = "small" if small else "paper"
        printed = None if small else published.get((row.number, column.metric))
        cell, other = find_value(ours, row, column), find_value(theirs, row, column)
        kind = cell.records[0].kind if cell else column.kind
        line = {
            "table": table.name,
            "row": row.number,
            "method": row.method,
            "backbone": row.backbone,
            "dataset": table.dataset_of(row),
            "scale": scale,
            "metric": column.metric,
            "unit": column.unit,
            "published": printed and printed.value,
            "reference": other and other.value,
            "tolerance": printed.tolerance_text if printed else "",
            "verdict": partial_data(cell) or verdict(printed, cell and cell.value, cell.n if cell else 0, kind, scale),
        }
        if cell:
            line |= {"measured": cell.value, "min": cell.low, "max": cell.high, "n": cell.n}
            line["record"] = ";".join(store.relative(record) for record in cell.records)
        lines.append(line)
    frame = pd.DataFrame(lines, columns=COLUMNS)
    numbers = ["published", "reference", "measured", "min", "max"]
    frame[numbers] = frame[numbers].astype("float64")
    return frame.astype({"n": "Int64"}).fillna({"record": ""})


def by_experiment(store: Store | None) -> dict[str, list[Record]]:
    """Experiment key -> its records that count: current ones, of the recipe's seeds."""
    groups: dict[str, list[Record]] = {}
    for record in store.load_all() if store else []:
        if counts(record):
            groups.setdefault(record.experiment.key, []).append(record)
    return groups


def counts(record: Record) -> bool:
    """Whether it is current and, if of a seed, of one of the recipe's: who may add seeds at will may choose them."""
    return record.is_current and (record.kind != "accuracy" or record.seed in recipe_for(record.experiment).seeds)


def left_out(records: Iterable[Record]) -> list[str]:
    """What a page says of records that do not count, a line each kind."""
    ignored = [record for record in records if not counts(record)]
    extra = sum(record.is_current for record in ignored)
    stale = len(ignored) - extra
    return [
        *([f"Left out: {stale} record(s), made with another recipe, post-processing or model."] if stale else []),
        *([f"Left out: {extra} accuracy record(s) of seeds that are not the recipe's."] if extra else []),
    ]


@cache
def _key(experiment: Experiment) -> str:
    return experiment.key  # a hash, asked for once a cell


def find_value(groups: dict[str, list[Record]], row: Row, column: Column) -> Value | None:
    """The measured value of a cell, None where no current record holds it."""
    if row.experiment is None:
        return None
    name, percentile = column.metric.removesuffix("_p90"), column.metric.endswith("_p90")
    kind = "released" if column.kind == "accuracy" and released_stand_in(groups, row) else column.kind
    records = [r for r in groups.get(_key(row.experiment), []) if r.kind == kind and name in r.metrics]
    if not records:
        return None
    if kind == "accuracy":
        values = [record.metrics[name]["value"] for record in records]
        return Value(median(values), min(values), max(values), len(values), tuple(records))
    (record,) = records
    metric = record.metrics[name]
    if percentile:
        if "p90" not in metric:
            return None
        return Value(metric["p90"], metric["p90"], metric["p90"], metric["n"], (record,))
    samples = record.samples.get(name) or [metric["value"]]
    n = 1 if kind == "released" else metric["n"]  # models behind it, as for accuracy, not images
    return Value(metric["value"], min(samples), max(samples), n, (record,))


def released_stand_in(groups: dict[str, list[Record]], row: Row) -> Record | None:
    """The record of a released checkpoint that a paper row shows: only where no seed was trained."""
    if row.experiment is None or row.experiment.scale != "paper":
        return None
    records = {record.kind: record for record in groups.get(_key(row.experiment), [])}
    return None if "accuracy" in records else records.get("released")


def partial_data(cell: Value | None) -> str:
    """Instead of a verdict: what was trained or evaluated on a part of the data set is not held against the paper."""
    for record in cell.records if cell else ():
        for used, official in (("val_images", "official_images"), ("train_images", "official_train_images")):
            images, total = record.details.get(used), record.details.get(official)
            if images and total and images < total:
                what = RELEASED if record.kind == "released" else "other data"
                return f"{what}, {images} of {total} images"
    return ""


def _cells(table: PaperTable) -> Iterable[tuple[Row, Column]]:
    for row in table.rows:
        for column in table.columns:
            if column.datasets and table.dataset_of(row) not in column.datasets:
                continue
            yield row, column
            if column.kind == "latency":
                yield row, replace(column, metric=f"{column.metric}_p90")
    for block in table.small_blocks:
        for row in block.rows:
            for column in block.columns:
                yield row, column
