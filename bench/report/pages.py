"""The page of a table: head, the paper's rows in three parts with their notes, and the small-scale blocks."""

from collections.abc import Sequence

from bench.experiments.datasets import get_dataset
from bench.experiments.table import LABELS, Column, PaperTable, Row
from bench.records import Record
from bench.report.cells import BOLD, Cell, TableCells
from bench.report.latency import latency_block
from bench.report.small_scale import small_block
from bench.report.text import align, head_lines, in_brackets, left_out, numbers, reference_line, row_table
from bench.report.verdict import REQUIRED_SEEDS, Verdict, VerdictKind

LEGEND = (
    "Cells read `paper → measured [reference]`: printed in the paper, measured in this store, measured in the "
    "project's own committed run. A place left empty: nobody printed or measured it.",
    "Verdicts: *reproduced* (within the tolerance; accuracy needs the median of three seeds), *off by* (outside it), "
    "*single run* and *n of 3 seeds* (too few seeds to judge), *other scale*, *not measured*, *no published value*.",
    BOLD,
)
OTHER_DEVICE = "*other device*: a latency, which the paper measured on a machine of its own."
RELEASED = (
    "*released checkpoint*: trained by others, evaluated here (n = 1), with the difference to the printed value. It "
    "tests the evaluation and the checkpoint, not whether the training reproduces."
)
LONGEST_NAME = 100  # of a file that somebody made


def render_markdown(cells: TableCells) -> str:
    """The whole page; prose is not wrapped yet."""
    table, head = cells.table, head_lines(cells.records)
    if cells.reference_records:
        head.append(reference_line(cells.reference_records))
    parts = [f"# {table.title}", "\n".join(head), *left_out(cells.ignored)]
    if table.rows:
        parts += _paper_part(cells)
    else:
        parts.append("Nothing here is printed in the paper: small models, trained and tested by this program alone.")
    for block in table.small_blocks:
        said = set(parts)  # a note that several blocks share is printed once
        parts += [part for part in small_block(block, cells) if part not in said]
    return "\n\n".join(parts) + "\n"


def _paper_part(cells: TableCells) -> list[str]:
    table = cells.table
    timed = [cell for row in table.rows for cell in cells.of_row(row, cells.columns("latency"))]
    parts = [*LEGEND, *([OTHER_DEVICE] if any(cell.has("published") for cell in timed) else [])]
    parts += [*_accuracy(cells), *_released_notes(cells), *_notes(table, "accuracy")]
    if cells.columns("complexity"):
        parts += [*_complexity(cells), *_notes(table, "complexity")]
    if any(cell.has("published", "measured", "reference") for cell in timed):
        parts += [*latency_block(cells), *_notes(table, "latency")]
    elif timed:
        parts += ["## Latency", "Not measured, and the paper prints none.", *_notes(table, "latency")]
    return parts


def _notes(table: PaperTable, kind: str) -> list[str]:
    texts = [f"- {note.text}" for note in table.notes if note.kind == kind]
    return ["\n".join(texts)] if texts else []


def _accuracy(cells: TableCells) -> list[str]:
    rows, columns = cells.table.rows, cells.columns("accuracy")
    texts = [(column.label, _values(cells.of_column(column, rows))) for column in columns]
    texts.append(("verdict", [_row_verdict(cells.of_row(row, columns)) for row in rows]))
    note = f"Paper scale, percent, median of {REQUIRED_SEEDS} seeds.{_tolerances(cells, columns)}"
    return ["## Accuracy", note, row_table(rows, texts)]


def _complexity(cells: TableCells) -> list[str]:
    rows, columns, texts = cells.table.rows, cells.columns("complexity"), []
    for column in columns:
        of_column = cells.of_column(column, rows)
        texts.append((f"{column.label} ({column.unit})", _values(of_column)))
        texts.append(("verdict", [_count_verdict(cell.verdict) if cell else "" for cell in of_column]))
    counted = get_dataset(cells.table.dataset).counted.text
    note = f"FLOPs: one multiply-add counts one; {counted}.{_tolerances(cells, columns)}"
    return ["## Complexity", note, row_table(rows, texts)]


