"""What one subprocess of a run does: measure one thing (or a group's latencies) and write its records.

`python -m bench.run.jobs '<job as JSON>'` prints one JSON object a line to standard output: progress
{"done", "total", "label"}, last {"finished": true} or {"error": one line}. It ends when its standard input closes, so
that no job outlives the run that started it; a training at paper scale saves its work before, as it does on SIGTERM.
"""

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.experiments.experiment import Experiment
from bench.experiments.tables import latency_bases
from bench.records import Record, Store
from bench.run.timing_groups import is_timed

if TYPE_CHECKING:
    from bench.measure.measured import Measured
    from bench.training.engine import Execution

# What a killed job goes on from, in its work folder; removed once its records are written.
UNFINISHED = {"accuracy": "checkpoint.pt", "released": "images-0.jsonl", "latency": "timings.jsonl"}
REPORT_SECONDS = 0.3
WAIT_SECONDS = 2.0
SAVE_SECONDS = 120  # for the last step of a training and its checkpoint
TRY_AGAIN = 75  # EX_TEMPFAIL: the work is saved, the same command goes on; schedulers requeue on it
BUSY, WANTED, DONE = range(3)


@dataclass(frozen=True)
class Job:
    """kind: that of the records. experiments: one, or for "latency" all of a run whose records are written.

    bases: timed beside those. budget_s: wall time for latency. seed: of accuracy. data_root: of data sets that are
    not generated. weights: the checkpoint of "released". row: what people call the experiment.
    """

    kind: str
    experiments: tuple[Experiment, ...]
    store: str
    seed: int | None = None
    bases: tuple[Experiment, ...] = ()
    budget_s: float = 0.0
    data_root: str | None = None
    weights: str | None = None
    row: str = ""
    command: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        values = json.loads(text)
        experiments = {name: tuple(map(Experiment.from_dict, values[name])) for name in ("experiments", "bases")}
        return cls(**values | experiments | {"command": tuple(values["command"])})

    @property
    def saves_first(self) -> bool:
        """Whether it is told to stop by SIGTERM and not killed: at small scale the last checkpoint is seconds old."""
        return self.kind == "accuracy" and self.experiments[0].scale == "paper"

    @property
    def label(self) -> str:
        if len(self.experiments) > 1:
            common = [{e.backbone for e in self.experiments}, {e.dataset for e in self.experiments}]
            where = "".join(f" {value}" for values in common if len(values) == 1 for value in values)
            return f"{self.kind} of {len(self.experiments)} models{where}"
        if self.weights:
            return f"evaluation of {Path(self.weights).name}"
        return f"{self.kind} {self.row or self.experiments[0].key}" + (
            "" if self.seed is None else f" seed {self.seed}"
        )


class Reporter:
    """Progress callback (done, total, label) that prints at most every 0.3 s and at the end. gone: as of `emit`."""

    def __init__(self, gone: Callable[[], object] = lambda: os._exit(1)):
        self._last, self._gone = -math.inf, gone

    def __call__(self, done: float, total: float, label: str) -> None:
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS or done >= total:
            self._last = now
            emit({"done": done, "total": total, "label": label}, self._gone)


def emit(message: dict, gone: Callable[[], object] = lambda: os._exit(1)) -> None:
    """gone: called where the run is, which would read the message."""
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:
        gone()


def run_job(job: Job, report: Reporter, execution: "Execution | None" = None) -> None:
    """Measure and write the records, unless they are there. Raises BenchError.

    Where another process measures the same thing, this one waits: for its record, or to take over if it dies.
    execution: of a training; its processes all call this, the first one decides and writes. Stopped is raised as by
    `bench.training.engine.train`.
    """
    if execution is not None:
        from bench.training.distributed import Stopped
    store = Store(job.store)
    is_main = execution is None or execution.world.is_main
    while True:
        with store.claim(job.experiments[0], job.kind, job.seed) if is_main else nullcontext(False) as mine:
            state = BUSY if not mine else DONE if _is_done(job, store) else WANTED
            if execution is not None:
                state = int(execution.world.gather(state)[0])
            if state == WANTED:
                _measure_and_write(job, store, report, execution)
            if state != BUSY:
                return
        report(0, 1, "waiting for another process that measures this")
        time.sleep(WAIT_SECONDS)
        if execution is not None and execution.stop():
            raise Stopped


