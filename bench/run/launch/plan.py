"""Which trainings a table still lacks, and the command of each."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.experiments.experiment import Experiment
from bench.experiments.recipe import recipe_for
from bench.experiments.tables import PaperTable, names_for_find_row
from bench.records import Store
from bench.run.plan import plan
from bench.run.pool import KEEP_MEMORY
from bench.training.shares import check_division, images_at_once, share_length

ENTRY = ("-m", "bench", "train")  # what python runs
LOG = "log.txt"  # in a training's work folder: what its process says
STEPS = "log.jsonl"  # beside it: one line a step, by bench.training.progress, which imports torch


@dataclass(frozen=True)
class Training:
    """One job: a row of a table by its name and one seed. `state`: "missing", "stale" or "done" in the store."""

    row: str
    experiment: Experiment
    seed: int
    state: str

    @property
    def label(self) -> str:
        return f"{self.row} seed {self.seed}"


@dataclass(frozen=True)
class Setup:
    """How every job of a launch runs. gpus: of each node, 0 for the CPU. entry: what python runs, before the row."""

    store: Store
    gpus: int = 0
    nodes: int = 1
    data_root: Path | None = None
    entry: tuple[str, ...] = ENTRY

    @property
    def processes(self) -> int:
        return max(1, self.gpus) * self.nodes


def find_trainings(table: PaperTable, store: Store, scale: str) -> list[Training]:
    """The table's trainings at that scale, in its order. Raises BenchError for a damaged record."""
    names = names_for_find_row(table)
    return [
        Training(names[p.measurement.experiment], p.measurement.experiment, p.measurement.seed, p.state)
        for p in plan(table, store, scale)
        if p.measurement.kind == "accuracy"
    ]


def command(
    training: Training, setup: Setup, head: str = "HEAD_NODE", port: int | str = 29500, job: str = "JOB"
) -> list[str]:
    """Arguments of the job's process on one node; several GPUs or nodes go through torchrun.

    head, port, job: where the nodes of a job meet and its id, which only the job itself knows.
    """
    arguments = [*setup.entry, training.row, "--seed", str(training.seed), "--store", str(setup.store.path.resolve())]
    if setup.data_root is not None:
        arguments += ["--data-root", str(setup.data_root.resolve())]
    at_once = images_at_once(training.experiment)
    if at_once and share_length(recipe_for(training.experiment).batch_size, setup.processes) > at_once:
        arguments += ["--micro-batch", str(at_once)]
    if setup.processes == 1:
        return [sys.executable, *arguments]
    meeting = ["--standalone"]
    if setup.nodes > 1:
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{head}:{port}", "--rdzv-id", job]
    size = ["--nnodes", str(setup.nodes), "--nproc-per-node", str(max(1, setup.gpus))]
    return [sys.executable, "-m", "bench.run.launch.torchrun", *meeting, *size, *arguments]


def environment(setup: Setup, gpus: list[str] | None = None) -> dict[str, str]:
    """Variables to set for a job. gpus: those of this machine that it gets, None where the scheduler says which."""
    if setup.gpus == 0:  # as in `bench run`: one core a training, and the same bits on any number of cores
        return {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | KEEP_MEMORY
    return {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def log_path(training: Training, store: Store) -> Path:
    """Where a training's output goes; its folder is created."""
    return store.scratch_dir(training.experiment, "accuracy", training.seed) / LOG


def check_shares(trainings: Sequence[Training], setup: Setup) -> None:
    """Raises BenchError where the processes of a job could not train as the recipe says."""
    for training in trainings:
        try:
            check_division(training.experiment, setup.processes, images_at_once(training.experiment))
        except BenchError as error:
            raise BenchError(f"{training.row}: {error} (--gpus times --nodes)") from error


def work_folder(training: Training, store: Store) -> Path:
    return store.work_path(training.experiment, "accuracy", training.seed)


def is_claimed(training: Training, store: Store) -> bool:
    """Whether some process is at this training now. Creates nothing."""
    if not (work_folder(training, store) / ".lock").exists():
        return False
    with store.claim(training.experiment, "accuracy", training.seed) as mine:
        return not mine


def fraction_done(training: Training, store: Store) -> float | None:
    """Share of its iterations that a training has logged, None before the first."""
    try:
        with (work_folder(training, store) / STEPS).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            last = json.loads(file.read().splitlines()[-1])
        return min(1.0, last["iteration"] / last["iterations"])
    except (OSError, ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, RecursionError):
        return None  # not there yet, or a line that is being written


def visible_gpus() -> list[str]:
    """The CUDA devices of this process as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(index) for index in range(count)])[:count]


def read_failure(log: Path, start: int = 0) -> str:
    """What a log says after byte `start` about a failure: its last line where that is this program's own error."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        raise BenchError(f"cannot read {log} ({error.strerror}): check its permissions") from error
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else ""
