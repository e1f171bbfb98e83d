"""The latency block: times on this machine, the paper's where it prints them, and ratios to a row of the table."""

from collections.abc import Collection, Sequence
from statistics import median

from bench.experiments.backbones import get_backbone
from bench.experiments.datasets import get_dataset
from bench.experiments.inference_rules import size_divisibility
from bench.experiments.methods import SIZE_DIVISIBILITY, get_method
from bench.experiments.table import BASE_METHOD, LABELS, Column, PaperTable, Row
from bench.records import BUSY_SPREAD, Record, samples_beside
from bench.report.cells import Cell, TableCells
from bench.report.text import align, in_brackets, machine, number, row_table, threads, with_range

MIN_SAMPLES_FOR_P90 = 10  # of fewer, a 90th percentile says no more than the highest
BUSY = (
    f"*busy machine*: the slow rounds took more than {BUSY_SPREAD:g} times as long as the fast ones, or other "
    "processes wanted to run; no ratio of such a latency decides a claim, and the next `bench run` times it again."
)
COARSE_FROM_MS = 100  # columns with nothing faster are shown in whole milliseconds


def latency_block(cells: TableCells) -> list[str]:
    """Heading, note and table. Empty places: not measured."""
    table, columns = cells.table, cells.columns("latency")
    printed = [c for c in columns if any(cell.has("published") for cell in cells.of_column(c, table.rows))]
    judged = cells.of_column((printed or columns)[0], table.rows)
    ratios = any(table.base_of(row) for row in table.rows)
    texts = [("n", [str(cell.measured.n) if cell.measured else "" for cell in judged])]
    for column in columns:
        texts += _time_columns(cells, column)
        texts += [("ratio", _ratio_column(cells, column))] if ratios else []
    if ratios and any(column.metric == "flops" for column in table.columns):
        texts.append(("FLOPs ratio", [_flops_ratio(cells, row) for row in table.rows]))
    texts.append(("verdict", [str(cell.verdict) for cell in judged]))
    has_p90 = any(header == "p90" for header, _ in texts)
    return ["## Latency", _note(cells, has_p90, ratios, bool(printed)), row_table(table.rows, texts)]


def round_ratios(ours: Cell, theirs: Cell) -> list[float]:
    """Our latencies over theirs, round by round; empty unless both were timed in one run on one machine.

    Sample i of every record of a run is of round i. Our record may itself hold what theirs took in our run.
    """
    if not (ours.measured and theirs.measured):
        return []
    metric, (record, other) = ours.column.metric, (cell.measured.records[0] for cell in (ours, theirs))
    samples, base = record.samples.get(metric, ()), record.samples.get(samples_beside(metric, other.experiment))
    if base is None:
        if len({(r.details.get("run"), machine(r.provenance)) for r in (record, other)}) > 1:
            return []
        base = other.samples.get(metric, ())
    return [a / b for a, b in zip(samples, base, strict=True)] if len(samples) == len(base) else []


def coarse_digits(values: Sequence[float], digits: int) -> int:
    """Decimals of a column of times."""
    return 0 if values and min(values) >= COARSE_FROM_MS else digits


def _time_columns(cells: TableCells, column: Column) -> list[tuple[str, list[str]]]:
    """ "paper → median (lowest..highest) [reference]", and where enough rounds were taken the 90th percentile."""
    of_rows = cells.of_column(column, cells.table.rows)
    of_paper, ours = (
        coarse_digits([cell.value(s) for cell in of_rows for s in sources if cell.has(s)], column.digits)
        for sources in (("published",), ("measured", "reference"))
    )
    parts = [
        (
            _printed(cell.value("published"), of_paper),
            with_range(cell.measured, ours),
            in_brackets(cell.value("reference"), ours),
        )
        for cell in of_rows
    ]
    values = [cell.measured for cell in of_rows]
    p90 = [number(v.p90, ours) if v and v.n >= MIN_SAMPLES_FOR_P90 else "" for v in values]
    return [(column.label, align(parts)), *([("p90", p90)] if any(p90) else [])]


def _ratio_column(cells: TableCells, column: Column) -> list[str]:
    """Of the printed latencies, with an arrow, and of those measured here; each empty where there is none."""
    parts = []
    for row in cells.table.rows:
        base_row = cells.table.base_of(row)
        if base_row is None:
            parts.append(("", ""))
            continue
        cell, base = cells.of_column(column, (row, base_row))
        printed = cell.published.value / base.published.value if cell.published and base.published else None
        ratios = round_ratios(cell, base)
        parts.append((_printed(printed, 2), number(median(ratios), 2) if ratios else ""))
    return align(parts)


