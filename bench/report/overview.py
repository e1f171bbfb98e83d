"""Pages over all tables of a store: `complexity.md`, and the overview of stores `results/README.md`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from bench.experiments.table import COMPLEXITY, PaperTable
from bench.records import KINDS
from bench.report.cells import Cell, StoreCells, TableCells
from bench.report.text import head_lines, markdown_table, number
from bench.report.verdict import Gap, VerdictKind

COUNTS = COMPLEXITY[::-1]  # FLOPs first
KIND_LABELS = {"complexity": "counts", "latency": "latencies", "accuracy": "accuracies"}
PAGES = ("complexity.md", "claims.md")
ONLY_IF_ANY = (VerdictKind.RELEASED, VerdictKind.PART, VerdictKind.BUSY)
EXPLANATION = (
    "Every count that the paper prints, beside what this program counts for the model it builds; one multiply-add "
    "counts one, on the images that the page of each table names. The error is ours minus the paper's in percent "
    "of the paper's, which prints whole G and whole millions: 0.5 G of 87 G are 0.6 %. The verdict is that of the "
    "table, within 3 % or 0.6 M for most. *why*: for a count that is off, the notes of its table say what is known."
)
READING = (
    "A cell is one metric of one row: *reproduced* or *off* (a count, or the median of three seeds, within or outside "
    "the tolerance), *too few seeds* (one or two), *other scale* (a small model: nothing is printed for it), *other "
    "device* (a latency: the paper's machine was another), *no published value* (measured, not printed), *not "
    "measured* (also every cell of a method that is not built here). 90th percentiles are not counted again. A model "
    "counts in every table where it stands. Errors are in percent of the printed count."
)


def error(cell: Cell) -> Gap | None:
    """Ours minus the paper's, in percent of the paper's; None where either is missing."""
    if cell.measured is None or cell.published is None:
        return None
    return Gap(100 * (cell.measured.value / cell.published.value - 1), "%")


def largest_error(cells: Iterable[Cell], metric: str) -> Cell | None:
    """The cell of the metric with the largest error of either sign; None without any."""
    found = [cell for cell in cells if cell.column.metric == metric and error(cell)]
    return max(found, key=lambda cell: abs(error(cell).amount), default=None)


def render_complexity(store: StoreCells) -> str:
    """Every printed FLOPs and parameter count beside ours, with the error; no table left out."""
    counted = [record for record in (*store.records, *store.ignored) if record.kind == "complexity"]
    headers = ["table", "row", "method", "backbone"]
    for column in COUNTS:
        headers += [f"{column.label} ({column.unit})", "ours", "error", "verdict"]
    parts = [
        "# Complexity: the paper's counts and ours",
        "\n".join(head_lines(counted)),
        EXPLANATION,
        "\n".join(_summary(store, column.metric, column.label) for column in COUNTS),
        "A model that stands in several tables is counted once and compared with each.",
        markdown_table([*headers, "why"], [row for cells in store.tables.values() for row in _count_rows(cells)]),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(store: StoreCells, metric: str, label: str) -> str:
    printed = [cell for cell in store.cells if cell.column.metric == metric and cell.published]
    errors = [found.amount for cell in printed if (found := error(cell))]
    text = f"- {label}: {len(printed)} printed, {len(errors)} counted here"
    if not errors:
        return f"{text}."
    off, worst = sum(cell.verdict.kind is VerdictKind.OFF for cell in printed), largest_error(printed, metric)
    return (
        f"{text}: {len(errors) - off} reproduced, {off} off. Error: mean {mean(errors):+.2f} %, mean of the absolute "
        f"values {mean(map(abs, errors)):.2f} %, largest {error(worst)} ({worst.table.name} row {worst.row.number})."
    )


def _count_rows(cells: TableCells) -> Iterable[list[str]]:
    for row in cells.table.rows:
        found = [cells.cells.get((row.number, column.metric)) for column in COUNTS]
        printed = [cell if cell and cell.published else None for cell in found]
        if not any(printed):
            continue
        off = any(cell and cell.verdict.kind is VerdictKind.OFF for cell in printed)
        texts = [text for cell in printed for text in (_count_texts(cell) if cell else [""] * 4)]
        link = notes_link(cells.table, "complexity") if off else ""
        yield [cells.table.name, str(row.number), row.method, row.backbone, *texts, link]


def _count_texts(cell: Cell) -> list[str]:
    ours = number(cell.value("measured"), cell.digits("measured"))
    return [number(cell.value("published"), cell.digits("published")), ours, str(error(cell) or ""), cell.verdict.kind]


def notes_link(table: PaperTable, kind: str, folder: str = "tables") -> str:
    """Link to the notes below the block of a record kind; says so where the table has none."""
    if not any(note.kind == kind for note in table.notes):
        return "no note"
    return f"[notes]({folder}/{table.file_name}.md#{kind})"


def render_overview(stores: Mapping[Path, StoreCells]) -> str:
    """Of every committed store, by its folder, how many cells of each table are reproduced, and what is off."""
    lines = ["# Results", "", "Generated; do not edit. `published/` holds the paper's numbers with our tolerances.", ""]
    records = {folder: (*store.records, *store.ignored) for folder, store in stores.items()}
    counted = {folder: Counter(record.kind for record in found) for folder, found in records.items()}
    # Most stores have no released checkpoint.
    kinds = [kind for kind in KINDS if kind != "released" or any(counts[kind] for counts in counted.values())]
    rows = [
        [f"`{folder.name}/`", *(str(counts[kind]) for kind in kinds), _pages(folder)]
        for folder, counts in counted.items()
    ]
    lines += [markdown_table(["store", *kinds, "pages"], rows), "", READING]
    for folder, store in stores.items():
        lines += ["", f"## {folder.name}", "", *head_lines(records[folder], most=None), "", _verdicts(folder, store)]
        if off := [_off_row(folder, cell) for cell in store.cells if cell.verdict.kind is VerdictKind.OFF]:
            headers = ["table", "row", "method", "backbone", "metric", "paper", "measured", "verdict", "why"]
            lines += ["", f"Off in `{folder.name}/`:", "", markdown_table(headers, off)]
    return "\n".join(lines) + "\n"


def _pages(folder: Path) -> str:
    found = [folder / name for name in PAGES if (folder / name).is_file()]
    return ", ".join(f"[{path.stem}]({folder.name}/{path.name})" for path in found)


def _verdicts(folder: Path, store: StoreCells) -> str:
    """How often which verdict was given, a line a table, a line a kind of record, and all."""
    everything = store.cells
    given = Counter(cell.verdict.kind for cell in everything)
    shown = [kind for kind in VerdictKind if kind not in ONLY_IF_ANY or given[kind]]

    def line(name: str, cells: Sequence[Cell], files: str = "", errors: bool = True) -> list[str]:
        counts = Counter(cell.verdict.kind for cell in cells)
        worst = [largest_error(cells, column.metric) if errors else None for column in COUNTS]
        return [name, *(str(counts[kind]) for kind in shown), *(str(error(c)) if c else "" for c in worst), files]

    rows = [
        line(_table_link(folder, name), list(cells.cells.values()), _files(folder, name))
        for name, cells in store.tables.items()
    ]
    for kind, label in KIND_LABELS.items():
        rows.append(line(f"all, {label}", [c for c in everything if c.column.kind == kind], errors=False))
    rows.append(line("all", everything))
    labels = [f"largest {column.label} error" for column in COUNTS]
    return markdown_table(["table", *shown, *labels, "files"], rows)


def _table_link(folder: Path, name: str) -> str:
    path = folder / "tables" / f"{name}.md"
    return f"[{name}]({folder.name}/tables/{path.name})" if path.is_file() else name


def _files(folder: Path, name: str) -> str:
    found = [folder / "tables" / f"{name}.{ending}" for ending in ("csv", "tex")]
    return ", ".join(f"[{p.suffix[1:]}]({folder.name}/tables/{p.name})" for p in found if p.is_file())


def _off_row(folder: Path, cell: Cell) -> list[str]:
    values = [number(cell.value(source), cell.digits(source)) for source in ("published", "measured")]
    names = [cell.table.name, str(cell.row.number), cell.row.method, cell.row.backbone, cell.column.label]
    return [*names, *values, str(cell.verdict), notes_link(cell.table, cell.column.kind, f"{folder.name}/tables")]
