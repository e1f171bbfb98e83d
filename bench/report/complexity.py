"""`<store>/complexity.md`: every printed FLOPs and parameter count beside ours, with the error; no table left out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean

import pandas as pd

from bench.experiments.tables import TABLES
from bench.records import Store
from bench.report.text import head_lines, markdown_table, number
from bench.report.verdict import category

METRICS = {"flops": ("FLOPs", "G", 1), "params": ("params", "M", 2)}  # label, unit, decimals of ours


@dataclass(frozen=True)
class Comparison:
    """One printed count; `measured` is None and `error` too where the model was not counted."""

    table: str
    row: int
    metric: str
    published: float
    measured: float | None
    verdict: str

    @property
    def error(self) -> float | None:
        """Ours minus the paper's, in percent of the paper's."""
        return None if self.measured is None else 100 * (self.measured / self.published - 1)


def comparisons(frame: pd.DataFrame) -> list[Comparison]:
    """Every printed parameter and FLOPs count of a frame of `build_table`, in the paper's order."""
    lines = frame[frame.metric.isin(METRICS) & frame.published.notna()].to_dict("records")
    return [
        Comparison(
            line["table"], line["row"], line["metric"], line["published"],
            None if pd.isna(line["measured"]) else line["measured"], line["verdict"],
        )
        for line in lines
    ]  # fmt: skip


def largest(found: Iterable[Comparison]) -> Comparison | None:
    """The counted one with the largest error of either sign; None without any."""
    counted = [comparison for comparison in found if comparison.error is not None]
    return max(counted, key=lambda comparison: abs(comparison.error), default=None)


def error_text(comparison: Comparison | None) -> str:
    """ "+1.2 %", empty where nothing was counted."""
    if comparison is None or comparison.error is None:
        return ""
    return f"{comparison.error:+z.1f} %"  # z: no "-0.0"


def render_complexity(frames: Mapping[str, pd.DataFrame], store: Store) -> str:
    """The page. `frames`: table name -> frame of `build_table` with the store."""
    records = [record for record in store.load_all() if record.kind == "complexity"]
    found = [comparison for frame in frames.values() for comparison in comparisons(frame)]
    explanation = (
        "Every count that the paper prints, beside what this program counts for the model it builds; one multiply-add "
        "counts one, on the images that the page of each table names. The error is ours minus the paper's in percent "
        "of the paper's, which prints whole G and whole millions: 0.5 G of 87 G are 0.6 %. The verdict is that of the "
        "table, within 3 % or 0.6 M for most. *why*: for a count that is off, the notes of its table say what is known."
    )
    parts = [
        "# Complexity: the paper's counts and ours",
        "\n".join(head_lines(records)),
        explanation,
        "\n".join(_summary(metric, [c for c in found if c.metric == metric]) for metric in METRICS),
        "A model that stands in several tables is counted once and compared with each.",
        markdown_table(_headers(), list(_rows(frames, found))),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(metric: str, found: list[Comparison]) -> str:
    label = METRICS[metric][0]
    errors = [comparison.error for comparison in found if comparison.error is not None]
    text = f"- {label}: {len(found)} printed, {len(errors)} counted here"
    if not errors:
        return f"{text}."
    off, worst = sum(category(c.verdict) == "off" for c in found), largest(found)
    return (
        f"{text}: {len(errors) - off} reproduced, {off} off. Error: mean {mean(errors):+.2f} %, mean of the absolute "
        f"values {mean(map(abs, errors)):.2f} %, largest {error_text(worst)} ({worst.table} row {worst.row})."
    )


def _headers() -> list[str]:
    headers = ["table", "row", "method", "backbone"]
    for label, unit, _ in METRICS.values():
        headers += [f"{label} ({unit})", "ours", "error", "verdict"]
    return [*headers, "why"]


def _rows(frames: Mapping[str, pd.DataFrame], found: list[Comparison]) -> Iterable[list[str]]:
    by_cell = {(c.table, c.row, c.metric): c for c in found}
    for name in frames:
        table = TABLES[name]
        for row in table.rows:
            cells = [by_cell.get((name, row.number, metric)) for metric in METRICS]
            if not any(cells):
                continue
            texts = [text for cell, metric in zip(cells, METRICS, strict=True) for text in _texts(cell, metric)]
            off = any(cell and category(cell.verdict) == "off" for cell in cells)
            yield [
                name,
                str(row.number),
                row.method,
                row.backbone,
                *texts,
                notes_link(name, "complexity") if off else "",
            ]


def _texts(cell: Comparison | None, metric: str) -> list[str]:
    if cell is None:
        return ["", "", "", ""]
    ours = number(cell.measured, METRICS[metric][2])
    return [number(cell.published, 0), ours, error_text(cell), category(cell.verdict)]


def notes_link(table: str, kind: str, folder: str = "tables") -> str:
    """Link to the notes below the block of a record kind; says so where the table has none."""
    if not any(note.kind == kind for note in TABLES[table].notes):
        return "no note"
    return f"[notes]({folder}/{table}.md#{kind})"
