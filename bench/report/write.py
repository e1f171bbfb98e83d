"""Files: `<store>/tables/<table>.{csv,md,tex}`, the pages of a store, and the overview `results/README.md`."""

import csv
import io
from dataclasses import replace
from pathlib import Path

from bench.experiments.tables import TABLES, get_table
from bench.files import write_atomically
from bench.records import Store
from bench.report.cells import Cell, TableCells
from bench.report.claims import render_claims
from bench.report.collect import collect_cells
from bench.report.latex import render_latex
from bench.report.overview import render_complexity, render_overview
from bench.report.pages import render_markdown
from bench.report.text import wrap_prose
from bench.report.verdict import Verdict, VerdictKind

GIT_IGNORED_STORE = "local"
COLUMNS = (
    "table,row,method,backbone,dataset,scale,metric,unit,published,reference,measured,min,max,n,tolerance,"
    "verdict,record"
).split(",")


def write_report(table_name: str, store: Store, reference: Store | None = None) -> list[Path]:
    """Write the CSV, markdown and LaTeX of one table from records alone; returns the paths of CSV and markdown.

    The pages of claims and of all complexities are written anew with every table, and so are those of other declared
    tables that are there already: they share records.
    The reference columns stay empty when `reference` is None, absent, or the store itself.
    Raises BenchError for an unknown table or a damaged record.
    """
    table = get_table(table_name)
    if reference is not None and reference.path.resolve() == store.path.resolve():
        reference = None
    tables = {of.name: of for of in (*TABLES.values(), table)}.values()  # also one with another backbone
    cells, folder = collect_cells(store, reference, tables), store.path / "tables"
    for name, of_table in cells.tables.items():
        if name != table.name and (folder / f"{of_table.table.file_name}.md").exists():
            _write_table(of_table, store)
    written = _write_table(cells.tables[table.name], store)
    _write_page(store.path / "claims.md", render_claims(cells))
    _write_page(store.path / "complexity.md", render_complexity(cells))
    return written


def write_claims(store: Store) -> Path:
    """Write `<store>/claims.md` from records alone; raises BenchError on a damaged record or published file."""
    return _write_page(store.path / "claims.md", render_claims(collect_cells(store)))


def write_overview(results: Path) -> Path:
    """Write `results/README.md`: the committed stores, how much of every table is reproduced, and where it stands."""
    folders = [path.parent for path in sorted(results.glob("*/records")) if path.parent.name != GIT_IGNORED_STORE]
    stores = {folder: collect_cells(Store(folder)) for folder in folders}
    return _write_page(results / "README.md", render_overview(stores))


def render_csv(cells: TableCells, store: Store) -> str:
    """A line a cell, with `COLUMNS`; of a latency the 90th percentile on a line of its own (`<metric>_p90`)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in cells.cells.values():
        writer.writerow(_csv_line(cell, store))
        if cell.column.kind == "latency":
            writer.writerow(_csv_line(_percentile(cell), store))
    return text.getvalue()


def _csv_line(cell: Cell, store: Store) -> list:
    row, measured = cell.row, cell.measured
    numbers = [cell.value("published"), cell.value("reference"), cell.value("measured")]
    numbers += [measured.low, measured.high] if measured else [None, None]
    return [
        cell.table.name, row.number, row.method, row.backbone, cell.dataset, cell.scale,
        cell.column.metric, cell.column.unit, *("" if number is None else f"{number:.6g}" for number in numbers),
        measured.n if measured else "", cell.published.tolerance_text if cell.published else "", cell.verdict,
        ";".join(store.relative(record) for record in measured.records) if measured else "",
    ]  # fmt: skip


def _percentile(cell: Cell) -> Cell:
    """The 90th percentile of a latency as a cell of its own, which nobody prints."""
    measured, reference = (
        replace(value, value=value.p90, low=value.p90, high=value.p90) if value and value.p90 is not None else None
        for value in (cell.measured, cell.reference)
    )
    verdict = Verdict(VerdictKind.NOT_PRINTED if measured else VerdictKind.NOT_MEASURED)
    if measured and cell.verdict.kind is VerdictKind.BUSY:
        verdict = cell.verdict
    column = replace(cell.column, metric=f"{cell.column.metric}_p90")
    return replace(cell, column=column, published=None, measured=measured, reference=reference, verdict=verdict)


def _write_table(cells: TableCells, store: Store) -> list[Path]:
    path = store.path / "tables" / f"{cells.table.file_name}.csv"
    write_atomically(path, render_csv(cells, store))
    write_atomically(path.with_suffix(".tex"), render_latex(cells))
    return [path, _write_page(path.with_suffix(".md"), render_markdown(cells))]


def _write_page(path: Path, page: str) -> Path:
    write_atomically(path, wrap_prose(page))
    return path
