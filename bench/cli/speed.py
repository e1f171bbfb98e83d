"""The commands that time parts: `bench benchmark`, `bench gpu-check`."""

import sys
from typing import Annotated

import typer

from bench.cli import options, stores


def benchmark(store: options.Store = None) -> None:
    """Time clustering, decoding, R50 networks and training steps side by side; write benchmark.json and a chart."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.speed.benchmark import benchmark as measure
    from bench.speed.benchmark import tables

    folder = stores.open_store(store).path
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=1)
        written = measure(folder, lambda done, total, label: bar.update(task, completed=done, total=total,
                                                                        description=label))  # fmt: skip
    typer.echo(tables(written[0]))
    typer.echo(f"written: {' and '.join(map(str, written))}")


def gpu_check(
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Only this part: kernels, bandwidth, memory, training or latency."),
    ] = None,
    store: options.Store = None,
) -> None:
    """Check and time everything that needs a CUDA GPU, in at most eight minutes; write gpu_check.json and latencies."""
    from bench.speed import gpu_check as checks

    path, passed = checks.check(stores.open_store(store).path, part or [])
    typer.echo(f"{checks.text(checks.read(path))}\n\nwritten: {path}")
    if not passed:
        sys.exit(1)
