"""`results/README.md`: of every committed store how many cells of each table are reproduced, and what is off."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from bench.experiments.tables import TABLES
from bench.records import KINDS, Store
from bench.report.best import printed_digits
from bench.report.complexity import METRICS, comparisons, error_text, largest, notes_link
from bench.report.text import head_lines, markdown_table, number
from bench.report.verdict import CATEGORIES, PART, RELEASED, category

_KINDS = {"complexity": "counts", "latency": "latencies", "accuracy": "accuracies"}
PAGES = ("complexity.md", "claims.md")
Frames = Mapping[str, pd.DataFrame]  # table name -> frame of `build_table`
READING = (
    "A cell is one metric of one row: *reproduced* or *off* (a count, or the median of three seeds, within or outside "
    "the tolerance), *too few seeds* (one or two), *other scale* (a small model: nothing is printed for it), *other "
    "device* (a latency: the paper's machine was another), *no published value* (measured, not printed), *not "
    "measured* (also every cell of a method that is not built here). 90th percentiles are not counted again. A model "
    "counts in every table where it stands. Errors are in percent of the printed count."
)


def render_overview(stores: Mapping[Path, Frames]) -> str:
    """The page. `stores`: folder of every committed store, and its frames by table."""
    lines = ["# Results", "", "Generated; do not edit. `published/` holds the paper's numbers with our tolerances.", ""]
    records = {folder: Store(folder).load_all() for folder in stores}
    counted = {folder: Counter(record.kind for record in found) for folder, found in records.items()}
    # Most stores have no released checkpoint.
    kinds = [kind for kind in KINDS if kind != "released" or any(counts[kind] for counts in counted.values())]
    rows = [
        [f"`{folder.name}/`", *(str(counts[kind]) for kind in kinds), _pages(folder)]
        for folder, counts in counted.items()
    ]
    lines += [markdown_table(["store", *kinds, "pages"], rows), "", READING]
    for folder, frames in stores.items():
        lines += ["", f"## {folder.name}", "", *head_lines(records[folder], most=None), "", _counts(folder, frames)]
        if off := _off(folder, frames):
            lines += ["", f"Off in `{folder.name}/`:", "", off]
    return "\n".join(lines) + "\n"


def _pages(folder: Path) -> str:
    found = [folder / name for name in PAGES if (folder / name).is_file()]
    return ", ".join(f"[{path.stem}]({folder.name}/{path.name})" for path in found)


def _counts(folder: Path, frames: Frames) -> str:
    counts = {name: Counter(map(category, cells(frame).verdict)) for name, frame in frames.items()}
    total = sum(counts.values(), Counter())
    shown = [name for name in CATEGORIES if name not in (RELEASED, PART) or total[name]]
    rows = []
    for name, frame in frames.items():
        errors = [error_text(largest(c for c in comparisons(frame) if c.metric == metric)) for metric in METRICS]
        rows.append([_table_link(folder, name), *(str(counts[name][c]) for c in shown), *errors, _files(folder, name)])
    everything = [comparison for frame in frames.values() for comparison in comparisons(frame)]
    errors = [error_text(largest(c for c in everything if c.metric == metric)) for metric in METRICS]
    for kind, label in _KINDS.items():
        of_kind = Counter(category(v) for name, frame in frames.items() for v in _of_kind(name, frame, kind).verdict)
        nothing = [""] * len(errors)
        rows.append([f"all, {label}", *(str(of_kind[c]) for c in shown), *nothing, ""])
    rows.append(["all", *(str(total[c]) for c in shown), *errors, ""])
    labels = [f"largest {label} error" for label, _, _ in METRICS.values()]
    return markdown_table(["table", *shown, *labels, "files"], rows)


def _of_kind(name: str, frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    table = TABLES[name]
    columns = (*table.columns, *(column for block in table.small_blocks for column in block.columns))
    return frame[frame.metric.isin({column.metric for column in columns if column.kind == kind})]


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines that count: a 90th percentile belongs to the cell of its median."""
    return frame[~frame.metric.str.endswith("_p90")]


def _table_link(folder: Path, name: str) -> str:
    path = folder / "tables" / f"{name}.md"
    return f"[{name}]({folder.name}/tables/{path.name})" if path.is_file() else name


def _files(folder: Path, name: str) -> str:
    found = [folder / "tables" / f"{name}.{ending}" for ending in ("csv", "tex")]
    return ", ".join(f"[{p.suffix[1:]}]({folder.name}/tables/{p.name})" for p in found if p.is_file())


def _off(folder: Path, frames: Frames) -> str:
    rows = [row for frame in frames.values() for row in _off_rows(folder, frame)]
    headers = ["table", "row", "method", "backbone", "metric", "paper", "measured", "verdict", "why"]
    return markdown_table(headers, rows) if rows else ""


def _off_rows(folder: Path, frame: pd.DataFrame) -> Iterable[list[str]]:
    for line in frame[frame.verdict.map(category) == "off"].to_dict("records"):
        table = TABLES[line["table"]]
        column = next(column for column in table.columns if column.metric == line["metric"])
        paper = number(line["published"], printed_digits(column))
        link = notes_link(table.name, column.kind, f"{folder.name}/tables")
        yield [
            table.name, str(line["row"]), line["method"], line["backbone"], column.label, paper,
            number(line["measured"], column.digits), line["verdict"], link,
        ]  # fmt: skip
