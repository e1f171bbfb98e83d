"""The commands for data sets on disk: `bench data prepare`, `bench data check`, `bench data synthesize`."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.errors import plain

data = typer.Typer(no_args_is_help=True, help="Data sets on disk: complete a download, check it, or do without one.")
SHOWN = 10  # problems


@data.command()
def prepare(name: options.DatasetName, data_root: options.DataRoot = None) -> None:
    """Write the label images that the download lacks. Interrupt it at will: it goes on where it stopped."""
    from bench.data.prepare import prepare as prepare_data

    with _bar() as progress:
        splits = prepare_data(name, data_root, progress)
    if not splits:
        typer.echo(f"{name} needs no preparation")
    for split in splits:
        typer.echo(plain(f"{split.split}: {split.made} written, {split.kept} there before, in {split.folder}"))
    _end([problem for split in splits for problem in split.problems])


@data.command()
def check(
    name: options.DatasetName,
    data_root: options.DataRoot = None,
    everything: Annotated[bool, typer.Option("--all", help="Decode every image, not a sample.")] = False,
) -> None:
    """Verify a data set before hours are spent on it: prints each split's fingerprint, or the problems and exits 1."""
    from bench.data.check import check as check_data
    from bench.experiments.datasets import get_dataset

    data_root = None if get_dataset(name).generated else data_root  # as in `train`: it lies in the cache
    with _bar("give the same command again") as progress:
        reports = check_data(name, data_root, everything, progress)
    for report in reports:
        if not report.problems:
            decoded = "all" if report.decoded == report.images else report.decoded
            typer.echo(f"{report.split}: ok, {report.images} images, {decoded} decoded, {report.fingerprint}")
        if report.left_out:
            typer.echo(f"{report.split}: left out {report.left_out} listed part(s) or segment(s) that cover nothing")
    _end([problem for report in reports for problem in report.problems])


@data.command()
def synthesize(
    name: options.DatasetName,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the data set.")],
    images: Annotated[int, typer.Option("--images", min=1, help="Images a split.")] = 8,
) -> None:
    """Write generated scenes in the official layout of a data set, to try things without a download."""
    from bench.data.synthesis.layouts import synthesize as write

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that no half of the data set is left behind
    with _bar("nothing was written, give the same command again") as progress:
        write(name, out, images, lambda done, total: progress(done, total, name))
    typer.echo(f"written: {plain(str(out))}")


@contextmanager
def _bar(remedy: str = "the same command goes on where it stopped") -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar with the time left; an interruption ends the program with one line."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar, tasks = Progress(*columns, console=Console(stderr=True)), {}

    def progress(done: int, total: int, label: str) -> None:
        if label not in tasks:
            bar.start()  # not before there is something to show
            tasks[label] = bar.add_task(plain(label), total=total)
        bar.update(tasks[label], completed=done)

    try:
        try:
            yield progress
        finally:
            if tasks:
                bar.stop()
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {remedy}", err=True)
        sys.exit(130)


def _end(problems: list[str]) -> None:
    """Print the first problems, one a line, and their number, and exit with 1; nothing where there are none."""
    if not problems:
        return
    for problem in problems[:SHOWN]:
        typer.echo(plain(problem))
    typer.echo(f"{len(problems)} problem(s)" + (f", the first {SHOWN} above" if len(problems) > SHOWN else ""))
    raise typer.Exit(1)
