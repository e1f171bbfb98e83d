"""The command line. Model packages are imported only by the commands that need them."""

import errno
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bench.cli import data as cli_data
from bench.cli import launch as cli_launch
from bench.cli import models as cli_models
from bench.cli import options
from bench.cli import recipe as cli_recipe
from bench.cli import regression as cli_regression
from bench.cli import score as cli_score
from bench.cli import train as cli_train
from bench.errors import BenchError, plain, unknown_name

if TYPE_CHECKING:
    from bench.experiments.experiment import Experiment
    from bench.records import Store

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    help="Reproducibility benchmark for HCFormer: measure a table of the paper and set it beside the published one.",
)  # fmt: skip
app.add_typer(cli_models.weights, name="weights")
app.add_typer(cli_data.data, name="data")
app.add_typer(cli_recipe.recipe, name="recipe")
app.command()(cli_models.predict)
app.command()(cli_score.score)
app.command()(cli_launch.launch)
app.command()(cli_train.train)
app.command()(cli_regression.regression)
RESULTS = Path(__file__).resolve().parents[2] / "results"
CLAIMS = "claims"  # what 'bench report' takes besides the names of tables

TableName = Annotated[str, typer.Argument(metavar="TABLE", help="Name of the table, e.g. table1.")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Folder of records and tables; default: results/local.")
]
ReferenceOption = Annotated[
    Path | None, typer.Option("--reference", help="Store shown as reference; default: results/reference.")
]
ScaleOption = Annotated[str, typer.Option("--scale", help="Scale of the accuracy runs: small or paper.")]
DataRoot = Annotated[Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of the data set (paper scale).")]


@app.command()
def plan(table: TableName, store: StoreOption = None, scale: ScaleOption = "small") -> None:
    """List what the table needs, what is there and what is missing, with an estimate."""
    from tabulate import tabulate

    from bench.experiments.tables import get_table, names_for_find_row
    from bench.run.plan import latency_groups, latency_seconds, workers
    from bench.run.plan import plan as make_plan

    planned = make_plan(get_table(table), _store(store), scale)
    names = names_for_find_row(get_table(table))
    rows = [
        (m.kind, names[m.experiment], m.experiment.scale, "" if m.seed is None else m.seed, p.state,
         "" if p.state == "done" else f"{p.estimate_s:.0f}")
        for p in planned
        for m in (p.measurement,)
    ]  # fmt: skip
    typer.echo(tabulate(rows, ["kind", "row", "scale", "seed", "state", "core seconds"]))
    missing = [p for p in planned if p.state != "done"]
    alone = sum(map(latency_seconds, latency_groups(missing)))
    shared = sum(p.estimate_s for p in missing if p.measurement.kind != "latency")
    minutes = (alone + shared / workers()) / 60
    typer.echo(f"\n{len(planned) - len(missing)} of {len(planned)} there, about {minutes:.0f} min for the rest")


@app.command()
def run(
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="Table; may be left out with --weights.")
    ] = None,
    store: StoreOption = None,
    reference: ReferenceOption = None,
    scale: ScaleOption = "small",
    data_root: DataRoot = None,
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the jobs are ended
    try:
        if weights is None:
            failures = run_table(get_table(table), _store(store), scale, data_root, force)
        else:
            from bench.weights.load import open_weights  # with torch

            experiment = open_weights(weights, **factors).experiment
            if table is not None and not get_table(table).has_row(experiment):
                raise BenchError(f"{weights} is of no row of {table} ({experiment.key}): leave {table} out")
            failures = evaluate_released(experiment, weights, _store(store), data_root, force)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on where it stopped", err=True)
        sys.exit(130)
    if table is not None:
        _report(table, store, reference)
    elif not failures:
        _print_released(experiment, _store(store))
    if failures:
        raise BenchError(f"{len(failures)} job(s) failed, the same command tries them again: " + "; ".join(failures))


@app.command()
def report(table: TableName, store: StoreOption = None, reference: ReferenceOption = None) -> None:
    """Write and print the table, or with TABLE 'claims' the paper's claims, from the records that are there."""
    from bench.experiments.tables import TABLES

    if table not in (pages := [*TABLES, CLAIMS]):
        raise unknown_name("table", table, pages)
    if store is not None and not store.is_file() and not (store / "records").is_dir():
        measured = "table1" if table == CLAIMS else table
        raise BenchError(f"{store} holds no records: give a store with --store, or measure with 'bench run {measured}'")
    if table == CLAIMS:
        from bench.report.write import write_claims

        page = write_claims(_store(store))
        typer.echo(f"{page.read_text(encoding='utf-8')}\nwritten: {page}")
    else:
        _report(table, store, reference)


@app.command()
def benchmark(store: StoreOption = None) -> None:
    """Time clustering, decoding, R50 networks and training steps side by side; write benchmark.json and a chart."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.speed.benchmark import benchmark as measure
    from bench.speed.benchmark import tables

    folder = _store(store).path
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=1)
        written = measure(folder, lambda done, total, label: bar.update(task, completed=done, total=total,
                                                                        description=label))  # fmt: skip
    typer.echo(tables(written[0]))
    typer.echo(f"written: {' and '.join(map(str, written))}")


@app.command("gpu-check")
def gpu_check(
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Only this part: kernels, bandwidth, memory, training or latency."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Check and time everything that needs a CUDA GPU, in at most eight minutes; write gpu_check.json and latencies."""
    from bench.speed import gpu_check as checks

    path, passed = checks.check(_store(store).path, part or [])
    typer.echo(f"{checks.text(checks.read(path))}\n\nwritten: {path}")
    if not passed:
        sys.exit(1)


def _report(table: str, folder: Path | None, reference: Path | None) -> None:
    from bench.records import Store
    from bench.report.write import GIT_IGNORED_STORE, write_overview, write_report

    if reference is not None and not reference.is_dir():
        raise BenchError(f"{reference} is not a folder: give an existing store with --reference")
    reference = reference or RESULTS / "reference"
    store = _store(folder)
    csv, markdown = write_report(table, store, Store(reference) if reference.is_dir() else None)
    if store.path.name != GIT_IGNORED_STORE and (store.path.parent / "published").is_dir():
        write_overview(store.path.parent)
    typer.echo(markdown.read_text(encoding="utf-8"))
    typer.echo(f"written: {markdown}, {csv} and {csv.with_suffix('.tex')}")


def _print_released(experiment: "Experiment", store: "Store") -> None:
    from tabulate import tabulate

    record = store.get(experiment, "released")
    rows = [(name, metric["value"], metric["unit"], metric["n"]) for name, metric in record.metrics.items()]
    typer.echo(tabulate(rows, ["metric", "released checkpoint", "unit", "n"], floatfmt=".2f"))
    typer.echo(f"written: {store.record_path(experiment, 'released')}")


def _store(path: Path | None) -> "Store":
    from bench.records import Store

    path = path or RESULTS / "local"
    if path.exists() and not path.is_dir():
        raise BenchError(f"{path} is not a folder: give the folder of the store with --store")
    return Store(path)


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    try:
        app(standalone_mode=True)
    except BenchError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # which name no file
            _fail(f"{error.strerror}: free space or give another --store or --out")
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}: make it writable or give another --store or --out")


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {plain(message)}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
