"""The latency block: times on this machine, the paper's where it prints them, and ratios to a row of the table."""

from collections.abc import Collection, Mapping, Sequence
from statistics import median

import pandas as pd

from bench.experiments.methods import get_method
from bench.experiments.table import LABELS, PaperTable, Row
from bench.records import Record
from bench.report.text import align, machine, markdown_table, number, threads, with_range

MIN_SAMPLES_FOR_P90 = 10  # of fewer, a 90th percentile says no more than the highest
SOURCES = {"paper": ("published",), "ours": ("measured", "reference")}
COARSE_FROM_MS = 100  # columns with nothing faster are shown in whole milliseconds


def latency_block(table: PaperTable, cells: dict, records: Sequence[Record]) -> list[str]:
    """Heading, note and table. `cells`: lines of the frame by row number and metric. Empty cells: not measured."""
    by_key = {record.experiment.key: record for record in records if record.kind == "latency"}
    columns = [column for column in table.columns if column.kind == "latency"]
    of_column = {column: [cells[row.number, column.metric] for row in table.rows] for column in columns}
    printed = [c for c in columns if any(pd.notna(cell["published"]) for cell in of_column[c])]
    judged = of_column[(printed or columns)[0]]
    ratios = any(table.base_of(row) for row in table.rows)
    names = ["#", "method", "backbone", "n"]
    texts = [["" if pd.isna(cell["n"]) else str(cell["n"]) for cell in judged]]
    for column, lines in of_column.items():
        digits = {source: _digits(lines, sources, column.digits) for source, sources in SOURCES.items()}
        names += [column.label]
        texts += [_times(lines, digits)]
        p90 = [_p90(cells[row.number, f"{column.metric}_p90"], digits["ours"]) for row in table.rows]
        if any(p90):
            names += ["p90"]
            texts += [p90]
        if ratios:
            names += ["ratio"]
            texts += [align([_ratios(table, cells, row, column.metric, by_key) for row in table.rows])]
    if ratios and any(column.metric == "flops" for column in table.columns):
        names += ["FLOPs ratio"]
        texts += [[_flops_ratio(table, cells, row) for row in table.rows]]
    names += ["verdict"]
    texts += [[cell["verdict"] for cell in judged]]
    rows = [[str(row.number), row.method, row.backbone, *line] for row, *line in zip(table.rows, *texts, strict=True)]
    timed = [by_key[row.experiment.key] for row in table.rows if row.experiment and row.experiment.key in by_key]
    note = _note(table, timed, "p90" in names, _compared(table) if ratios else "", bool(printed))
    return ["## Latency", note, markdown_table(names, rows)]


def _compared(table: PaperTable) -> str:
    """What the ratios are to, in words: rows that the table declares, or MaskFormer's."""
    compared: dict[str, list[str]] = {}
    for row in table.rows:
        if (base := table.base_of(row)) and get_method(row.experiment.method).timed:
            declared = f"row {base.number} ({base.method})" if row.base else "MaskFormer with the same backbone"
            compared.setdefault(declared, []).append(str(row.number))
    if len(compared) == 1:
        return next(iter(compared))
    return ", to ".join(f"{base} in rows {' '.join(numbers)}" for base, numbers in compared.items())


def _note(table: PaperTable, records: Collection[Record], p90: bool, compared: str, printed: bool) -> str:
    paper = "paper → " if printed else ""
    percentile = ", and the 90th percentile of 10 rounds or more" if p90 else ""
    sentences = [
        f"ms per image, `{paper}median (lowest..highest) [reference]`{percentile}; the reference is of its own machine."
    ]
    if compared:
        how = " (`paper → measured`)" if printed else ""
        sentences.append(
            f"Ratio{how}: to {compared}, median of the ratios of each round, formed only between timings of one run."
            + ("" if printed else " The paper prints no latencies.")
        )
    counts = {metric["n"] for record in records for metric in record.metrics.values()}
    facts = [f"n = {counts.pop()} interleaved rounds"] if len(counts) == 1 else []
    facts += _protocol(table, records)
    facts += filter(None, [threads(records)])
    return " ".join(sentences + ([f"Protocol: {', '.join(facts)}."] if facts else []))


