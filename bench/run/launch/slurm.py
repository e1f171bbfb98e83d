"""Jobs on a Slurm cluster: one job array through submitit, and what became of the jobs of earlier launches.

The checkout, the store and the data must be on file systems that the nodes share.
"""

import json
import math
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO

from bench.errors import BenchError, one_line
from bench.files import write_atomically
from bench.records import Store
from bench.run.launch.plan import Setup, Training, environment, log_path, work_folder
from bench.run.launch.slurm_job import SlurmTraining

NAME = "hcformer-bench"  # of the jobs, by which they are found again
NOTE = "slurm.json"  # in a training's work folder: the id of its job
CPUS_PER_GPU = 8  # for reading and augmenting images
SAVE_SECONDS = 180  # before the time limit, for the checkpoint
SPARE_REQUEUES = 20  # beyond those that the time limit makes necessary


def submit(trainings: Sequence[Training], setup: Setup, partition: str | None, hours: float, wall_hours: float) -> list:
    """Submit one array of the trainings; returns their job ids.

    hours: time limit of a job, after which it is requeued. wall_hours: what the longest training needs, which decides
    how often. Raises BenchError where Slurm is missing or refuses.
    """
    import submitit

    requeues = SPARE_REQUEUES + 2 * math.ceil(wall_hours / hours)
    folder = setup.store.path.resolve() / "work" / "submitit"
    tasks = []
    for training in trainings:
        log = log_path(training, setup.store).resolve()
        tasks.append(SlurmTraining(training, setup, log, environment(setup), requeues))
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=requeues)
        executor.update_parameters(**parameters(setup, partition, hours))
        # Also from within a job; sbatch's complaint, which submitit prints, is in the error.
        with submitit.helpers.clean_env(), redirect_stderr(StringIO()):
            jobs = executor.submit_array(tasks)
    except (RuntimeError, OSError) as error:
        if "srun" in str(error):
            raise BenchError("no Slurm here (srun is not found): log in where jobs are submitted, or use --backend "
                             "torchrun or local") from None  # fmt: skip
        raise BenchError(f"sbatch refused the jobs ({one_line(error)}): check --partition, --gpus, --hours") from error
    for job, task in zip(jobs, tasks, strict=True):
        write_atomically(task.log.with_name(NOTE), json.dumps({"job": job.job_id}) + "\n")
    return [job.job_id for job in jobs]


def parameters(setup: Setup, partition: str | None, hours: float) -> dict:
    """What submitit's AutoExecutor turns into #SBATCH lines: one task a node, which starts that node's processes."""
    return {
        "name": NAME,
        "timeout_min": math.ceil(hours * 60),
        "nodes": setup.nodes,
        "tasks_per_node": 1,
        "cpus_per_task": CPUS_PER_GPU * max(1, setup.gpus),
        "gpus_per_node": setup.gpus or None,
        "slurm_partition": partition,
        "slurm_signal_delay_s": SAVE_SECONDS,
        "slurm_additional_parameters": {"requeue": True},
    }


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
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BenchError(f"{path} is damaged ({one_line(error)}): delete it and launch again") from error
