"""What a Slurm job does: run the training's command, pass signals on, and have it run again on exit code 75.

`srun python -m bench.run.launch.slurm_job --requeues N --log FILE -- COMMAND`, once a node. Signals: USR2, which Slurm
sends before the time limit, and SIGTERM (preemption) both reach the training as SIGTERM; it saves its checkpoint and
exits 75, and the first node has the job requeued.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.errors import one_line
from bench.run.jobs import TRY_AGAIN
from bench.run.launch.training_process import start_training, write_note


@contextmanager
def forwarding(process: subprocess.Popen, *signals: int) -> Iterator[set[int]]:
    """While inside, these signals reach the process as SIGTERM; yields the set of those that came."""
    came: set[int] = set()

    def forward(number: int, _) -> None:
        came.add(number)
        process.terminate()

    before = {number: signal.signal(number, forward) for number in signals}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_task(command: Sequence[str], log: Path, requeues: int) -> int:
    """The exit code of this node's part of the training. requeues: how often the job may be run again in all."""
    node = int(os.environ.get("SLURM_PROCID", "0"))
    log = log.with_stem(f"{log.stem}-node{node}") if node else log
    process = start_training(list(command), log, {})
    with forwarding(process, signal.SIGTERM, signal.SIGUSR2) as came:
        code = process.wait()
    stopped = code == TRY_AGAIN or (came and code == -signal.SIGTERM)  # a signal before it could listen
    if stopped and node == 0:
        _run_again(log, requeues, ended=signal.SIGTERM in came)
    elif code and not stopped:
        sys.stderr.write(f"{' '.join(command)} ended with code {code}, see {log}\n")
    return TRY_AGAIN if stopped else code if code >= 0 else 128 - code


def _run_again(log: Path, requeues: int, ended: bool) -> None:
    """Have the job requeued where that is allowed, and say so. ended: Slurm may have ended it for good."""
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    left = requeues - int(os.environ.get("SLURM_RESTART_COUNT", "0")) - 1
    if ended and is_ended(job):
        write_note(log, "stopped, to go on with the next launch")
        return
    if left < 0:
        write_note(log, "stopped, and requeued too often already: launch again to go on")
        return
    write_note(log, f"stopped, requeued ({left} more times allowed)")  # before Slurm ends this process, too
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        said = done.returncode and (" ".join(done.stderr.split()) or f"exit code {done.returncode}")
    except (OSError, subprocess.SubprocessError) as error:
        said = one_line(error)
    if said:
        write_note(log, f"not requeued after all ({said}): launch again to go on")


def is_ended(job: str) -> bool:
    """Whether Slurm already decided about this job: cancelled by its user, or being requeued by Slurm itself.

    A preempted job is still RUNNING in its grace time, a cancelled one is not.
    """
    query = ["squeue", "--noheader", "--jobs", job, "--format", "%T"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and "RUNNING" not in done.stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requeues", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    sys.exit(run_task(given.command, given.log, given.requeues))


if __name__ == "__main__":
    main()
