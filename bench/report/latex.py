r"""A table as LaTeX: one booktabs tabular a block, with the paper's values and ours; needs \usepackage{booktabs}."""

from collections.abc import Sequence

from bench.experiments.table import Column, Row
from bench.report.cells import BOLD, BOLD_SMALL, PRINTED_AND_MEASURED, Cell, TableCells, group_of
from bench.report.latency import coarse_digits
from bench.report.text import head_lines, number
from bench.report.verdict import VerdictKind

ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
SUBHEADS = {"published": "paper", "measured": "measured"}
NOT_COMPARABLE = "Small scale, {}: not comparable with the paper's numbers"


def escape(text: str) -> str:
    """Plain text as LaTeX that prints it."""
    return "".join(ESCAPED.get(sign, sign) for sign in text)


def render_latex(cells: TableCells) -> str:
    """The file of one table; the records behind it are named in the comment at the top."""
    table = cells.table
    comments = [
        table.title,
        r"Generated from records; do not edit. Needs \usepackage{booktabs}.",
        "paper: as printed there; measured: median, with the range over seeds or rounds where there are several.",
        *([BOLD] if table.rows else []),
        *([f"Small scale: {BOLD_SMALL}"] if table.small_blocks else []),
        *(line.removeprefix("- ") for line in head_lines(cells.records)),
    ]
    parts = ["\n".join("% " + " ".join(comment.split()) for comment in comments)]
    for kind in ("accuracy", "complexity", "latency"):
        parts += _tabular(kind.capitalize(), cells, table.rows, cells.columns(kind))
    for block in table.small_blocks:
        parts += _tabular(NOT_COMPARABLE.format(block.rows[0].experiment.dataset), cells, block.rows, block.columns)
    return "\n\n".join(parts) + "\n"


def _tabular(title: str, cells: TableCells, rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """The tabular in a list; empty where nothing is printed or measured. A rule separates groups that are compared."""
    shown = []
    for column in columns:
        of_rows = cells.of_column(column, rows)
        if sources := [s for s in PRINTED_AND_MEASURED if any(cell and cell.has(s) for cell in of_rows)]:
            shown.append((f"{column.label} ({column.unit})", sources, of_rows))
    if not shown:
        return []
    texts = [_texts(of_rows, source) for _, sources, of_rows in shown for source in sources]
    used = {source for _, sources, _ in shown for source in sources}
    if len(used) == 1:
        title += f" ({SUBHEADS[used.pop()]})"
        head = [_line(["Method", "Backbone", *(escape(label) for label, _, _ in shown)])]
    else:
        head = _head([(label, sources) for label, sources, _ in shown])
    lines = [rf"\multicolumn{{{2 + len(texts)}}}{{l}}{{{escape(title)}}} \\", r"\midrule", *head, r"\midrule"]
    for i, row in enumerate(rows):
        if i and group_of(cells.table, row) != group_of(cells.table, rows[i - 1]):
            lines.append(r"\midrule")
        lines.append(_line([escape(row.method), escape(row.backbone), *(column[i] for column in texts)]))
    body = [r"\toprule", *lines, r"\bottomrule"]
    return ["\n".join([rf"\begin{{tabular}}{{ll{'r' * len(texts)}}}", *body, r"\end{tabular}"])]


def _head(shown: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Two lines, the metric above what was printed and measured of it, and the rules between."""
    labels, rules, first = ["", ""], [], 3
    for label, sources in shown:
        labels.append(rf"\multicolumn{{{len(sources)}}}{{c}}{{{escape(label)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + len(sources) - 1}}}")
        first += len(sources)
    below = ["Method", "Backbone", *(SUBHEADS[source] for _, sources in shown for source in sources)]
    return [_line(labels), "".join(rules), _line(below)]


def _line(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _texts(cells: Sequence[Cell | None], source: str) -> list[str]:
    present = [cell for cell in cells if cell and cell.has(source)]
    digits = present[0].digits(source)
    if present[0].column.kind == "latency":
        digits = coarse_digits([cell.value(source) for cell in present], digits)
    return [_text(cell, source, digits) if cell else "" for cell in cells]


def _text(cell: Cell, source: str, digits: int) -> str:
    text, measured = number(cell.value(source), digits), cell.measured
    if source in cell.best:
        text = rf"\textbf{{{text}}}"
    if source == "measured" and measured and measured.low < measured.high:  # a count has no range
        text += rf" {{\footnotesize({number(measured.low, digits)}--{number(measured.high, digits)})}}"
    if source == "measured" and cell.verdict.kind is VerdictKind.BUSY:
        text += rf" {{\footnotesize {cell.verdict}}}"
    return text