def _printed(value: float | None, digits: int) -> str:
    """With an arrow to what is measured; empty where nothing is printed."""
    return "" if value is None else f"{number(value, digits)} →"


def _flops_ratio(cells: TableCells, row: Row) -> str:
    base = cells.table.base_of(row)
    if base is None or not get_method(row.experiment.method).timed:
        return ""  # not timed: the count is the most that it could be, beside no latency
    ours, theirs = (_of_count(cells, r, "flops_network") for r in (row, base))
    return number(ours / theirs, 2) if ours and theirs else ""


def _of_count(cells: TableCells, row: Row, metric: str) -> float | None:
    """A part of the row's FLOPs, in G; None where they are not counted."""
    cell = cells.cells.get((row.number, "flops"))
    metrics = cell.measured.records[0].metrics if cell and cell.measured else {}
    return metrics[metric]["value"] if metric in metrics else None


def _compared(table: PaperTable) -> str:
    """What the ratios are to, in words: rows that the table declares, or MaskFormer's."""
    compared: dict[str, list[str]] = {}
    for row in table.rows:
        if (base := table.base_of(row)) and get_method(row.experiment.method).timed:
            declared = (
                f"row {base.number} ({base.method})" if row.base else f"{LABELS[BASE_METHOD]} with the same backbone"
            )
            compared.setdefault(declared, []).append(str(row.number))
    if len(compared) == 1:
        return next(iter(compared))
    return ", to ".join(f"{base} in rows {' '.join(numbers)}" for base, numbers in compared.items())


def _note(cells: TableCells, has_p90: bool, ratios: bool, printed: bool) -> str:
    paper = "paper → " if printed else ""
    percentile = ", and the 90th percentile of 10 rounds or more" if has_p90 else ""
    sentences = [
        f"ms per image, `{paper}median (lowest..highest) [reference]`{percentile}; the reference is of its own machine."
    ]
    if ratios:
        how = " (`paper → measured`)" if printed else ""
        sentences.append(
            f"Ratio{how}: to {_compared(cells.table)}, median of the ratios of each round, formed only between timings "
            "of one run." + ("" if printed else " The paper prints no latencies.")
        )
        sentences += _what_differs(cells)
    columns = cells.columns("latency")
    of_rows = ([cell.measured for cell in cells.of_row(row, columns) if cell.measured] for row in cells.table.rows)
    records = [measured[0].records[0] for measured in of_rows if measured]
    counts = {metric["n"] for record in records for metric in record.metrics.values()}
    facts = [f"n = {counts.pop()} interleaved rounds"] if len(counts) == 1 else []
    facts += [*_protocol(cells.table, records), *filter(None, [threads(records)])]
    sentences += [*_unpadded(cells.table), f"Protocol: {', '.join(facts)}."] if facts else []
    return " ".join(sentences + ([BUSY] if any(record.is_of_busy_machine for record in records) else []))


def _what_differs(cells: TableCells) -> list[str]:
    """What the FLOPs of the complexity block count and neither the ratio of FLOPs nor the timed work contains."""
    counted = (_of_count(cells, row, "flops_post_processing") for row in cells.table.rows)
    values = sorted({number(value, 1) for value in counted if value}, key=float)
    if not values:
        return []
    return [
        "FLOPs ratio: of the networks alone, like the first ratio. The FLOPs above count the post-processing of every "
        f"result of the task, too, {' to '.join(dict.fromkeys((values[0], values[-1])))} G; what end to end contains "
        "stands in the protocol."
    ]


def _unpadded(table: PaperTable) -> list[str]:
    """Whose images were timed at their own size: not stated alike by all records, so not among the plain facts."""
    rows = [row for row in table.rows if row.experiment and size_divisibility(row.experiment) == 1]
    labels = dict.fromkeys(LABELS[row.experiment.method] for row in rows)
    return [f"Images are padded to a multiple of {SIZE_DIVISIBILITY}, but for {', '.join(labels)}."] if rows else []


def _protocol(table: PaperTable, records: Collection[Record]) -> list[str]:
    """The plain facts that all records state, with their values by data set (where there are several) or backbone.

    A fact that differs between records of one data set or backbone is left out.
    """
    datasets = len({table.dataset_of(row) for row in table.rows}) > 1
    facts = [_facts(record) for record in records]
    values: dict[str, dict[str, set[str | None]]] = {}  # by fact and label; None: not stated
    for name in dict.fromkeys(name for found in facts for name in found):
        for record, found in zip(records, facts, strict=True):
            of = record.experiment
            label = (get_dataset(of.dataset) if datasets else get_backbone(of.backbone)).label
            values.setdefault(name, {}).setdefault(label, set()).add(found.get(name))
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
