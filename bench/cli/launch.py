"""The command that trains a whole table: `bench launch`."""

import math
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options, stores
from bench.errors import BenchError, unknown_name

if TYPE_CHECKING:
    from bench.run.launch.cost import StepTime
    from bench.run.launch.plan import Setup, Training

BACKENDS = ("torchrun", "local", "slurm")
ASSUMED_GPUS = 8  # of a job at paper scale where no GPU of this machine says otherwise
SLURM_HOURS = 24.0


def launch(
    table: options.TableName,
    scale: options.Scale = "small",
    backend: Annotated[
        str, typer.Option("--backend", metavar="|".join(BACKENDS), help="torchrun: one job after the other on this "
                          "machine; local: several at once; slurm: a job array.")
    ] = "torchrun",
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="GPUs of a job on each node, 0: CPU; default at paper scale: 8 "
                                 "on Slurm, all of this machine (local: one a job) elsewhere.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Nodes of a job (slurm).")] = 1,
    store: options.Store = None,
    data_root: options.DataRoot = None,
    partition: Annotated[str | None, typer.Option("--partition", help="Partition (slurm).")] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", help="Time limit of a job (slurm); a training that needs more is "
                                   "requeued and goes on. Default: 24.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print jobs, cost and commands; start nothing.")] = False,
) -> None:  # fmt: skip
    """Train what a table lacks, one job a row and seed. The same command again starts only what is still missing.

    A job that is stopped saves its checkpoint and is run again; one that fails is named with its log, the rest goes on.
    """
    from bench.experiments.tables import get_table
    from bench.run.launch.plan import Setup, check_shares, find_trainings
    from bench.run.plan import check_backbones

    _check(backend, nodes, partition, hours)
    folder = stores.open_store(store)
    trainings = find_trainings(get_table(table), folder, scale)
    count, assumed = _gpus(gpus, backend, scale, dry_run)
    setup = Setup(folder, count, nodes, data_root)
    check_shares(trainings, setup)
    if not trainings:
        raise BenchError(f"{table} has no trainings at {scale} scale: give another --scale")
    missing = [training for training in trainings if training.state != "done"]
    check_backbones([training.experiment for training in missing])
    busy = _busy(missing, setup, backend, dry_run)
    todo = [training for training in missing if training not in busy]
    typer.echo(f"{table} at {scale} scale: {len(trainings)} trainings, {len(trainings) - len(missing)} done, "
               f"{len(busy)} at work, {len(todo)} to start")  # fmt: skip
    for training, what in busy.items():
        typer.echo(f"at work: {training.label}: {what}")
    if not todo:
        return
    steps = _steps(trainings, setup, stores.RESULTS / "reference")
    if dry_run:
        from bench.run.launch.dry_run import describe

        typer.echo(describe(todo, steps, setup))
        if assumed:
            typer.echo(f"\nno GPU here: {ASSUMED_GPUS} a job assumed, --gpus says otherwise")
    elif backend == "slurm":
        _submit(todo, steps, setup, partition, hours or SLURM_HOURS)
    else:
        _run_here(todo, steps, setup, backend)


def _check(backend: str, nodes: int, partition: str | None, hours: float | None) -> None:
    from importlib.util import find_spec

    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    for option, given in (("--nodes", nodes > 1), ("--partition", partition), ("--hours", hours is not None)):
        if given and backend != "slurm":
            raise BenchError(
                f"{option} belongs to Slurm: leave it out with --backend {backend}, or use --backend slurm"
            )
    if hours is not None and not (math.isfinite(hours) and hours > 0):
        raise BenchError(f"--hours must be positive, got {hours:g}")
    if backend == "slurm" and find_spec("submitit") is None:
        raise BenchError("--backend slurm needs submitit: pip install submitit")


def _gpus(given: int | None, backend: str, scale: str, dry_run: bool) -> tuple[int, bool]:
    """GPUs of a job on each node, and whether that was assumed for want of GPUs here."""
    from bench.run.launch.plan import visible_gpus

    if backend == "slurm":
        return (ASSUMED_GPUS if scale == "paper" else 0) if given is None else given, False
    here = len(visible_gpus())
    if given is None and not here and scale == "paper":
        if dry_run:
            return ASSUMED_GPUS, True
        raise BenchError("no CUDA GPU on this machine: use --backend slurm, or --gpus 0 to train on the CPU")
    if given is not None and given > here and not dry_run:
        raise BenchError(f"--gpus {given} asks for more than the {here} GPU(s) of this machine")
    everything = here if scale == "paper" and backend == "torchrun" else min(1, here)
    return everything if given is None else given, False


def _busy(missing: Sequence["Training"], setup: "Setup", backend: str, dry_run: bool) -> dict["Training", str]:
    """Trainings that are at work or queued already."""
    import shutil

    from bench.run.launch.plan import is_claimed
    from bench.run.launch.slurm import queued

    busy = {training: "a process has claimed it" for training in missing if is_claimed(training, setup.store)}
    if backend == "slurm" and (shutil.which("squeue") or not dry_run):
        busy |= {training: f"job {what}" for training, what in queued(missing, setup.store).items()}
    return busy


def _steps(trainings: Sequence["Training"], setup: "Setup", reference: Path) -> dict["Training", "StepTime"]:
    from bench.records import Store
    from bench.run.launch.cost import step_times

    experiments = dict.fromkeys(training.experiment for training in trainings)
    found = step_times(list(experiments), [setup.store, Store(reference)], setup.gpus > 0)
    return {training: found[training.experiment] for training in trainings}


def _wall_seconds(todo: Sequence["Training"], steps: Mapping, setup: "Setup") -> dict["Training", float]:
    from bench.run.launch.cost import device_hours

    return {t: 3600 * device_hours(t.experiment, steps[t]) / setup.processes for t in todo}


def _submit(todo: list["Training"], steps: Mapping, setup: "Setup", partition: str | None, hours: float) -> None:
    from bench.run.launch.plan import log_path
    from bench.run.launch.slurm import submit
    from bench.run.plan import prepare_data

    prepare_data([training.experiment for training in todo], setup.data_root)
    wall = max(_wall_seconds(todo, steps, setup).values()) / 3600
    for training, job in zip(todo, submit(todo, setup, partition, hours, wall), strict=True):
        typer.echo(f"job {job}: {training.label}, log {log_path(training, setup.store)}")
    typer.echo("submitted; the same command shows their state and submits again what ended without a record")


def _run_here(todo: list["Training"], steps: Mapping, setup: "Setup", backend: str) -> None:
    from functools import partial

    from bench.run.launch.plan import visible_gpus
    from bench.run.launch.training_process import TrainingProcess
    from bench.run.plan import prepare_data, workers
    from bench.run.pool import JobPool

    prepare_data([training.experiment for training in todo], setup.data_root)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the jobs save and end
    gpus = visible_gpus() if setup.gpus else []
    several = len(gpus) // setup.gpus if setup.gpus else workers()
    slots = min(several, len(todo)) if backend == "local" else 1
    expected = list(_wall_seconds(todo, steps, setup).items())
    try:
        failures = JobPool([(expected, slots)], start=partial(TrainingProcess, setup=setup, free_gpus=gpus)).run()
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on where it stopped", err=True)
        sys.exit(130)
    if failures:
        raise BenchError(f"{len(failures)} job(s) failed, the same command tries them again: " + "; ".join(failures))
    typer.echo(f"{len(todo)} trained, see 'bench report {todo[0].row.partition('/')[0]} --store {setup.store.path}'")
