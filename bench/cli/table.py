"""The commands for a table of the paper: `bench plan`, `bench run`, `bench report`."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options, stores
from bench.cli.score import recorded_metrics
from bench.errors import BenchError, unknown_name

if TYPE_CHECKING:
    from bench.experiments.experiment import Experiment
    from bench.records import Store

CLAIMS = "claims"  # what 'bench report' takes besides the names of tables


def _known_page(context: typer.Context, name: str) -> str:
    from bench.experiments.tables import TABLES, get_table

    if not context.resilient_parsing and name != CLAIMS:
        if name.partition("@")[0] not in TABLES:
            raise unknown_name("table", name, [*TABLES, CLAIMS])
        get_table(name)
    return name


def _complete_page(incomplete: str) -> list[str]:
    return [name for name in (*options.complete_table(incomplete), CLAIMS) if name.startswith(incomplete)]


PageName = Annotated[
    str,
    typer.Argument(
        metavar="TABLE", help="Name of the table, e.g. table1.", callback=_known_page, autocompletion=_complete_page
    ),
]


def plan(table: options.TableName, store: options.Store = None, scale: options.Scale = "small") -> None:
    """List what the table needs, what is there and what is missing, with an estimate."""
    from tabulate import tabulate

    from bench.experiments.tables import get_table, names_for_find_row
    from bench.run.plan import latency_groups, latency_seconds, workers
    from bench.run.plan import plan as make_plan

    planned = make_plan(get_table(table), stores.open_store(store), scale)
    names = names_for_find_row(get_table(table))
    rows = [
        (m.kind, names[m.experiment], m.experiment.scale, "" if m.seed is None else m.seed, p.state,
         "" if p.state == "done" else f"{p.estimate_s:.0f}")
        for p in planned
        for m in (p.measurement,)
    ]  # fmt: skip
    typer.echo(tabulate(rows, ["kind", "row", "scale", "seed", "state", "core seconds"]))
    missing = [p for p in planned if p.state != "done"]
    alone = sum(map(latency_seconds, latency_groups(missing)))  # whole groups or nothing of them
    shared = sum(p.estimate_s for p in missing if p.measurement.kind != "latency")
    minutes = (alone + shared / workers()) / 60
    typer.echo(f"\n{len(planned) - len(missing)} of {len(planned)} there, about {minutes:.0f} min for the rest")


def run(
    table: options.OptionalTable = None,
    store: options.Store = None,
    reference: options.Reference = None,
    scale: options.Scale = "small",
    data_root: options.DataRoot = None,
    force: Annotated[bool, typer.Option("--force", help="Measure all again; after a stop, what is left.")] = False,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="Evaluate this converted checkpoint, train nothing."),
    ] = None,
    method: options.OptionalMethod = None,
    backbone: options.OptionalBackbone = None,
    dataset: options.OptionalDataset = None,
    hierarchical_level: options.HierarchicalLevel = None,
    decoder_layers: options.DecoderLayers = None,
    num_queries: options.NumQueries = None,
    downsampling: options.Downsampling = None,
    transformer_decoder: options.TransformerDecoder = None,
) -> None:
    """Measure what is missing, then write and print the table. Interrupt it at will: it goes on where it stopped.

    With --weights, evaluate that checkpoint and nothing else; the options from --method on then say which model it
    must hold.
    """
    from bench.experiments.tables import get_table
    from bench.run.plan import evaluate_released
    from bench.run.plan import run as run_table

    factors = options.given(
        method=method,
        backbone=backbone,
        dataset=dataset,
        hierarchical_level=hierarchical_level,
        decoder_layers=decoder_layers,
        num_queries=num_queries,
        downsampling=downsampling,
        transformer_decoder=transformer_decoder,
    )
    if weights is None and (table is None or factors):
        raise BenchError(
            "give a TABLE, or a checkpoint with --weights, to which alone --method and such options belong"
        )
    _check_reference(reference)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the jobs are ended
    try:
        if weights is None:
            page = partial(_page, table, store, reference)
            failures = run_table(get_table(table), stores.open_store(store), scale, data_root, force, page=page)
        else:
            from bench.weights.load import open_weights  # with torch

            experiment = open_weights(weights, **factors).experiment
            if table is not None and not get_table(table).has_row(experiment):
                raise BenchError(f"{weights} is of no row of {table} ({experiment.key}): leave {table} out")
            failures = evaluate_released(experiment, weights, stores.open_store(store), data_root, force)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on where it stopped", err=True)
        sys.exit(130)
    if table is not None:
        _report(table, store, reference)
        if weights is None:
            _name_weights(table, scale, stores.open_store(store))
    elif not failures:
        _print_released(experiment, stores.open_store(store))
    if failures:
        raise BenchError(f"{len(failures)} job(s) failed, the same command tries them again: " + "; ".join(failures))


def report(table: PageName, store: options.Store = None, reference: options.Reference = None) -> None:
    """Write and print the table, or with TABLE 'claims' the paper's claims, from the records that are there."""
    if store is not None and not store.is_file() and not (store / "records").is_dir():
        measured = "table1" if table == CLAIMS else table
        raise BenchError(f"{store} holds no records: give a store with --store, or measure with 'bench run {measured}'")
    if table == CLAIMS:
        from bench.report.write import write_claims

        page = write_claims(stores.open_store(store))
        typer.echo(f"{page.read_text(encoding='utf-8')}\nwritten: {page}")
    else:
        _report(table, store, reference)


def _report(table: str, folder: Path | None, reference: Path | None) -> None:
    csv, markdown = _write(table, folder, reference)
    typer.echo(markdown.read_text(encoding="utf-8"))
    typer.echo(f"written: {markdown}, {csv} and {csv.with_suffix('.tex')}")


def _name_weights(table: str, scale: str, store: "Store") -> None:
    """Where the trainings left their weights."""
    from bench.experiments.tables import get_table

    trainings = [m for m in get_table(table).measurements(scale) if m.kind == "accuracy"]
    records = [store.get(m.experiment, m.kind, m.seed) for m in trainings]
    files = [path for record in records if record and (path := stores.weights_of(store, record))]
    if files:
        pattern = store.path / "work" / "*" / "accuracy-*" / files[0].name
        typer.echo(f"weights: {len(files)} file(s), {pattern}, for 'bench predict' and 'bench run' with --weights")


def _page(table: str, folder: Path | None, reference: Path | None) -> str:
    """The page on the way; what is wrong with it does not end the run, whose end says it again."""
    try:
        return _write(table, folder, reference)[1].read_text(encoding="utf-8")
    except BenchError as error:
        return f"no page yet: {error}"


def _check_reference(reference: Path | None) -> None:
    if reference is not None and not reference.is_dir():
        raise BenchError(f"{reference} is not a folder: give an existing store with --reference")


def _write(table: str, folder: Path | None, reference: Path | None) -> list[Path]:
    """Paths of CSV and markdown."""
    from bench.records import Store
    from bench.report.write import GIT_IGNORED_STORE, write_overview, write_report

    _check_reference(reference)
    reference = reference or stores.RESULTS / "reference"
    store = stores.open_store(folder)
    written = write_report(table, store, Store(reference) if reference.is_dir() else None)
    if store.path.name != GIT_IGNORED_STORE and (store.path.parent / "published").is_dir():
        write_overview(store.path.parent)
    return written


def _print_released(experiment: "Experiment", store: "Store") -> None:
    typer.echo(recorded_metrics(store.get(experiment, "released").metrics, "released checkpoint"))
    typer.echo(f"written: {store.record_path(experiment, 'released')}")
