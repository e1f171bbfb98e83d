"""A table as markdown for people: head, the paper's rows in three parts, latency ratios, the small-scale block."""

from collections.abc import Sequence

import pandas as pd

from bench.experiments.datasets import get_dataset
from bench.experiments.table import LABELS, Column, PaperTable, Row
from bench.records import Record, Store
from bench.report.best import BOLD, best_cells
from bench.report.frame import by_experiment, counts, left_out
from bench.report.latency import latency_block
from bench.report.released import released_notes
from bench.report.small import small_block
from bench.report.text import head_lines, markdown_table, reference_line, value_cells
from bench.report.verdict import RELEASED, REQUIRED_SEEDS

LEGEND = (
    "Cells read `paper → measured [reference]`: printed in the paper, measured in this store, measured in the "
    "project's own committed run. A place left empty: nobody printed or measured it.",
    "Verdicts: *reproduced* (within the tolerance; accuracy needs the median of three seeds), *off by* (outside it), "
    "*single run* and *n of 3 seeds* (too few seeds to judge), *other scale*, *not measured*, *no published value*.",
    BOLD,
)
# Of a row that does not have a column's metric.
EMPTY = {"published": None, "measured": None, "reference": None, "unit": "", "verdict": "", "tolerance": ""}
OTHER_DEVICE = "*other device*: a latency, which the paper measured on a machine of its own."


def render_markdown(table: PaperTable, frame: pd.DataFrame, store: Store, reference: Store | None = None) -> str:
    """The whole report of one table. `frame` is that of `build_table` with the same stores.

    The stores add what the frame leaves out: provenance, protocol, single rounds, the reference's range.
    """
    keys, kinds = keys_of(table), table.kinds
    records = records_of(table, store)
    current = list(filter(counts, records))
    ours, theirs = by_experiment(store), by_experiment(reference)
    cells = {(line["row"], line["metric"]): line for line in frame.to_dict("records")}
    bold = best_cells(table, cells)
    head = head_lines(current)
    if other := [record for key in sorted(keys) for record in theirs.get(key, []) if record.kind in kinds]:
        head.append(reference_line(other))
    parts = [f"# {table.title}", "\n".join(head), *left_out(records)]
    if table.rows:
        parts += _paper_part(table, cells, bold, ours, theirs, current)
    else:
        parts.append("Nothing here is printed in the paper: small models, trained and tested by this program alone.")
    for block in table.small_blocks:
        said = set(parts)  # a note that several blocks share is printed once
        parts += [part for part in small_block(block, cells, bold, ours, theirs) if part not in said]
    return "\n\n".join(parts) + "\n"


def keys_of(table: PaperTable) -> set[str]:
    return {row.experiment.key for row in table.rows + table.small_rows if row.experiment}


def records_of(table: PaperTable, store: Store) -> list[Record]:
    """The store's records that the table could show, stale ones among them."""
    keys, kinds = keys_of(table), table.kinds
    return [record for record in store.load_all() if record.experiment.key in keys and record.kind in kinds]


def _paper_part(
    table: PaperTable, cells: dict, bold: frozenset, ours: dict, theirs: dict, current: Sequence[Record]
) -> list[str]:
    legend = [*LEGEND, OTHER_DEVICE] if _prints_latency(table, cells) else [*LEGEND]
    parts = [*legend, *_accuracy(table, cells, bold), *released_notes(table, ours, theirs), *_notes(table, "accuracy")]
    if _columns(table, "complexity"):
        parts += [*_complexity(table, cells, bold), *_notes(table, "complexity")]
    if columns := _columns(table, "latency"):
        if any(_has_value(line) for column in columns for line in _lines(cells, table.rows, column)):
            parts += [*latency_block(table, cells, current), *_notes(table, "latency")]
        else:
            parts += ["## Latency", "Not measured, and the paper prints none.", *_notes(table, "latency")]
    return parts


def _has_value(line: dict) -> bool:
    return any(pd.notna(line[name]) for name in ("published", "measured", "reference"))


def _prints_latency(table: PaperTable, cells: dict) -> bool:
    columns = _columns(table, "latency")
    return any(pd.notna(cells[row.number, column.metric]["published"]) for column in columns for row in table.rows)


def _notes(table: PaperTable, kind: str) -> list[str]:
    texts = [f"- {note.text}" for note in table.notes if note.kind == kind]
    return ["\n".join(texts)] if texts else []


def _names(row: Row) -> list[str]:
    return [str(row.number), row.method, row.backbone]


def _columns(table: PaperTable, kind: str) -> list[Column]:
    return [column for column in table.columns if column.kind == kind]


def _lines(cells: dict, rows: Sequence[Row], column: Column) -> list[dict]:
    return [cells.get((row.number, column.metric), EMPTY) for row in rows]


def _tolerances(cells: dict, columns: Sequence[Column]) -> str:
    found: dict[str, list[str]] = {}
    for column in columns:
        if text := _tolerance(cells, column):
            found.setdefault(text, []).append(column.label)
    return "Tolerance: " + "; ".join(f"{', '.join(labels)} {text}" for text, labels in found.items()) + "."


def _tolerance(cells: dict, column: Column) -> str:
    """One text, or where the rows differ the text of each data set: "1 on ADE20K, 0.5 on Cityscapes"."""
    lines = [line for (_, metric), line in cells.items() if metric == column.metric and line["tolerance"]]
    if len({line["tolerance"] for line in lines}) <= 1:
        return lines[0]["tolerance"] if lines else ""
    pairs = dict.fromkeys((line["tolerance"], LABELS[line["dataset"]]) for line in lines)
    return ", ".join(f"{text} on {dataset}" for text, dataset in pairs)


def _accuracy(table: PaperTable, cells: dict, bold: frozenset) -> list[str]:
    columns = _columns(table, "accuracy")
    values = [value_cells(_lines(cells, table.rows, column), column.digits, bold) for column in columns]
    rows = []
    for row, *texts in zip(table.rows, *values, strict=True):
        verdict = _row_verdict([(c.label, line) for c in columns for line in _lines(cells, [row], c)])
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
        if not verdict.startswith(("off by", RELEASED))
    ]
    for start, form in (("off by", "off by: {}"), (RELEASED, f"{RELEASED} ({{}})")):
        own = [f"{label} {text.removeprefix(start).strip(' ()')}" for label, text in shown if text.startswith(start)]
        if own:
            parts.append(form.format(", ".join(map(str.strip, own))))
    return "; ".join(parts)


def _complexity(table: PaperTable, cells: dict, bold: frozenset) -> list[str]:
    headers, texts = ["#", "method", "backbone"], []
    columns = _columns(table, "complexity")
    for column in columns:
        headers += [f"{column.label} ({column.unit})", "verdict"]
        lines = _lines(cells, table.rows, column)
        texts += [value_cells(lines, column.digits, bold), [_complexity_verdict(line) for line in lines]]
    rows = [[*_names(row), *line] for row, *line in zip(table.rows, *texts, strict=True)]
    note = f"FLOPs: one multiply-add counts one; {get_dataset(table.dataset).counted.text}."
    return ["## Complexity", f"{note} {_tolerances(cells, columns)}", markdown_table(headers, rows)]


def _complexity_verdict(cell: dict) -> str:
    if cell["verdict"] != "reproduced":
        return cell["verdict"]
    if cell["tolerance"].endswith("%"):
        return f"reproduced ({100 * (cell['measured'] / cell['published'] - 1):+z.1f} %)"
    return f"reproduced ({cell['measured'] - cell['published']:+z.2f} {cell['unit']})"
