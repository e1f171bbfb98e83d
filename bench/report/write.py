"""Files: `<store>/tables/<table>.{csv,md}` and the overview `results/README.md`."""

from collections import Counter
from pathlib import Path

from bench.experiments.tables import TABLES, get_table
from bench.records import KINDS, Store, write_atomically
from bench.report.claims import write_claims
from bench.report.frame import build_table
from bench.report.markdown import render_markdown
from bench.report.text import head_lines, markdown_table

GIT_IGNORED_STORE = "local"


def write_report(table_name: str, store: Store, reference: Store | None = None) -> list[Path]:
    """Write the CSV and the markdown of one table from records alone; returns their paths, CSV first.

    The page of claims is written anew with every table.
    The reference columns stay empty when `reference` is None, absent, or the store itself.
    Raises BenchError for an unknown table or a damaged record.
    """
    table = get_table(table_name)
    if reference is not None and reference.path.resolve() == store.path.resolve():
        reference = None
    frame = build_table(table, store, reference)
    folder = store.path / "tables"
    texts = {
        folder / f"{table.name}.csv": frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        folder / f"{table.name}.md": render_markdown(table, frame, store, reference),
    }
    for path, text in texts.items():
        write_atomically(path, text)
    write_claims(store)
    return list(texts)


def write_overview(results: Path) -> Path:
    """Write `results/README.md`: the committed stores, what they hold and where their tables are."""
    lines = ["# Results", "", "Generated; do not edit. `published/` holds the paper's numbers with our tolerances.", ""]
    stores = [path.parent for path in sorted(results.glob("*/records")) if path.parent.name != GIT_IGNORED_STORE]
    counted = {folder: Counter(record.kind for record in Store(folder).load_all()) for folder in stores}
    # Most stores have no released checkpoint.
    kinds = [kind for kind in KINDS if kind != "released" or any(counts[kind] for counts in counted.values())]
    rows = []
    for folder, counts in counted.items():
        tables = [path for path in sorted(folder.glob("tables/*.md")) if path.stem in TABLES]
        links = ", ".join(f"[{path.stem}]({path.relative_to(results).as_posix()})" for path in tables)
        rows.append([f"`{folder.name}/`", *(str(counts[kind]) for kind in kinds), links])
    lines.append(markdown_table(["store", *kinds, "tables"], rows))
    for folder in stores:
        lines += ["", f"## {folder.name}", "", *head_lines(Store(folder).load_all())]
    path = results / "README.md"
    write_atomically(path, "\n".join(lines) + "\n")
    return path
