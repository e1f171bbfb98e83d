"""What a Slurm job does: run the training's command, pass signals on, and have it run again on exit code 75.

submitit pickles and calls `SlurmTraining`. Signals: submitit's own (USR2, which Slurm sends before the time limit) and
SIGTERM (preemption) both reach the training as SIGTERM; it saves its checkpoint and exits 75, and the job is requeued
through submitit.
"""

import signal
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.run.jobs import TRY_AGAIN
from bench.run.launch.plan import Setup, Training, command
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


@dataclass(frozen=True)
class SlurmTraining:
    """The callable of a submitit job. requeues: how often it may still be run again. Raises RuntimeError on failure."""

    training: Training
    setup: Setup
    log: Path
    variables: Mapping[str, str]
    requeues: int

    def __call__(self) -> None:
        import submitit

        job = submitit.JobEnvironment()
        usr = getattr(signal, f"SIG{job.USR_SIG}")
        log = self.log if job.global_rank == 0 else self.log.with_stem(f"{self.log.stem}-node{job.node}")
        port = 20_000 + zlib.crc32(job.job_id.encode()) % 20_000
        arguments = command(self.training, self.setup, job.hostnames[0], port, job.job_id)
        process = start_training(arguments, log, self.variables)
        with forwarding(process, signal.SIGTERM, usr) as came:
            code = process.wait()
        if code == 0:
            return
        if code != TRY_AGAIN and not (came and code == -signal.SIGTERM):  # a signal before it could listen
            raise RuntimeError(f"{self.training.label} ended with code {code}, see {log}")
        if signal.SIGTERM in came and is_ended(job.job_id):
            write_note(log, "stopped, to go on with the next launch")
            raise SystemExit(TRY_AGAIN)
        if self.requeues == 0:
            write_note(log, "stopped, and requeued too often already: launch again to go on")
            raise SystemExit(TRY_AGAIN)
        write_note(log, f"stopped, requeued ({self.requeues - 1} more times allowed)")
        signal.raise_signal(usr)  # submitit's handler: calls `checkpoint`, requeues and exits; other ranks go on
        raise SystemExit(TRY_AGAIN)

    def checkpoint(self):
        """What submitit runs after the requeue."""
        import submitit

        return submitit.helpers.DelayedSubmission(replace(self, requeues=self.requeues - 1))


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
