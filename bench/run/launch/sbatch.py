"""The sbatch script of a launch: one job array, a task a training. What a dry run prints is what is submitted."""

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.run.launch.plan import LOG, Setup, Training, command, environment, work_folder

NAME = "hcformer-bench"  # of the jobs, by which they are found again
CPUS_PER_GPU = 8  # for reading and augmenting images
SAVE_SECONDS = 180  # before the time limit, for the checkpoint
SPARE_REQUEUES = 20  # beyond those that the time limit makes necessary
# GB of main memory for each process of a training, by scale. Paper: PyTorch with CUDA about 5, COCO's annotations up to
# 4, as much again with images and masks for the 7 loaders, and all that doubled. Small: three times Mask2Former's 1.3.
MEMORY_GB = {"paper": 32, "small": 4}


@dataclass(frozen=True)
class Resources:
    """What every job asks of Slurm beside its GPUs: hours until it is requeued; memory_gb: of each node."""

    hours: float
    memory_gb: int
    partition: str | None = None


def default_memory_gb(setup: Setup, scale: str) -> int:
    """GB of a node for the processes that a job has on it."""
    return MEMORY_GB[scale] * max(1, setup.gpus)


def output_folder(setup: Setup) -> Path:
    """What the jobs themselves say; a training's own output is in its log."""
    return setup.store.path.resolve() / "work" / "slurm"


def sbatch_script(trainings: Sequence[Training], setup: Setup, resources: Resources, wall_hours: float) -> str:
    """The whole text. wall_hours: what the longest training needs, which decides how often one may be requeued."""
    cpus = CPUS_PER_GPU * max(1, setup.gpus)
    output = str(output_folder(setup)).replace("%", "%%") + "/%A_%a.txt"
    options = {
        "job-name": NAME,
        "array": f"0-{len(trainings) - 1}",
        "partition": resources.partition,
        "nodes": setup.nodes,
        "ntasks-per-node": 1,  # which starts that node's processes
        "gpus-per-node": setup.gpus or None,
        "cpus-per-task": cpus,
        "mem": f"{resources.memory_gb}G",
        "time": math.ceil(60 * resources.hours),  # minutes
        "signal": f"USR2@{SAVE_SECONDS}",  # to save before the limit
        "chdir": Path.cwd(),
        "output": output,
        "open-mode": "append",
    }
    lines = [f"#SBATCH --{name}={shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    requeues = SPARE_REQUEUES + 2 * math.ceil(wall_hours / resources.hours)
    wrapper = shlex.join([sys.executable, "-m", "bench.run.launch.slurm_job", "--requeues", str(requeues)])
    return "\n".join(
        [
            "#!/bin/bash", *lines, "#SBATCH --requeue", "",
            *(f"export {name}={shlex.quote(value)}" for name, value in environment(setup).items()),
            *(_MEETING if setup.nodes > 1 else ()),
            "case $SLURM_ARRAY_TASK_ID in",
            *(line for index, training in enumerate(trainings) for line in _task(index, training, setup)),
            "esac",
            f'exec srun --cpus-per-task={cpus} {wrapper} --log "$log" -- "${{training[@]}}"',
            "",
        ]
    )  # fmt: skip


_MEETING = (  # of a job's nodes
    'HEAD_NODE=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    "PORT=$((20000 + SLURM_JOB_ID % 20000))",
)


def _task(index: int, training: Training, setup: Setup) -> tuple[str, ...]:
    arguments = command(training, setup, "$HEAD_NODE", "$PORT", "$SLURM_JOB_ID")
    words = (f'"{word}"' if word.startswith("$") else shlex.quote(word) for word in arguments)
    log = (work_folder(training, setup.store) / LOG).resolve()
    return f"{index})", f"  log={shlex.quote(str(log))}", f"  training=({' '.join(words)}) ;;"