def _is_done(job: Job, store: Store) -> bool:
    if job.kind == "released":
        from bench.measure.released import is_done

        return is_done(store, job.experiments[0], Path(job.weights), job.data_root and Path(job.data_root))
    if job.kind == "latency":
        together = {*job.experiments, *job.bases}
        return all(is_timed(e, together.intersection(latency_bases(e)), store) for e in job.experiments)
    return store.state(job.experiments[0], job.kind, job.seed) == "done"


def _measure_and_write(job: Job, store: Store, report: Reporter, execution: "Execution | None") -> None:
    folder = store.scratch_dir(job.experiments[0], job.kind, job.seed)
    measure = _measurer(job, folder, report, execution)
    from bench import provenance

    facts = provenance.collect(list(job.command))  # after the measurer's imports: it asks torch, if that is there
    if not (measured := measure(facts["commit"])):
        return
    for experiment in job.experiments:
        result = measured[experiment.key]
        facts["duration_s"] = result.seconds
        store.write(
            Record(experiment, job.kind, result.metrics, facts, job.seed, result.recipe, result.samples, result.details)
        )
    if job.kind in UNFINISHED:
        (folder / UNFINISHED[job.kind]).unlink(missing_ok=True)


def _measurer(
    job: Job, folder: Path, report: Reporter, execution: "Execution | None"
) -> Callable[[str], Mapping[str, "Measured"]]:
    """What measures the job, by the experiments' keys; the packages that it needs, and no others, are imported.

    It takes the commit of this code. Of several processes only the first one gets anything.
    """
    experiment, root = job.experiments[0], Path(job.data_root) if job.data_root else None
    if job.kind == "complexity":
        from bench.measure.complexity.flops import measure_complexity

        return lambda _: {experiment.key: measure_complexity(experiment, report)}
    if job.kind == "latency":
        from bench.machine import default_device
        from bench.measure.latency.timing import measure_latency

        log, device = folder / UNFINISHED["latency"], default_device().type
        together = (*job.experiments, *job.bases)
        return lambda _: measure_latency(together, log, job.budget_s, report, device)
    if job.kind == "released":
        from bench.measure.released import measure_released

        return lambda _: {experiment.key: measure_released(experiment, Path(job.weights), folder, root, report)}
    from bench.measure.accuracy import measure_accuracy

    execution = execution or _execution(experiment)

    def train(commit: str) -> Mapping[str, "Measured"]:
        result = measure_accuracy(experiment, job.seed, folder, root, report, execution, commit)
        return {experiment.key: result} if result else {}

    return train


def _execution(experiment: Experiment, stop: Callable[[], bool] = lambda: False) -> "Execution":
    """Of a training that has this process alone."""
    from bench.training.engine import Execution
    from bench.training.shares import images_at_once

    return Execution(micro_batch=images_at_once(experiment), stop=stop)


def _end_with_the_run(stop: threading.Event, patience: float) -> None:
    """End some seconds after standard input has; stop: set at once."""

    def wait() -> None:
        while os.read(0, 4096):  # not sys.stdin: Python aborts at its end when a thread holds that one's lock
            pass
        stop.set()
        time.sleep(patience)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    job, stop = Job.from_json(sys.argv[1]), threading.Event()
    arguments, stopped = (Reporter(),), ()
    _end_with_the_run(stop, SAVE_SECONDS if job.saves_first else 0)
    if job.saves_first:
        from bench.training.distributed import Stopped

        arguments, stopped = (Reporter(stop.set), _execution(job.experiments[0], stop.is_set)), (Stopped,)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    try:
        run_job(job, *arguments)
    except stopped:
        emit({"error": "stopped, its work saved: the same command goes on"})
        sys.exit(TRY_AGAIN)
    except BenchError as error:
        emit({"error": str(error)})
        sys.exit(2)
    except OSError as error:  # a full or unwritable disk
        place = error.filename or "no file named"
        emit({"error": f"{error.strerror or error} ({place}): free space or make it writable"})
        sys.exit(2)
    emit({"finished": True})


if __name__ == "__main__":
    main()
