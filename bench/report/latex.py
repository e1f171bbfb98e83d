r"""A table as LaTeX: one booktabs tabular a block, with the paper's values and ours; needs \usepackage{booktabs}."""

from collections.abc import Sequence

import pandas as pd

from bench.experiments.table import Column, PaperTable, Row
from bench.records import Record
from bench.report.best import BOLD, BOLD_SMALL, NAMES, best_cells, group_of, printed_digits
from bench.report.latency import COARSE_FROM_MS
from bench.report.text import head_lines, number

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


def render_latex(table: PaperTable, frame: pd.DataFrame, records: Sequence[Record]) -> str:
    """The file of one table. `frame`: that of `build_table`; records: those shown, for the comment at the top."""
    cells = {(line["row"], line["metric"]): line for line in frame.to_dict("records")}
    bold = best_cells(table, cells)
    comments = [
        table.title,
        r"Generated from records; do not edit. Needs \usepackage{booktabs}.",
        "paper: as printed there; measured: median, with the range over seeds or rounds where there are several.",
        *([BOLD] if table.rows else []),
        *([f"Small scale: {BOLD_SMALL}"] if table.small_blocks else []),
        *(line.removeprefix("- ") for line in head_lines(records)),
    ]
    parts = ["\n".join("% " + " ".join(comment.split()) for comment in comments)]
    for kind in ("accuracy", "complexity", "latency"):
        columns = [column for column in table.columns if column.kind == kind]
        parts += _tabular(kind.capitalize(), table, table.rows, columns, cells, bold)
    for block in table.small_blocks:
        title = NOT_COMPARABLE.format(block.rows[0].experiment.dataset)
        parts += _tabular(title, table, block.rows, block.columns, cells, bold)
    return "\n\n".join(parts) + "\n"


def _tabular(
    title: str, table: PaperTable, rows: Sequence[Row], columns: Sequence[Column], cells: dict, bold: frozenset
) -> list[str]:
    """The tabular in a list; empty where nothing is printed or measured. A rule separates groups that are compared."""
    shown = [(column, _names(column, rows, cells)) for column in columns]
    shown = [(column, names) for column, names in shown if names]
    if not shown:
        return []
    texts = [_texts(column, name, rows, cells, bold) for column, names in shown for name in names]
    sources = {name for _, names in shown for name in names}
    if len(sources) == 1:
        title += f" ({SUBHEADS[sources.pop()]})"
        head = [_line(["Method", "Backbone", *(escape(_label(column)) for column, _ in shown)])]
    else:
        head = _head(shown)
    lines = [rf"\multicolumn{{{2 + len(texts)}}}{{l}}{{{escape(title)}}} \\", r"\midrule", *head, r"\midrule"]
    for i, row in enumerate(rows):
        if i and group_of(table, row) != group_of(table, rows[i - 1]):
            lines.append(r"\midrule")
        lines.append(_line([escape(row.method), escape(row.backbone), *(column[i] for column in texts)]))
    body = [r"\toprule", *lines, r"\bottomrule"]
    return ["\n".join([rf"\begin{{tabular}}{{ll{'r' * len(texts)}}}", *body, r"\end{tabular}"])]


def _names(column: Column, rows: Sequence[Row], cells: dict) -> list[str]:
    """Which of "published" and "measured" any row has."""
    lines = [cells[row.number, column.metric] for row in rows if (row.number, column.metric) in cells]
    return [name for name in NAMES if any(pd.notna(line[name]) for line in lines)]


def _label(column: Column) -> str:
    return f"{column.label} ({column.unit})"


def _head(shown: Sequence[tuple[Column, list[str]]]) -> list[str]:
    """Two lines, the metric above what was printed and measured of it, and the rules between."""
    labels, rules, first = ["", ""], [], 3
    for column, names in shown:
        labels.append(rf"\multicolumn{{{len(names)}}}{{c}}{{{escape(_label(column))}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + len(names) - 1}}}")
        first += len(names)
    below = ["Method", "Backbone", *(SUBHEADS[name] for _, names in shown for name in names)]
    return [_line(labels), "".join(rules), _line(below)]


def _line(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _texts(column: Column, name: str, rows: Sequence[Row], cells: dict, bold: frozenset) -> list[str]:
    lines = [cells.get((row.number, column.metric)) for row in rows]
    values = [line[name] for line in lines if line and pd.notna(line[name])]
    digits = printed_digits(column) if name == "published" else column.digits
    if column.kind == "latency" and min(values) >= COARSE_FROM_MS:
        digits = 0
    return [_text(line, name, digits, bold) if line else "" for line in lines]


def _text(line: dict, name: str, digits: int, bold: frozenset) -> str:
    text = number(line[name], digits)
    if (line["row"], line["metric"], name) in bold:
        text = rf"\textbf{{{text}}}"
    if text and name == "measured" and line["min"] < line["max"]:  # a count has no range
        text += rf" {{\footnotesize({number(line['min'], digits)}--{number(line['max'], digits)})}}"
    return text
