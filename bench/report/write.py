"""Files: `<store>/tables/<table>.{csv,md,tex}`, the pages of a store, and the overview `results/README.md`."""

from pathlib import Path

from bench.experiments.table import PaperTable
from bench.experiments.tables import TABLES, get_table
from bench.records import Snapshot, Store, write_atomically
from bench.report.claims import write_claims
from bench.report.complexity import render_complexity
from bench.report.frame import build_table, build_tables, counts
from bench.report.latex import render_latex
from bench.report.markdown import records_of, render_markdown
from bench.report.overview import render_overview
from bench.report.text import wrap_prose

GIT_IGNORED_STORE = "local"


def write_report(table_name: str, store: Store, reference: Store | None = None) -> list[Path]:
    """Write the CSV, markdown and LaTeX of one table from records alone; returns the paths of CSV and markdown.

    The pages of claims and of all complexities are written anew with every table, and so are those of other tables that
    are there already: they share records.
    The reference columns stay empty when `reference` is None, absent, or the store itself.
    Raises BenchError for an unknown table or a damaged record.
    """
    table = get_table(table_name)
    if reference is not None and reference.path.resolve() == store.path.resolve():
        reference = None
    store, reference = Snapshot(store.path), reference and Snapshot(reference.path)
    folder = store.path / "tables"
    for other in TABLES.values():
        if other is not table and (folder / f"{other.name}.md").exists():
            _write_table(other, store, reference)
    written = _write_table(table, store, reference)
    write_claims(store)
    write_complexity(store)
    return written


def _write_table(table: PaperTable, store: Store, reference: Store | None) -> list[Path]:
    frame = build_table(table, store, reference)
    folder = store.path / "tables"
    current = list(filter(counts, records_of(table, store)))
    texts = {
        folder / f"{table.name}.csv": frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        folder / f"{table.name}.md": wrap_prose(render_markdown(table, frame, store, reference)),
        folder / f"{table.name}.tex": render_latex(table, frame, current),
    }
    for path, text in texts.items():
        write_atomically(path, text)
    return list(texts)[:2]


def write_complexity(store: Store) -> Path:
    """Write `<store>/complexity.md`: every count that the paper prints beside ours."""
    path = store.path / "complexity.md"
    write_atomically(path, wrap_prose(render_complexity(build_tables(TABLES.values(), store), store)))
    return path


def write_overview(results: Path) -> Path:
    """Write `results/README.md`: the committed stores, how much of every table is reproduced, and where it stands."""
    folders = [path.parent for path in sorted(results.glob("*/records")) if path.parent.name != GIT_IGNORED_STORE]
    path = results / "README.md"
    frames = {folder: build_tables(TABLES.values(), Store(folder)) for folder in folders}
    write_atomically(path, wrap_prose(render_overview(frames)))
    return path
