"""A table as markdown for people: head, the paper's rows in three parts, latency ratios, the small-scale block."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from bench.experiments.recipe import recipe_for
from bench.experiments.tables import Column, PaperTable, Row
from bench.records import Record, Store
from bench.report.verdict import REQUIRED_SEEDS

LEGEND = (
    "**paper**: printed in the paper. **measured**: this store. **reference**: the project's own committed run. "
    "An empty cell: nobody printed or measured it.",
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


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence], text_columns: int = 1) -> str:
    """Aligned pipe table; the first `text_columns` columns are left-aligned, the others right-aligned."""
    align = ["left" if i < text_columns else "right" for i in range(len(headers))]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=align if rows else None)


def head_lines(records: Sequence[Record]) -> list[str]:
    """List of machine, commit, date and record counts; says so where records come from several of them."""
    if not records:
        return ["- No records yet."]
    sources = [record.provenance for record in records]
    counts = Counter(record.kind for record in records)
    dirty = sum(bool(source["dirty"]) for source in sources)
    commits = _several("commits", [source["commit"][:12] for source in sources])
    dates = sorted(source["start"] for source in sources)
    tree = f"; tree with uncommitted changes for {dirty} of {len(records)} records" if dirty else ""
    return [
        f"- Machine: {_several('machines', [_machine(source) for source in sources])}",
        f"- Software: {_several('set-ups', [_software(source) for source in sources])}",
        f"- Commit: {commits}{tree}",
        f"- Measured: {dates[0]} to {dates[-1]}",
        f"- Records: {len(records)} ({', '.join(f'{counts[kind]} {kind}' for kind in sorted(counts))})",
    ]


def _machine(source: dict) -> str:
    place = f"{source['cpu']}, {source.get('cores', '?')} cores, {source.get('threads', '?')} threads"
    return f"{place}, {source['gpu'] or 'no GPU'}"


def _software(source: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in source["versions"].items() if version)


def _several(plural: str, values: Sequence[str]) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return values[0]
    return f"{len(counts)} different {plural}: " + "; ".join(f"{v} ({n} records)" for v, n in counts.most_common())


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def _names(row: Row) -> list[str]:
    return [str(row.number), row.method, row.backbone]


def _columns(table: PaperTable, kind: str) -> list[Column]:
    return [column for column in table.columns if column.kind == kind]


def _has_reference(cells: dict, rows: Sequence[Row], columns: Sequence[Column]) -> bool:
    return any(pd.notna(cells[row.number, column.metric]["reference"]) for row in rows for column in columns)


def _tolerances(cells: dict, columns: Sequence[Column]) -> str:
    found = dict.fromkeys(
        f"{column.label} {line['tolerance']}"
        for column in columns
        for (_, metric), line in cells.items()
        if metric == column.metric and line["tolerance"]
    )
    return "Tolerances: " + ", ".join(found) + "."


def _accuracy(table: PaperTable, cells: dict) -> list[str]:
    columns = _columns(table, "accuracy")
    with_reference = _has_reference(cells, table.rows, columns)
    headers = ["#", "method", "backbone"]
    for column in columns:
        headers += [f"{column.label} paper", "measured"] + ["reference"] * with_reference
    rows = []
    for row in table.rows:
        line = _names(row)
        for column in columns:
            cell = cells[row.number, column.metric]
            line += [_number(cell["published"], 1), _number(cell["measured"], 1)]
            line += [_number(cell["reference"], 1)] * with_reference
        rows.append([*line, _row_verdict([(c.label, cells[row.number, c.metric]) for c in columns])])
    note = f"Paper scale, percent. {_tolerances(cells, columns)} Medians of {REQUIRED_SEEDS} seeds."
    return ["## Accuracy", note, markdown_table([*headers, "verdict"], rows, text_columns=3)]


def _row_verdict(cells: list[tuple[str, dict]]) -> str:
    """One verdict where all metrics with a printed or measured value agree, else each metric's own."""
    shown = [(label, c) for label, c in cells if pd.notna(c["published"]) or pd.notna(c["measured"])]
    if len({cell["verdict"] for _, cell in shown}) <= 1:
        return shown[0][1]["verdict"] if shown else "not measured"
    good = [label for label, cell in shown if cell["verdict"] == "reproduced"]
    rest = [f"{label} {cell['verdict']}" for label, cell in shown if cell["verdict"] != "reproduced"]
    return "; ".join(([f"{len(good)} of {len(shown)} reproduced"] if good else []) + rest)


