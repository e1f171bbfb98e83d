"""Which numbers are the best of their block: pages and LaTeX show them bold."""

from collections.abc import Iterable, Sequence

import pandas as pd

from bench.experiments.table import Column, PaperTable, Row
from bench.report.verdict import RELEASED

BOLD = (
    "Bold: the best printed and the best measured value among rows of one backbone and data set (the highest accuracy, "
    "the fewest parameters and FLOPs)."
)
BOLD_SMALL = "Bold: the highest median, which ranks nothing where the ranges overlap."
NAMES = ("published", "measured")


def best_cells(table: PaperTable, cells: dict) -> frozenset[tuple[int, str, str]]:
    """(row number, metric, "published" or "measured") of every number to be shown bold.

    `cells`: lines of the frame by row number and metric. Compared as shown, ties included; none where fewer than two
    rows have a number, where all are equal, or where measured accuracies are not of one kind (seeds, released
    checkpoint, part of the data set).
    """
    found = set()
    for rows, columns in _groups(table):
        for column in columns:
            lines = [cells[row.number, column.metric] for row in rows if (row.number, column.metric) in cells]
            for name in NAMES:
                found |= {(line["row"], column.metric, name) for line in _best(lines, name, column)}
    return frozenset(found)


def printed_digits(column: Column) -> int:
    """Decimals of the paper's numbers: it prints parameters and FLOPs in whole millions and G."""
    return 0 if column.kind == "complexity" else column.digits


def group_of(table: PaperTable, row: Row) -> tuple[str, str]:
    """What rows must share to be compared."""
    return row.backbone, table.dataset_of(row)


def _groups(table: PaperTable) -> Iterable[tuple[Sequence[Row], Sequence[Column]]]:
    for key in dict.fromkeys(group_of(table, row) for row in table.rows):
        yield [row for row in table.rows if group_of(table, row) == key], table.columns
    for block in table.small_blocks:
        yield block.rows, block.columns


def _best(lines: Sequence[dict], name: str, column: Column) -> list[dict]:
    digits = printed_digits(column) if name == "published" else column.digits
    values = [(round(line[name], digits), line) for line in lines if pd.notna(line[name])]
    shown = {value for value, _ in values}
    if len(shown) < 2 or column.kind == "latency":
        return []
    if name == "measured" and column.kind == "accuracy" and len({_kind(line) for _, line in values}) > 1:
        return []
    best = min(shown) if column.kind == "complexity" else max(shown)
    return [line for value, line in values if value == best]


def _kind(line: dict) -> tuple:
    return line["n"], line["verdict"].startswith(RELEASED), " images" in line["verdict"]
