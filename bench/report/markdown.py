"""A table as markdown for people: head, the paper's rows in three parts, latency ratios, the small-scale block."""

from collections.abc import Collection, Sequence

import pandas as pd

from bench.experiments.recipe import recipe_for
from bench.experiments.tables import Column, PaperTable, Row
from bench.records import Record, Store
from bench.report.text import head_lines, machine, markdown_table, number, value_cells
from bench.report.verdict import REQUIRED_SEEDS

LEGEND = (
    "Cells read `paper → measured [reference]`: printed in the paper, measured in this store, measured in the "
    "project's own committed run. A place left empty: nobody printed or measured it.",
    "Verdicts: *reproduced* (within the tolerance; accuracy needs the median of three seeds), *off by* (outside it), "
    "*single run* and *n of 3 seeds* (too few seeds to judge), *other scale*, *not measured*, *no published value*.",
)


def render_markdown(table: PaperTable, frame: pd.DataFrame, store: Store) -> str:
    """The whole report of one table. `frame` is that of `build_table`; the store adds provenance and protocol."""
    keys = {row.experiment.key for row in table.rows + table.small_rows if row.experiment}
    records = [record for record in store.load_all() if record.experiment.key in keys]
    current = [record for record in records if record.is_current]
    cells = {(line["row"], line["metric"]): line for line in frame.to_dict("records")}
    parts = [f"# {table.title}", "\n".join(head_lines(current))]
    if len(records) > len(current):
        stale = len(records) - len(current)
        parts.append(f"{stale} accuracy records were made with another recipe than today's and are left out.")
    parts += [*LEGEND, *_accuracy(table, cells), *_complexity(table, cells), *_latency(table, cells, current)]
    parts += _small(table, cells)
    return "\n\n".join(parts) + "\n"


def _names(row: Row) -> list[str]:
    return [str(row.number), row.method, row.backbone]


def _columns(table: PaperTable, kind: str) -> list[Column]:
    return [column for column in table.columns if column.kind == kind]


def _lines(cells: dict, rows: Sequence[Row], column: Column) -> list[dict]:
    return [cells[row.number, column.metric] for row in rows]


def _tolerances(cells: dict, columns: Sequence[Column]) -> str:
    found: dict[str, list[str]] = {}
    for column in columns:
        texts = {line["tolerance"] for (_, metric), line in cells.items() if metric == column.metric}
        found.setdefault(" or ".join(sorted(texts - {""})), []).append(column.label)
    return "Tolerance: " + "; ".join(f"{', '.join(labels)} {text}" for text, labels in found.items()) + "."


def _accuracy(table: PaperTable, cells: dict) -> list[str]:
    columns = _columns(table, "accuracy")
    values = [value_cells(_lines(cells, table.rows, column), column.digits) for column in columns]
    rows = []
    for row, *texts in zip(table.rows, *values, strict=True):
        verdict = _row_verdict([(column.label, cells[row.number, column.metric]) for column in columns])
        rows.append([*_names(row), *texts, verdict])
    headers = ["#", "method", "backbone", *(column.label for column in columns), "verdict"]
    note = f"Paper scale, percent, median of {REQUIRED_SEEDS} seeds. {_tolerances(cells, columns)}"
    return ["## Accuracy", note, markdown_table(headers, rows)]


def _row_verdict(cells: list[tuple[str, dict]]) -> str:
    """One verdict where all metrics with a printed or measured value agree, else each metric's own."""
    shown = [(label, c["verdict"]) for label, c in cells if pd.notna(c["published"]) or pd.notna(c["measured"])]
    verdicts = list(dict.fromkeys(verdict for _, verdict in shown))
    if len(verdicts) == 1:
        return verdicts[0]
    parts = [
        f"{', '.join(label for label, own in shown if own == verdict)} {verdict}"
        for verdict in verdicts
        if not verdict.startswith("off by")
    ]
    off = [verdict.replace("off by", label) for label, verdict in shown if verdict.startswith("off by")]
    return "; ".join(parts + ([f"off by: {', '.join(off)}"] if off else []))


def _complexity(table: PaperTable, cells: dict) -> list[str]:
    headers, texts = ["#", "method", "backbone"], []
    columns = _columns(table, "complexity")
    for column in columns:
        headers += [f"{column.label} ({column.unit})", "verdict"]
        lines = _lines(cells, table.rows, column)
        texts += [value_cells(lines, column.digits), [_complexity_verdict(line) for line in lines]]
    rows = [[*_names(row), *line] for row, *line in zip(table.rows, *texts, strict=True)]
    note = "FLOPs: one multiply-add counts one; mean over the first 100 images of COCO val2017."
    return ["## Complexity", f"{note} {_tolerances(cells, columns)}", markdown_table(headers, rows)]