def _values(cells: Sequence[Cell | None]) -> list[str]:
    """ "paper → measured [reference]" of one column, the parts aligned below each other."""
    arrows = ["→" if cell and cell.has("published", "measured", "reference") else "" for cell in cells]
    references = [in_brackets(cell.value("reference"), cell.column.digits) if cell else "" for cell in cells]
    return align(list(zip(numbers(cells, "published"), arrows, numbers(cells, "measured"), references, strict=True)))


def _count_verdict(verdict: Verdict) -> str:
    return f"{verdict} ({verdict.gap})" if verdict.kind is VerdictKind.REPRODUCED else str(verdict)


def _row_verdict(cells: Sequence[Cell]) -> str:
    """One verdict where all metrics with a printed or measured value agree, else each metric's own."""
    shown = [cell for cell in cells if cell.has("published", "measured")]
    labels: dict[str, list[str]] = {}
    for cell in shown:
        labels.setdefault(str(cell.verdict), []).append(cell.column.label)
    if len(labels) == 1:
        return next(iter(labels))
    forms = {VerdictKind.OFF: "off by: {}", VerdictKind.RELEASED: f"{VerdictKind.RELEASED} ({{}})"}
    with_gap = {str(cell.verdict) for cell in shown if cell.verdict.kind in forms}
    parts = [f"{', '.join(names)} {verdict}" for verdict, names in labels.items() if verdict not in with_gap]
    for kind, form in forms.items():
        found = [f"{c.column.label} {c.verdict.gap or ''}".strip() for c in shown if c.verdict.kind is kind]
        parts += [form.format(", ".join(found))] if found else []
    return "; ".join(parts)


def _tolerances(cells: TableCells, columns: Sequence[Column]) -> str:
    found: dict[str, list[str]] = {}
    for column in columns:
        if text := _tolerance(cells, column):
            found.setdefault(text, []).append(column.label)
    texts = "; ".join(f"{', '.join(labels)} {text}" for text, labels in found.items())
    return f" Tolerance: {texts}." if texts else ""


def _tolerance(cells: TableCells, column: Column) -> str:
    """One text, or where the rows differ the text of each data set: "1 on ADE20K, 0.5 on Cityscapes"."""
    printed = [cell for cell in cells.of_column(column, cells.table.rows) if cell and cell.published]
    pairs = dict.fromkeys((cell.published.tolerance_text, cell.dataset) for cell in printed)
    texts = dict.fromkeys(text for text, _ in pairs)
    if len(texts) <= 1:
        return "".join(texts)
    return ", ".join(dict.fromkeys(f"{text} on {LABELS[dataset]}" for text, dataset in pairs))


def _released_notes(cells: TableCells) -> list[str]:
    """What a reader must know where accuracies are of released checkpoints: a sentence, and a line a file."""
    files = [
        f"- Row {row.number}, {row.method} {row.backbone}{where}: {_file(record)}"
        for row in cells.table.rows
        for source, where in (("measured", ""), ("reference", ", in brackets"))
        if (record := _released_record(cells, row, source))
    ]
    return [RELEASED, "\n".join(files)] if files else []


def _released_record(cells: TableCells, row: Row, source: str) -> Record | None:
    values = [getattr(cell, source) for cell in cells.of_row(row, cells.columns("accuracy"))]
    return next((value.records[0] for value in values if value and value.kind == "released"), None)


def _file(record: Record) -> str:
    facts = record.details["weights"]
    text = f"{_code(facts['file'])} (SHA-256 {facts['sha256'][:12]})"
    if facts["source"]:
        digest = f" (SHA-256 {_code(facts['source_sha256'], 12)})" if facts["source_sha256"] else ""
        text += f", made from {_code(facts['source'])}{digest}"
    images = max(metric["n"] for metric in record.metrics.values())
    return f"{text}; {images} images"


def _code(text: object, longest: int = LONGEST_NAME) -> str:
    """A text from somebody's file as one short piece of markdown code, which it cannot leave."""
    line = " ".join(str(text).replace("`", "'").split())
    return f"`{line[:longest]}`"
