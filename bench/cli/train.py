"""`bench train`: one training with its evaluation and record, in one process or in those that torchrun starts."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from bench.cli import options, stores
from bench.cli.score import recorded_metrics
from bench.experiments.recipe import CHOICES

PLAIN_REPORT_SECONDS = 20.0
MAX_SEED = 2**32 - 1
PRECISIONS = CHOICES["precision"]


def train(
    row: options.RowName,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of weights, data order and augmentation.")
    ],
    store: options.Store = None,
    data_root: options.DataRoot = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="|".join(PRECISIONS), help="Of the network; default: the recipe's."),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option("--micro-batch", min=1, metavar="N", help="Images that a process computes at once, where its "
                     "share of the batch does not fit into memory; the gradients are added up. Models that train batch "
                     "norms, over the whole batch, need more GPUs instead."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, metavar="N", help="Processes that load images for each training process; "
                     "0: it loads them itself, as where /dev/shm is small. Default: by cores and GPUs."),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log for TensorBoard.")] = False,
) -> None:  # fmt: skip
    """Train one row of a table with one seed, evaluate it and write its accuracy record.

    Several GPUs or nodes: torchrun --nproc_per_node N -m bench train ROW --seed N. However many there are, the batch
    is the recipe's. Stop it at will: the same command goes on where it stopped. On SIGTERM it saves its state and
    exits with code 75.
    """
    from bench.errors import BenchError, unknown_name
    from bench.experiments.recipe import recipe_for
    from bench.experiments.tables import find_row
    from bench.run.jobs import TRY_AGAIN, Job, run_job
    from bench.run.plan import check_backbones, root_of

    experiment = find_row(row)
    check_backbones([experiment])
    if precision is not None and precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    stop = _StopRequest()
    signal.signal(signal.SIGTERM, stop.note)
    folder, root = stores.open_store(store), root_of(experiment, data_root)
    job = Job("accuracy", (experiment,), str(folder.path), seed, data_root=root, command=("bench", *sys.argv[1:]))

    from bench.training.distributed import Stopped, join  # with torch
    from bench.training.engine import Execution
    from bench.training.shares import check_division

    try:
        with join() as world:
            try:
                check_division(experiment, world.size, micro_batch)
            except BenchError as error:
                raise world.common(error) from None
            execution = Execution(world, precision, micro_batch, workers, tensorboard, stop=stop)
            facts = execution.facts(recipe_for(experiment))
            with _display(row, seed, world.is_main) as report:
                report.head = _description(facts, str(world.device))
                run_job(job, report, execution)
            if world.is_main:
                _print_record(experiment, seed, folder)
    except Stopped:
        typer.echo(f"{row} seed {seed} stopped, its work saved: the same command goes on", err=True)
        sys.exit(TRY_AGAIN)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on where it stopped", err=True)
        sys.exit(130)


class _StopRequest:
    """Whether SIGTERM came."""

    def __init__(self):
        self._came = False

    def note(self, *_) -> None:
        self._came = True

    def __call__(self) -> bool:
        return self._came


class _Display:
    """A bar with what the training says of itself; lines now and then where the output is no terminal.

    head: said before the first of these, so that a mistake found earlier is all that is said.
    """

    head = ""

    def __init__(self, console, bar, task):
        self._console, self._bar, self._task = console, bar, task
        self._begun, self._last, self._first = time.monotonic(), 0.0, None

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __call__(self, done: float, total: float, label: str) -> None:
        if self.head:
            self.say(self.head)
            self.head = ""
        self._bar.update(self._task, completed=done, total=total, description=label)
        now = time.monotonic()
        if self._first is None:
            self._first, self._begun = done, now
        if self._console.is_terminal or now - self._last < PLAIN_REPORT_SECONDS:
            return
        self._last = now
        speed = (done - self._first) / max(now - self._begun, 1e-9)
        left = f", about {(total - done) / speed / 60:.0f} min left" if speed > 0 else ""
        self.say(label + left)


@contextmanager
def _display(row: str, seed: int, is_main: bool) -> Iterator[_Display]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, quiet=not is_main)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield _Display(console, bar, bar.add_task(f"{row} seed {seed}", total=None))


def _description(facts: dict, device: str) -> str:
    """How the batch is computed: "batch of 16: 4 process(es), 2 image(s) at once, 2 pass(es); bf16 on cuda:0"."""
    return (
        f"batch of {facts['batch_size']}: {facts['processes']} process(es), {facts['images_at_once']} image(s) at "
        f"once, {facts['passes_a_step']} pass(es); {facts['precision']} on {device}"
    )


def _print_record(experiment, seed: int, store) -> None:
    record = store.get(experiment, "accuracy", seed)
    typer.echo(recorded_metrics(record.metrics, "value"))
    if weights := stores.weights_of(store, record):
        typer.echo(f"weights: {weights}, for 'bench predict' and 'bench run' with --weights")
    typer.echo(f"written: {store.record_path(experiment, 'accuracy', seed)}")
