"""What a user sees of jobs that run on this machine: one bar, the jobs at work, and the time left."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.records import Store
from bench.run.launch.plan import Training, fraction_done
from bench.run.pool import Estimator

PLAIN_REPORT_SECONDS = 60.0


class Display:
    """Context of a launch. `report` and `tick` are for `Here`; seconds: what each training is expected to take."""

    def __init__(self, store: Store, seconds: Mapping[Training, float], slots: int):
        self._store, self._seconds, self._total = store, seconds, len(seconds)
        self._clock = Estimator([(list(seconds.items()), slots)])
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False), console=self._console,
        )  # fmt: skip
        self._running: dict[Training, float | None] = {}  # the share done, None while that is not known
        self._counts = {"done": 0, "failed": 0}
        self._last_plain = time.monotonic()

    def __enter__(self) -> "Display":
        self._progress.start()
        self._bar = self._progress.add_task("", total=1.0, note="")
        self._clock.begin(0)
        self.tick()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def report(self, what: str, training: Training, reason: str) -> None:
        if what == "started":
            self._running[training] = None
        else:
            self._running.pop(training)
            self._counts[what] += 1
            self._clock.finish(self._seconds[training])
        text = f"{what}: {training.label}" + (f": {reason}" if reason else "")
        self._console.print(text, style="red" if what == "failed" else None, markup=False, highlight=False,
                            soft_wrap=True)  # fmt: skip

    def tick(self) -> None:
        for training, before in self._running.items():
            done = fraction_done(training, self._store)
            if done is not None and before is None:  # by an earlier launch: it took no time of this one
                self._clock.skip(self._seconds[training] * done)
            self._running[training] = before if done is None else done
        fraction, left = self._clock.estimate(sum(self._seconds[t] * (d or 0.0) for t, d in self._running.items()))
        now = time.monotonic()
        counts = f"{self._counts['done']} of {self._total} done, {len(self._running)} running"
        if self._counts["failed"]:
            counts += f", {self._counts['failed']} failed"
        note = f"about {duration(left)} left"
        self._progress.update(self._bar, description=counts, completed=fraction, note=note)
        if not self._console.is_terminal and now - self._last_plain > PLAIN_REPORT_SECONDS:
            self._last_plain = now
            names = ", ".join(f"{training.label} {done or 0:.0%}" for training, done in self._running.items())
            self._console.print(f"{counts}, {note}: {names}", markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """For people: "3 d 4 h", "5 h 12 min", "7 min"."""
    minutes = round(seconds / 60)
    if minutes >= 2 * 24 * 60:
        return f"{minutes // 1440} d {minutes % 1440 // 60} h"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(1, minutes)} min"
