"""The command that trains rows and whole tables: `bench launch`."""

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
    from bench.run.launch.sbatch import Resources

BACKENDS = ("torchrun", "local", "slurm")
ASSUMED_GPUS = 8  # of a job at paper scale where no GPU of this machine says otherwise
SLURM_HOURS = 24.0


def launch(
    names: options.RowsAndTables,
    scale: Annotated[
        str | None, typer.Option("--scale", metavar="small|paper", help="Of tables: small (default) or paper; a row "
                                 "has its own.")
    ] = None,
    seeds: Annotated[list[str] | None, typer.Option("--seeds", help="Only these, e.g. 0,1.")] = None,
    methods: Annotated[list[str] | None, typer.Option("--methods", help="Only these, e.g. hcformer,hcformer+.")] = None,
    backbones: Annotated[list[str] | None, typer.Option("--backbones", help="Only these, e.g. r50,swin_s.")] = None,
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
    memory: Annotated[
        int | None, typer.Option("--memory", min=1, metavar="GB", help="Memory of a job on each node (slurm); default: "
                                 "32 a GPU at paper scale, 4 at small scale.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print jobs, cost, and commands or the sbatch script; "
                                          "start nothing.")] = False,
) -> None:  # fmt: skip
    """Train what these rows and tables lack, one job a row and seed. The same command again starts what is missing.

    A job that is stopped saves its checkpoint and is run again; one that fails is named with its log, the rest goes on.
    """
    from bench.run.launch.dry_run import summary
    from bench.run.launch.plan import Setup, check_shares
    from bench.run.launch.sbatch import Resources, default_memory_gb
    from bench.run.launch.selection import select_trainings
    from bench.run.plan import check_backbones

    only_slurm = {"--nodes": nodes > 1, "--partition": partition, "--hours": hours is not None, "--memory": memory}
    _check(backend, only_slurm, hours)
    folder = stores.open_store(store)
    trainings = select_trainings(
        names, folder, scale, _seeds(seeds), _listed(methods, "--methods"), _listed(backbones, "--backbones")
    )
    scale = trainings[0].experiment.scale
    count, assumed = _gpus(gpus, backend, scale, dry_run)
    setup = Setup(folder, count, nodes, data_root)
    check_shares(trainings, setup)
    missing = [training for training in trainings if training.state != "done"]
    check_backbones([training.experiment for training in missing])
    busy = _busy(missing, setup, backend, dry_run)
    todo = [training for training in missing if training not in busy]
    steps = _steps(todo, setup, stores.RESULTS / "reference") if todo else {}
    if todo:
        typer.echo(summary(todo, steps, setup))
    typer.echo(f"{' '.join(names)} at {scale} scale: {len(trainings)} trainings, {len(trainings) - len(missing)} done, "
               f"{len(busy)} at work, {len(todo)} to start")  # fmt: skip
    for training, what in busy.items():
        typer.echo(f"at work: {training.label}: {what}")
    if not todo:
        return
    resources = Resources(hours or SLURM_HOURS, memory or default_memory_gb(setup, scale), partition)
    if dry_run:
        _show(todo, steps, setup, resources if backend == "slurm" else None)
        if assumed:
            typer.echo(f"\nno GPU here: {ASSUMED_GPUS} a job assumed, --gpus says otherwise")
    elif backend == "slurm":
        _submit(todo, steps, setup, resources)
    else:
        _run_here(todo, steps, setup, backend)


def _listed(given: Sequence[str] | None, option: str) -> list[str]:
    """The values of an option that takes several, between commas or given again; none where it was not given."""
    values = [value.strip() for text in given or () for value in text.split(",") if value.strip()]
    if given and not values:
        raise BenchError(f"{option} has no value: name some, or leave it out for all")
    return values


def _seeds(given: Sequence[str] | None) -> list[int]:
    values = _listed(given, "--seeds")
    if bad := [value for value in values if not value.isdecimal()]:
        raise BenchError(f"--seeds takes whole numbers, e.g. 0,1, not '{bad[0]}'")
    return [int(value) for value in values]


def _check(backend: str, only_slurm: Mapping[str, object], hours: float | None) -> None:
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    for option, given in only_slurm.items():
        if given and backend != "slurm":
            raise BenchError(
                f"{option} belongs to Slurm: leave it out with --backend {backend}, or use --backend slurm"
            )
    if hours is not None and not (math.isfinite(hours) and hours > 0):
        raise BenchError(f"--hours must be positive, got {hours:g}")


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


def _steps(todo: Sequence["Training"], setup: "Setup", reference: Path) -> dict["Training", "StepTime"]:
    """Also from what is known of other rows of their tables."""
    from bench.experiments.tables import get_table, row_names
    from bench.records import Store
    from bench.run.launch.cost import step_times

    wanted = dict.fromkeys(training.experiment for training in todo)
    scales = {experiment.scale for experiment in wanted}
    tables = dict.fromkeys(training.row.partition("/")[0] for training in todo)
    beside = (e for name in tables for e in row_names(get_table(name)).values() if e.scale in scales)
    found = step_times(list(wanted | dict.fromkeys(beside)), [setup.store, Store(reference)], setup.gpus > 0)
    return {training: found[training.experiment] for training in todo}


def _wall_seconds(todo: Sequence["Training"], steps: Mapping, setup: "Setup") -> dict["Training", float]:
    from bench.run.launch.cost import device_hours

    return {t: 3600 * device_hours(t.experiment, steps[t]) / setup.processes for t in todo}


def _script(todo: Sequence["Training"], steps: Mapping, setup: "Setup", resources: "Resources") -> str:
    from bench.run.launch.sbatch import sbatch_script

    return sbatch_script(todo, setup, resources, max(_wall_seconds(todo, steps, setup).values()) / 3600)


def _show(todo: Sequence["Training"], steps: Mapping, setup: "Setup", slurm: "Resources | None") -> None:
    """What a dry run adds: the models with their cost, and the commands, or of Slurm the script that has them."""
    from bench.run.launch.dry_run import command_lines, model_table

    typer.echo(f"\n{model_table(todo, steps, setup)}\n")
    if slurm is None:
        typer.echo(command_lines(todo, setup))
        return
    per = slurm.memory_gb / max(1, setup.gpus)
    typer.echo(f"Each job: {setup.nodes} node(s) with {setup.gpus} GPU(s) and {slurm.memory_gb} GB of memory, {per:g} "
               f"a process and its loaders (--memory); requeued after {slurm.hours:g} h (--hours).\n")  # fmt: skip
    typer.echo(_script(todo, steps, setup, slurm))


def _submit(todo: list["Training"], steps: Mapping, setup: "Setup", resources: "Resources") -> None:
    from bench.run.launch.plan import log_path
    from bench.run.launch.slurm import submit
    from bench.run.plan import prepare_data

    prepare_data([training.experiment for training in todo], setup.data_root)
    jobs = submit(_script(todo, steps, setup, resources), todo, setup)
    for training, job in zip(todo, jobs, strict=True):
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
