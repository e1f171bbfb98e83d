"""Subprocesses of a run, a few at a time, with one progress display and an estimate for the whole plan."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench.records import Store
from bench.run.jobs import Job

Stage = tuple[list[tuple[Job, float]], int]  # jobs with their estimates in seconds, and how many run at a time
PLAIN_REPORT_SECONDS = 20.0
# glibc then keeps the memory of freed tensors instead of returning it at every step: up to a tenth of the time.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "67108864"}


@dataclass
class Running:
    """A job's subprocess; `fraction` is what it said it has done, None before it says anything."""

    job: Job
    estimate_s: float
    process: subprocess.Popen
    log: Path
    task: TaskID
    fraction: float | None = None
    error: str | None = None
    finished: bool = False
    buffer: bytes = field(default=b"")


class JobPool:
    """Runs stages one after the other, the jobs of a stage side by side. A failing job does not stop the others.

    When this process ends, however it ends, its jobs end too: each watches its standard input.
    """

    def __init__(self, stages: list[Stage], store: Store, quiet: bool = False):
        self._stages = stages
        self._store = store
        self._clock = Estimator(stages)
        self._console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("{task.fields[note]}", markup=False), console=self._console,
        )  # fmt: skip
        self._selector = selectors.DefaultSelector()
        self._running: list[Running] = []
        self._failures: list[str] = []
        self._last_plain = 0.0

    def run(self, page: Callable[[], str] | None = None) -> list[str]:
        """Run all jobs; returns one line for each that failed. A KeyboardInterrupt ends the jobs and goes on up.

        page: what is known so far, printed where a stage has ended and another one follows.
        """
        count = sum(len(jobs) for jobs, _ in self._stages)
        with self._progress:
            self._total = self._progress.add_task(f"all {count} jobs", total=1.0, note="")
            try:
                for number, (jobs, slots) in enumerate(self._stages):
                    self._clock.begin(number)
                    self._run_stage(list(jobs), slots)
                    if page and jobs and any(later for later, _ in self._stages[number + 1 :]):
                        self._print(page())
            finally:
                for running in self._running:
                    running.process.kill()
                    running.process.wait()
        return self._failures

    def _run_stage(self, waiting: list[tuple[Job, float]], slots: int) -> None:
        while waiting or self._running:
            while waiting and len(self._running) < slots:
                self._start(*waiting.pop(0))
            for key, _ in self._selector.select(timeout=1.0):
                self._read(key.data)
            self._show()

    def _start(self, job: Job, estimate_s: float) -> None:
        log = self._store.scratch_dir(job.experiments[0], job.kind, job.seed) / "log.txt"
        environment = dict(os.environ)
        if job.kind not in ("latency", "released"):  # those run alone and get all cores; the others get a core each:
            # faster than sharing them, and the same bits on any number of cores
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment |= KEEP_MEMORY
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.run.jobs", job.to_json()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment,
            )  # fmt: skip
        os.set_blocking(process.stdout.fileno(), False)
        running = Running(job, estimate_s, process, log, self._progress.add_task(job.label, total=1.0, note="starting"))
        self._selector.register(process.stdout, selectors.EVENT_READ, running)
        self._running.append(running)

    def _read(self, running: Running) -> None:
        chunk = running.process.stdout.read()
        if chunk:
            *lines, running.buffer = (running.buffer + chunk).split(b"\n")
            for line in lines:
                self._message(running, line)
        elif chunk == b"":
            self._end(running)

    def _message(self, running: Running, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return  # a library printed something
        if not isinstance(message, dict):
            return
        running.error = message.get("error", running.error)
        running.finished = message.get("finished", running.finished)
        if message.get("total") and {"done", "label"} <= message.keys():
            fraction = min(1.0, message["done"] / message["total"])
            if running.fraction is None:  # what an earlier, killed run had done took no time of this one
                self._clock.skip(running.estimate_s * fraction)
            running.fraction = fraction
            self._progress.update(running.task, completed=running.fraction, note=message["label"])

    def _end(self, running: Running) -> None:
        self._selector.unregister(running.process.stdout)
        code = running.process.wait()
        running.process.stdin.close()
        running.process.stdout.close()
        self._running.remove(running)
        self._progress.remove_task(running.task)
        self._clock.finish(running.estimate_s)
        if running.finished and code == 0:
            self._print(f"done: {running.job.label}")
            return
        reason = running.error or f"ended with code {code}, see {running.log}"
        self._failures.append(f"{running.job.label}: {reason}")
        self._print(f"failed: {running.job.label}: {reason}", style="red")

    def _show(self) -> None:
        active = sum(r.estimate_s * (r.fraction or 0.0) for r in self._running)
        fraction, remaining = self._clock.estimate(active)
        note = f"about {_duration(remaining)} left"
        self._progress.update(self._total, completed=fraction, note=note)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_plain > PLAIN_REPORT_SECONDS:
            self._last_plain = now
            doing = "; ".join(f"{r.job.label} {r.fraction or 0:.0%}" for r in self._running)
            self._print(f"{fraction:.0%} of the plan, {note}: {doing}")

    def _print(self, line: str, style: str | None = None) -> None:
        """One line as it is: neither wrapped nor read as markup, which a path in brackets would be."""
        self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class Estimator:
    """Remaining time of a plan: the estimates of what is left over the slots, scaled by how this run compares."""

    def __init__(self, stages: list[Stage]):
        self._wall = [sum(estimate for _, estimate in jobs) / slots for jobs, slots in stages]
        self._slots = [slots for _, slots in stages]
        self._finished = 0.0
        self._skipped = 0.0
        self._stage = 0
        self._start = time.monotonic()

    def begin(self, stage: int) -> None:
        """All stages before that one have ended."""
        self._stage, self._finished = stage, 0.0

    def finish(self, estimate_s: float) -> None:
        """A job of that estimate has ended, in the present stage."""
        self._finished += estimate_s

    def skip(self, estimate_s: float) -> None:
        """So much of a job of the present stage was done before this run: it counts as done, not for the pace."""
        self._skipped += estimate_s / self._slots[self._stage]

    def estimate(self, active_s: float) -> tuple[float, float]:
        """Share of the plan done and seconds left; active_s: the estimated seconds done of the running jobs."""
        done = sum(self._wall[: self._stage]) + (self._finished + active_s) / self._slots[self._stage]
        total = sum(self._wall)
        elapsed = time.monotonic() - self._start
        work = done - self._skipped
        pace = elapsed / work if work > 0.05 * total else 1.0  # this machine's seconds for an estimated one
        return min(1.0, done / total) if total else 1.0, max(0.0, total - done) * pace


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