def _complexity_verdict(cell: dict) -> str:
    if cell["verdict"] != "reproduced":
        return cell["verdict"]
    return f"reproduced ({100 * (cell['measured'] / cell['published'] - 1):+.1f} %)"


def _latency(table: PaperTable, cells: dict, records: Sequence[Record]) -> list[str]:
    columns = _columns(table, "latency")
    latency = {record.experiment.key: record for record in records if record.kind == "latency"}
    headers, texts = ["#", "method", "backbone"], []
    for column in columns:
        headers += [column.label, "p90", "ratio"]
        percentiles = [cells[row.number, f"{column.metric}_p90"]["measured"] for row in table.rows]
        texts += [
            value_cells(_lines(cells, table.rows, column), column.digits, paper=False),
            [number(value, column.digits) for value in percentiles],
            [_ratio(table, cells, row, column.metric, latency) for row in table.rows],
        ]
    texts.append([_ratio(table, cells, row, "flops") for row in table.rows])
    texts.append([cells[row.number, columns[0].metric]["verdict"] for row in table.rows])
    rows = [[*_names(row), *line] for row, *line in zip(table.rows, *texts, strict=True)]
    notes = [
        "ms per image, batch 1, `median [reference]` and 90th percentile; the reference is of its own machine.",
        "Ratio: to MaskFormer with the same backbone, formed only between timings of one run. The paper prints none.",
        *_protocol(latency.values()),
    ]
    table_text = markdown_table([*headers, "FLOPs ratio", "verdict"], rows)
    return ["## Latency", " ".join(notes), table_text]


def _ratio(table: PaperTable, cells: dict, row: Row, metric: str, latency: dict | None = None) -> str:
    """Measured value over that of MaskFormer with the same backbone; with `latency`, if both are of one run."""
    base = next((r for r in table.rows if (r.method, r.backbone) == ("MaskFormer", row.backbone)), None)
    if base is None or row.experiment is None:
        return ""
    if latency is not None:
        pair = [latency.get(r.experiment.key) for r in (row, base)]
        if None in pair or len({(r.details.get("run"), machine(r.provenance)) for r in pair}) > 1:
            return ""
    return number(cells[row.number, metric]["measured"] / cells[base.number, metric]["measured"], 2)


def _protocol(records: Collection[Record]) -> list[str]:
    """The plain facts that all latency records share."""
    facts = [_facts(record) for record in records]
    shared = [fact for fact in (facts[0] if facts else []) if all(fact in other for other in facts)]
    text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shared)
    return [f"Protocol: {text}."] if text else []


def _facts(record: Record) -> list[tuple[str, str]]:
    return [(name, str(v)) for name, v in record.details.items() if name != "run" and isinstance(v, str | int | float)]


def _small(table: PaperTable, cells: dict) -> list[str]:
    """The small-scale block; the paper's numbers have no place in it."""
    if not table.small_rows:
        return []
    first = table.small_rows[0].experiment
    recipe = recipe_for(first)
    height, width = recipe.crop_size
    title = f"## Small scale: {first.dataset}, {height}x{width} crops, trained from scratch"
    note = (
        "Not comparable with the rows above: other data, other models, other scale. One recipe for all methods: "
        f"{recipe.iterations} iterations of {recipe.batch_size} images, learning rate {recipe.learning_rate:g}, "
        "tested on whole images. "
        f"Models: {first.num_queries} queries, {first.decoder_layers} decoder layers. "
        "Median (lowest..highest) of the seeds; percent, training in seconds."
    )
    headers = ["method", "run", *(column.label for column in table.small_columns), "seeds", "verdict"]
    rows = []
    for row in table.small_rows:
        line = [cells[row.number, column.metric] for column in table.small_columns]
        n = 0 if pd.isna(line[0]["n"]) else int(line[0]["n"])
        values = [_with_range(cell, column) for cell, column in zip(line, table.small_columns, strict=True)]
        rows.append([row.method, "measured", *values, f"{n} of {len(recipe.seeds)}", line[0]["verdict"]])
        if any(pd.notna(cell["reference"]) for cell in line):
            values = [number(c["reference"], k.digits) for c, k in zip(line, table.small_columns, strict=True)]
            rows.append([row.method, "reference", *values, "", ""])
    return [title, note, markdown_table(headers, rows)]


def _with_range(cell: dict, column: Column) -> str:
    if pd.isna(cell["measured"]):
        return ""
    middle, low, high = (number(cell[name], column.digits) for name in ("measured", "min", "max"))
    return middle if cell["n"] == 1 else f"{middle} ({low}..{high})"
