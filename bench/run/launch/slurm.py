"""Jobs on a Slurm cluster: submitting a script, and what became of the jobs of earlier launches.

The checkout, the store and the data must be on file systems that the nodes share.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence

from bench.errors import BenchError, one_line
from bench.files import write_atomically
from bench.records import Store
from bench.run.launch.plan import Setup, Training, log_path, work_folder
from bench.run.launch.sbatch import NAME, output_folder

NOTE = "slurm.json"  # in a training's work folder: the id of its job
# Of the job that a launch itself runs in: the new ones must not inherit it. SBATCH_* stay, as a user's own defaults.
OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
CONFIGURATION = "SLURM_CONF"


def submit(script: str, trainings: Sequence[Training], setup: Setup) -> list[str]:
    """Submit the array of these trainings; returns their job ids. Raises BenchError where Slurm is missing or
    refuses."""
    if shutil.which("sbatch") is None:
        raise BenchError("no Slurm here (sbatch is not found): log in where jobs are submitted, or use --backend "
                         "torchrun or local")  # fmt: skip
    for training in trainings:
        log_path(training, setup.store)  # its folder
    output_folder(setup).mkdir(parents=True, exist_ok=True)  # where it is missing, Slurm fails the jobs in silence
    inherited = {k: v for k, v in os.environ.items() if k == CONFIGURATION or not k.startswith(OF_A_JOB)}
    done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True, env=inherited)
    array = done.stdout.strip().partition(";")[0]  # "JOB;CLUSTER" where there are several
    if done.returncode or not array.isdigit():
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise BenchError(f"sbatch refused the jobs ({said}): check --partition, --gpus, --hours, --memory")
    jobs = [f"{array}_{index}" for index in range(len(trainings))]
    for job, training in zip(jobs, trainings, strict=True):
        write_atomically(work_folder(training, setup.store) / NOTE, json.dumps({"job": job}) + "\n")
    return jobs


def queued(trainings: Sequence[Training], store: Store) -> dict[Training, str]:
    """The trainings that earlier launches submitted and Slurm still has, each with "JOB STATE"."""
    notes = {training: _noted(training, store) for training in trainings}
    if not any(notes.values()):
        return {}
    query = ["squeue", "--noheader", "--array", "--name", NAME, "--format", "%i|%T"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except FileNotFoundError:
        raise BenchError("no Slurm here (squeue is not found): log in where jobs are submitted") from None
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or "").strip() or one_line(error)
        raise BenchError(f"squeue does not answer ({' '.join(said.split())}): try again later") from error
    states = dict(line.strip().split("|", 1) for line in listing.splitlines() if "|" in line)
    return {training: f"{job} {states[job].lower()}" for training, job in notes.items() if job in states}


def _noted(training: Training, store: Store) -> str | None:
    path = work_folder(training, store) / NOTE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return str(values["job"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BenchError(f"{path} is damaged ({one_line(error)}): delete it and launch again") from error