def _protocol(table: PaperTable, records: Collection[Record]) -> list[str]:
    """The plain facts that all records state, with their values by data set (where there are several) or backbone.

    A fact that differs between records of one data set or backbone is left out.
    """
    datasets = len({table.dataset_of(row) for row in table.rows}) > 1
    values: dict[str, dict[str, set[str | None]]] = {}  # by fact and label; None: not stated
    names = list(dict.fromkeys(name for record in records for name in _facts(record)))
    for record in records:
        label = LABELS[record.experiment.dataset if datasets else record.experiment.backbone]
        for name in names:
            values.setdefault(name, {}).setdefault(label, set()).add(_facts(record).get(name))
    return [
        f"{name.replace('_', ' ')} {_by_label(of_label)}"
        for name, of_label in values.items()
        if all(len(found) == 1 and None not in found for found in of_label.values())
    ]


def _by_label(values: dict[str, set[str]]) -> str:
    """ "512x512", or where labels differ "512x512 (R50, Swin-S) / 640x640 (Swin-L)"."""
    labels: dict[str, list[str]] = {}
    for label, (value,) in values.items():
        labels.setdefault(value, []).append(label)
    if len(labels) == 1:
        return next(iter(labels))
    return " / ".join(f"{value} ({', '.join(names)})" for value, names in labels.items())


def _facts(record: Record) -> dict[str, str]:
    plain = {name: str(value) for name, value in record.details.items() if isinstance(value, str | int | float)}
    return {name: value for name, value in plain.items() if name not in ("run", "rounds")}  # rounds are n


def _digits(lines: Sequence[dict], names: Sequence[str], digits: int) -> int:
    values = [line[name] for line in lines for name in names if pd.notna(line[name])]
    return 0 if values and min(values) >= COARSE_FROM_MS else digits


def _times(lines: Sequence[dict], digits: Mapping[str, int]) -> list[str]:
    parts = []
    for line in lines:
        value = with_range(line["measured"], line["min"], line["max"], line["n"], digits["ours"])
        paper = _printed(line["published"], digits["paper"])
        parts.append([paper, value, f"[{number(line['reference'], digits['ours'])}]".replace("[]", "")])
    return align(parts)


def _p90(cell: dict, digits: int) -> str:
    return number(cell["measured"], digits) if pd.notna(cell["n"]) and cell["n"] >= MIN_SAMPLES_FOR_P90 else ""


def _ratios(table: PaperTable, cells: dict, row: Row, metric: str, by_key: dict[str, Record]) -> tuple[str, str]:
    """Of the printed latencies, with an arrow, and of those measured here; each empty where there is none."""
    base = table.base_of(row)
    if base is None:
        return "", ""
    ratios = round_ratios(*(by_key.get(r.experiment.key) for r in (row, base)), metric)
    paper = cells[row.number, metric]["published"] / cells[base.number, metric]["published"]
    return _printed(paper, 2), number(median(ratios), 2) if ratios else ""


def _printed(value: float, digits: int) -> str:
    """With an arrow to what is measured; empty where nothing is printed."""
    return f"{number(value, digits)} →".removeprefix(" →")


def round_ratios(ours: Record | None, theirs: Record | None, metric: str) -> list[float]:
    """Ours over theirs, round by round; empty unless both were timed in one run on one machine.

    Sample i of every record of a run is of round i.
    """
    pair = (ours, theirs)
    if None in pair or len({(r.details.get("run"), machine(r.provenance)) for r in pair}) > 1:
        return []
    samples, base = (r.samples.get(metric, ()) for r in pair)
    return [a / b for a, b in zip(samples, base, strict=True)] if len(samples) == len(base) else []


def _flops_ratio(table: PaperTable, cells: dict, row: Row) -> str:
    base = table.base_of(row)
    if base is None or not get_method(row.experiment.method).timed:
        return ""  # not timed: the count is the most that it could be, beside no latency
    return number(cells[row.number, "flops"]["measured"] / cells[base.number, "flops"]["measured"], 2)
