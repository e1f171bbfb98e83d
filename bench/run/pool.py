"""Subprocesses of a run, a few at a time, with one progress display and an estimate for the whole plan."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench.records import Store
from bench.run.jobs import Job

Stage = tuple[list[tuple[Any, float]], int]  # what is started, with estimates in seconds, and how many run at a time
POLL_SECONDS = 0.1
STOP_SECONDS = 120.0  # for the checkpoints of what is told to stop
PLAIN_REPORT_SECONDS = 20.0
# glibc then keeps the memory of freed tensors instead of returning it at every step: up to a tenth of the time.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "67108864"}


class Process(Protocol):
    """Something that was started; `JobProcess`, or a training of a launch."""

    label: str
    note: str  # what it is doing

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""

    def fraction(self) -> float | None:
        """The share of its work that is done, None while that is not known."""

    def failure(self) -> str:
        """Why it failed, once it has ended; empty where it did not."""

    def stop(self) -> None:
        """Ask it to end; `poll` tells when it has."""


class JobProcess:
    """`bench.run.jobs` with a job. It ends when this process does, however that ends: it watches its standard input."""

    note = "starting"

    def __init__(self, job: Job):
        self.label, self._saves_first = job.label, job.saves_first
        self._log = Store(job.store).scratch_dir(job.experiments[0], job.kind, job.seed) / "log.txt"
        self._fraction: float | None = None
        self._error, self._finished, self._rest = "", False, b""
        environment = os.environ | KEEP_MEMORY
        if job.kind not in ("latency", "released"):  # those run alone and get all cores; the others get a core each:
            # faster than sharing them, and the same bits on any number of cores
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.run.jobs", job.to_json()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment,
            )  # fmt: skip
        os.set_blocking(self._process.stdout.fileno(), False)

    def poll(self) -> int | None:
        code = self._process.poll()  # first: what it says at its end is there then
        if self._process.stdout.closed:
            return code
        *lines, self._rest = (self._rest + (self._process.stdout.read() or b"")).split(b"\n")
        for line in lines:
            self._take(line)
        if code is not None:
            self._process.stdin.close()
            self._process.stdout.close()
        return code

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return  # a library printed something
        if not isinstance(message, dict):
            return
        self._error = message.get("error", self._error)
        self._finished = message.get("finished", self._finished)
        if message.get("total") and {"done", "label"} <= message.keys():
            self._fraction, self.note = min(1.0, message["done"] / message["total"]), message["label"]

    def fraction(self) -> float | None:
        return self._fraction

    def failure(self) -> str:
        code = self._process.returncode
        return "" if self._finished and code == 0 else self._error or f"ended with code {code}, see {self._log}"

    def stop(self) -> None:
        self._process.terminate() if self._saves_first else self._process.kill()


@dataclass
class Running:
    """A process at work; `fraction` is what it has done as far as it said, None before that."""

    process: Process
    estimate_s: float
    task: TaskID
    fraction: float | None = None


class JobPool:
    """Runs stages one after the other, the jobs of a stage side by side. A failing job does not stop the others."""

    def __init__(self, stages: list[Stage], quiet: bool = False, start: Callable[[Any], Process] = JobProcess):
        """start: what starts one of a stage's entries; they are `Job`s by default."""
        self._stages = stages
        self._start_process = start
        self._clock = Estimator(stages)
        self._console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("{task.fields[note]}", markup=False), console=self._console,
        )  # fmt: skip
        self._running: list[Running] = []
        self._failures: list[str] = []
        self._last_plain = 0.0

    def run(self, page: Callable[[], str] | None = None) -> list[str]:
        """Run all jobs; returns one line for each that failed.

        page: what is known so far, printed where a stage has ended and another one follows.

        An exception (KeyboardInterrupt, SystemExit) goes on up once the jobs have ended, or have not in two minutes.
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
                self._stop()
        return self._failures

    def _run_stage(self, waiting: list[tuple[Any, float]], slots: int) -> None:
        while waiting or self._running:
            while waiting and len(self._running) < slots:
                entry, estimate_s = waiting.pop(0)
                process = self._start_process(entry)
                task = self._progress.add_task(process.label, total=1.0, note="")
                self._running.append(Running(process, estimate_s, task))
            time.sleep(POLL_SECONDS)
            for running in list(self._running):
                ended = running.process.poll() is not None
                self._update(running)
                if ended:
                    self._end(running)
            self._show()

    def _update(self, running: Running) -> None:
        fraction = running.process.fraction()
        if fraction is None:
            return
        if running.fraction is None:  # what an earlier, killed run had done took no time of this one
            self._clock.skip(running.estimate_s * fraction)
        running.fraction = fraction
        self._progress.update(running.task, completed=fraction, note=running.process.note)

    def _end(self, running: Running) -> None:
        self._running.remove(running)
        self._progress.remove_task(running.task)
        self._clock.finish(running.estimate_s)
        reason, label = running.process.failure(), running.process.label
        if not reason:
            self._print(f"done: {label}")
            return
        self._failures.append(f"{label}: {reason}")
        self._print(f"failed: {label}: {reason}", style="red")

    def _stop(self) -> None:
        for running in self._running:
            running.process.stop()
        end = time.monotonic() + STOP_SECONDS
        while self._running and time.monotonic() < end:
            self._running = [running for running in self._running if running.process.poll() is None]
            time.sleep(POLL_SECONDS)

    def _show(self) -> None:
        active = sum(r.estimate_s * (r.fraction or 0.0) for r in self._running)
        fraction, remaining = self._clock.estimate(active)
        note = f"about {duration(remaining)} left"
        self._progress.update(self._total, completed=fraction, note=note)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_plain > PLAIN_REPORT_SECONDS:
            self._last_plain = now
            doing = "; ".join(f"{r.process.label} {r.fraction or 0:.0%}" for r in self._running)
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


def duration(seconds: float) -> str:
    """For people: "3 d 04 h", "30 h 12 min", "7 min 05 s"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02d} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
