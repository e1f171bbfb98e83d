"""`bench list`: what the other commands take by name."""

from collections.abc import Callable
from typing import Annotated

import typer

from bench.errors import unknown_name

Listing = tuple[list[str], list[tuple]]  # headers and rows


def _methods() -> Listing:
    from bench.experiments.methods import METHODS

    rows = [(m.name, m.label, m.predicts, *map(_yes, (m.clusters, m.trained, m.timed))) for m in METHODS.values()]
    return ["method", "label", "predicts", "clusters", "trained", "timed"], rows


def _backbones() -> Listing:
    from bench.experiments.backbones import BACKBONES, TIMM

    rows = [(b.name, b.label, ", ".join(b.scales)) for b in BACKBONES.values()]
    return ["backbone", "label", "scales"], [*rows, (f"{TIMM}NAME", "any model of timm with a pyramid", "paper, small")]


def _datasets() -> Listing:
    from bench.experiments.datasets import DATASETS

    rows = [(d.name, d.label, d.task, d.num_classes, ", ".join(d.recipes)) for d in DATASETS.values()]
    return ["data set", "label", "task", "classes", "recipes"], rows


def _tables() -> Listing:
    from bench.experiments.tables import TABLES

    rows = [(t.name, len(t.rows), len(t.small_rows), t.title) for t in TABLES.values()]
    return ["table", "rows", "small", "title"], rows


def _rows() -> Listing:
    from bench.experiments.tables import TABLES, row_names

    rows = [
        (f"{table.name}/{name}", e.dataset, e.scale)
        for table in TABLES.values()
        for name, e in row_names(table).items()
    ]
    return ["row", "data set", "scale"], rows


LISTINGS: dict[str, Callable[[], Listing]] = {
    "methods": _methods, "backbones": _backbones, "datasets": _datasets, "tables": _tables, "rows": _rows,
}  # fmt: skip


def _complete(incomplete: str) -> list[str]:
    return [name for name in LISTINGS if name.startswith(incomplete)]


def list_names(
    what: Annotated[
        str | None, typer.Argument(metavar="|".join(LISTINGS), help="Default: all but rows.", autocompletion=_complete)
    ] = None,
) -> None:
    """List the names that the other commands take: methods, backbones, data sets, tables, or all rows of the tables."""
    from tabulate import tabulate

    if what is not None and what not in LISTINGS:
        raise unknown_name("listing", what, LISTINGS)
    for name in [what] if what else [name for name in LISTINGS if name != "rows"]:
        headers, rows = LISTINGS[name]()
        typer.echo(tabulate(rows, headers, disable_numparse=True) + ("" if what else "\n"))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
