"""The latency block: times on this machine, the paper's where it prints them, and ratios to MaskFormer's."""

from collections.abc import Collection, Sequence
from statistics import median

import pandas as pd

from bench.experiments.declaration import PaperTable, Row
from bench.records import Record
from bench.report.text import align, machine, markdown_table, number, threads, with_range

MIN_SAMPLES_FOR_P90 = 10  # of fewer, a 90th percentile says no more than the highest
COARSE_FROM_MS = 100  # columns with nothing faster are shown in whole milliseconds


def latency_block(table: PaperTable, cells: dict, records: Sequence[Record]) -> list[str]:
    """Heading, note and table. `cells`: lines of the frame by row number and metric. Empty cells: not measured."""
    by_key = {record.experiment.key: record for record in records if record.kind == "latency"}
    columns = [column for column in table.columns if column.kind == "latency"]
    base = [cells[row.number, columns[0].metric] for row in table.rows]
    ratios = any(_base(table, row) for row in table.rows)
    names = ["#", "method", "backbone", "n"]
    texts = [["" if pd.isna(cell["n"]) else str(cell["n"]) for cell in base]]
    for column in columns:
        lines = [cells[row.number, column.metric] for row in table.rows]
        digits = _digits(lines, column.digits)
        names += [column.label]
        texts += [_times(lines, digits)]
        p90 = [_p90(cells[row.number, f"{column.metric}_p90"], digits) for row in table.rows]
        if any(p90):
            names += ["p90"]
            texts += [p90]
        if ratios:
            names += ["ratio"]
            texts += [[_ratio(table, row, column.metric, by_key) for row in table.rows]]
    if ratios:
        names += ["FLOPs ratio"]
        texts += [[_flops_ratio(table, cells, row) for row in table.rows]]
    names += ["verdict"]
    texts += [[cell["verdict"] for cell in base]]
    rows = [[str(row.number), row.method, row.backbone, *line] for row, *line in zip(table.rows, *texts, strict=True)]
    printed = any(pd.notna(cell["published"]) for cell in base)
    return ["## Latency", _note(by_key.values(), "p90" in names, ratios, printed), markdown_table(names, rows)]


def _note(records: Collection[Record], p90: bool, ratios: bool, printed: bool) -> str:
    paper = "paper → " if printed else ""
    percentile = ", and the 90th percentile of 10 rounds or more" if p90 else ""
    sentences = [
        f"ms per image, `{paper}median (lowest..highest) [reference]`{percentile}; the reference is of its own machine."
    ]
    if ratios:
        sentences.append(
            "Ratio: to MaskFormer with the same backbone, median of the ratios of each round, formed only between "
            "timings of one run. The paper prints none."
        )
    counts = {metric["n"] for record in records for metric in record.metrics.values()}
    facts = [f"n = {counts.pop()} interleaved rounds"] if len(counts) == 1 else []
    facts += [f"{name.replace('_', ' ')} {value}" for name, value in _shared_facts(records)]
    facts += filter(None, [threads(records)])
    return " ".join(sentences + ([f"Protocol: {', '.join(facts)}."] if facts else []))


def _shared_facts(records: Collection[Record]) -> list[tuple[str, str]]:
    """The plain facts that all latency records share."""
    facts = [_facts(record) for record in records]
    return [fact for fact in (facts[0] if facts else []) if all(fact in other for other in facts)]


def _facts(record: Record) -> list[tuple[str, str]]:
    plain = [(name, str(value)) for name, value in record.details.items() if isinstance(value, str | int | float)]
    return [(name, value) for name, value in plain if name not in ("run", "rounds")]  # rounds are n


def _digits(lines: Sequence[dict], digits: int) -> int:
    values = [line[name] for line in lines for name in ("published", "measured", "reference") if pd.notna(line[name])]
    return 0 if values and min(values) >= COARSE_FROM_MS else digits


def _times(lines: Sequence[dict], digits: int) -> list[str]:
    parts = []
    for line in lines:
        value = with_range(line["measured"], line["min"], line["max"], line["n"], digits)
        paper = f"{number(line['published'], digits)} →".removeprefix(" →")
        parts.append([paper, value, f"[{number(line['reference'], digits)}]".replace("[]", "")])
    return align(parts)


def _p90(cell: dict, digits: int) -> str:
    return number(cell["measured"], digits) if pd.notna(cell["n"]) and cell["n"] >= MIN_SAMPLES_FOR_P90 else ""


def _base(table: PaperTable, row: Row) -> Row | None:
    """MaskFormer's row with the same backbone; None for rows not built here."""
    if row.experiment is None:
        return None
    return next((r for r in table.rows if (r.method, r.backbone) == ("MaskFormer", row.backbone)), None)


def _ratio(table: PaperTable, row: Row, metric: str, by_key: dict[str, Record]) -> str:
    base = _base(table, row)
    pair = [by_key.get(r.experiment.key) for r in (row, base)] if base else [None, None]
    ratios = round_ratios(*pair, metric)
    return number(median(ratios), 2) if ratios else ""


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
    base = _base(table, row)
    if base is None:
        return ""
    return number(cells[row.number, "flops"]["measured"] / cells[base.number, "flops"]["measured"], 2)
