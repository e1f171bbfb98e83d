"""Jobs on this machine: one after the other (`Direct`), or several at once through submitit's local executor."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from bench.run.jobs import TRY_AGAIN
from bench.run.launch.plan import Setup, Training, command, environment, is_claimed, log_path, read_failure
from bench.run.launch.supervisor import STOP, Supervised, note, start

REQUEUES = 5  # submitit's local executor starts a job six times at most
STOP_SECONDS = 120.0  # for the checkpoint of a job that is told to stop
POLL_SECONDS = 0.5
FOREVER_MIN = 60 * 24 * 365


class Job(Protocol):
    """A training that was started here."""

    def ended(self) -> bool: ...

    def stop(self) -> None:
        """Ask the training to save and end; it is not run again."""


class Direct:
    """A training as a child of this process, run again when it exits 75."""

    def __init__(self, training: Training, setup: Setup, variables: dict[str, str]):
        self._log = log_path(training, setup.store)
        self._start = partial(start, command(training, setup), self._log, variables)
        self._requeues = REQUEUES
        self._process = self._start()

    def ended(self) -> bool:
        code = self._process.poll()
        if code == TRY_AGAIN and self._requeues:
            self._requeues -= 1
            note(self._log, f"stopped, requeued ({self._requeues} more times allowed)")
            self._process = self._start()
            return False
        return code is not None

    def stop(self) -> None:
        self._requeues = 0
        self._process.terminate()


class Submitted:
    """A training under submitit's local executor, which runs it again when it asks for that."""

    def __init__(self, training: Training, setup: Setup, variables: dict[str, str]):
        import submitit

        self._log = log_path(training, setup.store)
        self._log.with_name(STOP).unlink(missing_ok=True)
        executor = submitit.LocalExecutor(setup.store.path.resolve() / "work" / "submitit")
        executor.update_parameters(timeout_min=FOREVER_MIN)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for this process, which stops them
        try:
            self._job = executor.submit(Supervised(training, setup, self._log, variables, REQUEUES))
        finally:
            signal.signal(signal.SIGINT, before)

    def ended(self) -> bool:
        if not self._job.done():
            return False
        for path in (self._job.paths.submitted_pickle, self._job.paths.result_pickle):
            path.unlink(missing_ok=True)  # the store tells what came of it
        return True

    def stop(self) -> None:
        self._log.with_name(STOP).touch()
        os.kill(int(self._job.job_id), signal.SIGTERM)  # of the executor's own process, which passes it on


@dataclass
class Running:
    training: Training
    job: Job
    gpus: list[str]
    log: Path
    log_start: int


class Here:
    """Runs trainings in `slots` at a time, each with its share of `gpus`. A failing one does not stop the others."""

    def __init__(
        self, setup: Setup, kind: type[Direct] | type[Submitted], slots: int, gpus: Sequence[str],
        report: Callable[[str, Training, str], None],
    ):  # fmt: skip
        """report: called with "started", "done" or "failed", the training, and for "failed" the reason."""
        self._setup, self._kind, self._slots, self._report = setup, kind, slots, report
        self._free = list(gpus)
        self.running: list[Running] = []

    def run(self, trainings: Sequence[Training], tick: Callable[[], None]) -> list[str]:
        """Run all; returns one line for each that failed. Calls `tick` about twice a second.

        Left by an exception (KeyboardInterrupt, SystemExit), it first lets the running ones save their checkpoints.
        """
        waiting, failures = list(trainings), []
        try:
            while waiting or self.running:
                while waiting and len(self.running) < self._slots:
                    self._start(waiting.pop(0))
                for running in [r for r in self.running if r.job.ended()]:
                    failures += self._end(running)
                tick()
                time.sleep(POLL_SECONDS)
        finally:
            self._stop()
        return failures

    def _start(self, training: Training) -> None:
        taken, self._free = self._free[: self._setup.gpus], self._free[self._setup.gpus :]
        log = log_path(training, self._setup.store)
        log_start = log.stat().st_size if log.exists() else 0
        job = self._kind(training, self._setup, environment(self._setup, taken))
        self.running.append(Running(training, job, taken, log, log_start))
        self._report("started", training, "")

    def _end(self, running: Running) -> list[str]:
        self.running.remove(running)
        self._free += running.gpus
        training = running.training
        if self._setup.store.state(training.experiment, "accuracy", training.seed) == "done":
            self._report("done", training, "")
            return []
        said = read_failure(running.log, running.log_start)
        reason = f"{said} ({running.log})" if said else f"ended without a record, see {running.log}"
        self._report("failed", training, reason)
        return [f"{training.label}: {reason}"]

    def _stop(self) -> None:
        for running in self.running:
            running.job.stop()
        end = time.monotonic() + STOP_SECONDS
        while self.running and time.monotonic() < end:
            self.running = [
                r for r in self.running if not r.job.ended() or is_claimed(r.training, self._setup.store)
            ]  # fmt: skip
            time.sleep(POLL_SECONDS)
