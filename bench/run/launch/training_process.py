"""A training of a launch as a process of this machine, for `JobPool`: told to stop it saves its state."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.run.jobs import TRY_AGAIN
from bench.run.launch.plan import (
    Setup,
    Training,
    command,
    environment,
    fraction_done,
    is_claimed,
    log_path,
    read_failure,
)

REQUEUES = 5


class TrainingProcess:
    """`bench train`, through torchrun where it takes several GPUs. Its output goes to its log, which is appended to.

    free_gpus: of this machine; the training takes its share from that list and gives it back when it ends.
    """

    note = ""

    def __init__(self, training: Training, setup: Setup, free_gpus: list[str]):
        self.label, self._training, self._setup, self._free_gpus = training.label, training, setup, free_gpus
        self._log = log_path(training, setup.store)
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        self._gpus = free_gpus[: setup.gpus]
        del free_gpus[: setup.gpus]
        self._requeues = REQUEUES
        self._start()

    def _start(self) -> None:
        variables = environment(self._setup, self._gpus)
        self._process = start_training(command(self._training, self._setup), self._log, variables)

    def poll(self) -> int | None:
        code = self._process.poll()
        if code == TRY_AGAIN and self._requeues:
            self._requeues -= 1
            write_note(self._log, f"stopped, requeued ({self._requeues} more times allowed)")
            self._start()
            return None
        if code is None or is_claimed(self._training, self._setup.store):  # by one of several processes
            return None
        self._free_gpus += self._gpus
        self._gpus = []
        return code

    def fraction(self) -> float | None:
        return fraction_done(self._training, self._setup.store)

    def failure(self) -> str:
        if self._setup.store.state(self._training.experiment, "accuracy", self._training.seed) == "done":
            return ""
        said = read_failure(self._log, self._log_start)
        return f"{said} ({self._log})" if said else f"ended without a record, see {self._log}"

    def stop(self) -> None:
        self._requeues = 0
        self._process.terminate()


def start_training(arguments: list[str], log: Path, variables: Mapping[str, str]) -> subprocess.Popen:
    """Start the command in a session of its own, so that Ctrl-C reaches only who passes it on. Its log is appended to.

    The training is shielded from Slurm's signal before the time limit, which reaches every process of a job.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **variables}, preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
        )  # fmt: skip


def write_note(log: Path, text: str) -> None:
    """A line of the launch's own in a job's log."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"launch: {text}\n")