def _complexity(table: PaperTable, cells: dict) -> list[str]:
    columns = _columns(table, "complexity")
    with_reference = _has_reference(cells, table.rows, columns)
    headers = ["#", "method", "backbone"]
    for column in columns:
        headers += [f"{column.label} ({column.unit}) paper", "measured"]
        headers += ["reference"] * with_reference + ["difference", "verdict"]
    rows = []
    for row in table.rows:
        line = _names(row)
        for column in columns:
            cell = cells[row.number, column.metric]
            line += [_number(cell["published"], 0), _number(cell["measured"], column.digits)]
            line += [_number(cell["reference"], column.digits)] * with_reference
            gap = 100 * (cell["measured"] / cell["published"] - 1)
            line += ["" if pd.isna(gap) else f"{gap:+.1f} %", cell["verdict"]]
        rows.append(line)
    note = "FLOPs: one multiply-add counts one; mean over the first 100 images of COCO val2017."
    return ["## Complexity", f"{note} {_tolerances(cells, columns)}", markdown_table(headers, rows, text_columns=3)]


def _latency(table: PaperTable, cells: dict, records: Sequence[Record]) -> list[str]:
    columns = _columns(table, "latency")
    with_reference = _has_reference(cells, table.rows, columns)
    latency = {record.experiment.key: record for record in records if record.kind == "latency"}
    headers = ["#", "method", "backbone"]
    for column in columns:
        headers += [f"{column.label} median", "p90"] + ["reference median"] * with_reference + ["/ MaskFormer"]
    rows = []
    for row in table.rows:
        base = next((r for r in table.rows if (r.method, r.backbone) == ("MaskFormer", row.backbone)), None)
        line = _names(row)
        for column in columns:
            cell = cells[row.number, column.metric]
            line += [_number(cell["measured"], column.digits)]
            line += [_number(cells[row.number, f"{column.metric}_p90"]["measured"], column.digits)]
            line += [_number(cell["reference"], column.digits)] * with_reference
            line += [_ratio(cells, column.metric, row, base, latency)]
        line += [_ratio(cells, "flops", row, base), cells[row.number, columns[0].metric]["verdict"]]
        rows.append(line)
    note = (
        "ms per image, batch 1; the paper prints none. `/ MaskFormer`: ratio to MaskFormer with the same backbone, "
        "formed only between timings of one run. Reference medians are of the reference machine."
    )
    protocol = [f"Protocol: {text}." for text in dict.fromkeys(_details(record) for record in latency.values()) if text]
    table_text = markdown_table([*headers, "FLOPs / MaskFormer", "verdict"], rows, text_columns=3)
    return ["## Latency", " ".join([note, *protocol]), table_text]


def _ratio(cells: dict, metric: str, row: Row, base: Row | None, latency: dict | None = None) -> str:
    if base is None or row.experiment is None:
        return ""
    if latency is not None:
        pair = [latency.get(r.experiment.key) for r in (row, base)]
        if None in pair or pair[0].details.get("run") != pair[1].details.get("run"):
            return ""
        if _machine(pair[0].provenance) != _machine(pair[1].provenance):
            return ""
    ratio = cells[row.number, metric]["measured"] / cells[base.number, metric]["measured"]
    return "" if pd.isna(ratio) else f"{ratio:.2f}"


def _details(record: Record) -> str:
    return ", ".join(f"{name} {value}" for name, value in record.details.items() if name != "run")


def _small(table: PaperTable, cells: dict) -> list[str]:
    """The small-scale block; the paper's numbers have no place in it."""
    if not table.small_rows:
        return []
    first = table.small_rows[0].experiment
    recipe = recipe_for(first)
    height, width = recipe.crop_size
    title = f"## Small scale: {first.dataset}, {height}x{width}, trained from scratch"
    note = (
        "Not comparable with the rows above: other data, other models, other scale. One recipe for all methods: "
        f"{recipe.iterations} iterations of {recipe.batch_size} images, learning rate {recipe.learning_rate:g}. "
        f"Median (lowest..highest) of the seeds; percent, training in seconds."
    )
    headers = ["method", "run", *(column.label for column in table.small_columns), "seeds", "verdict"]
    rows = []
    for row in table.small_rows:
        line = [cells[row.number, column.metric] for column in table.small_columns]
        n = 0 if pd.isna(line[0]["n"]) else int(line[0]["n"])
        values = [_with_range(cell, column) for cell, column in zip(line, table.small_columns, strict=True)]
        rows.append([row.method, "measured", *values, f"{n} of {len(recipe.seeds)}", line[0]["verdict"]])
        if _has_reference(cells, [row], table.small_columns):
            values = [_number(c["reference"], k.digits) for c, k in zip(line, table.small_columns, strict=True)]
            rows.append([row.method, "reference", *values, "", ""])
    return [title, note, markdown_table(headers, rows, text_columns=2)]


def _with_range(cell: dict, column: Column) -> str:
    if pd.isna(cell["measured"]):
        return ""
    middle, low, high = (_number(cell[name], column.digits) for name in ("measured", "min", "max"))
    return middle if cell["n"] == 1 else f"{middle} ({low}..{high})"
