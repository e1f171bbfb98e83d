"""`bench regression`: whether the program still gives the numbers of a store, in less than five minutes on two cores.

Complexity of a few rows, one training, and one ratio of latencies, each compared with the store, which is only read.
The function of every method is compared by the tests (tests/regression).
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bench.errors import BenchError, unknown_name
from bench.experiments import Experiment, experiment, find_row, recipe_for
from bench.experiments.table import Measurement
from bench.records import Record, Store
from bench.regression.checks import (
    Finding,
    compare_complexity,
    compare_latency,
    compare_training,
    latency_ratio,
)
from bench.run.jobs import Job
from bench.run.plan import estimate, workers
from bench.run.pool import JobPool

PARTS = ("complexity", "training", "latency")
ROWS = (
    "table1/hcformer-r50", "table1/maskformer-r50", "table1/mask2former-r50", "table1/hcformer-swin_s",
    "table2/mask_rcnn-r50", "table3a/segformer-mit_b2",
)  # fmt: skip
TRAINED, SEED = experiment("hcformer", "small", "synthetic_panoptic", "small"), 0
TIMED = ("table1/hcformer-r50", "table1/maskformer-r50")  # the first over the second
LATENCY_S = 60.0  # compilation included
Show = Callable[[Finding], None]


def check(stored: Store, scratch: Store, parts: Sequence[str], show: Show, quiet: bool = False) -> bool:
    """Measure the parts (none: all) in `scratch`, which is emptied, show each finding; whether there is no breach.

    Raises BenchError, before anything is measured, for an unknown part and where `stored` lacks a record.
    """
    for part in parts:
        if part not in PARTS:
            raise unknown_name("part", part, PARTS)
    if stored.path.resolve() == scratch.path.resolve():
        raise BenchError(f"{stored.path} is where the gate itself measures: give another store with --store")
    chosen = [part for part in PARTS if not parts or part in parts]
    counted = {
        row: _get(stored, find_row(row), "complexity", table=row.partition("/")[0])
        for row in ROWS
        if "complexity" in chosen
    }
    seeds = recipe_for(TRAINED).seeds if "training" in chosen else ()
    trained = [_get(stored, TRAINED, "accuracy", seed) for seed in seeds]
    ratio = latency_ratio(*(_get(stored, find_row(row), "latency") for row in TIMED)) if "latency" in chosen else None
    passed = True

    def tell(findings: Iterator[Finding]) -> None:
        nonlocal passed
        for finding in findings:
            passed &= finding.state != "breach"
            show(finding)

    with _alone(scratch):
        if counted or trained:
            tell(_measure_side_by_side(counted, trained, scratch, quiet))
        if ratio is not None:
            tell(_measure_latency(ratio, scratch, quiet))
    return passed


@contextmanager
def _alone(scratch: Store) -> Iterator[None]:
    """With the folder emptied; BenchError while another gate uses it."""
    path = scratch.path.with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"another 'bench regression' measures in {scratch.path}: wait for it to end") from None
        shutil.rmtree(scratch.path, ignore_errors=True)
        yield


def _measure_side_by_side(
    counted: dict[str, Record], trained: list[Record], scratch: Store, quiet: bool
) -> Iterator[Finding]:
    """Training and counting, a core each; the training, first, is the longest."""
    wanted = [Measurement(TRAINED, "accuracy", SEED)] if trained else []
    wanted += [Measurement(record.experiment, "complexity") for record in counted.values()]
    rows = {record.experiment: row for row, record in counted.items()}
    jobs = [(_job(m, scratch, rows.get(m.experiment, "")), estimate(m)) for m in wanted]
    failures = list(_run(jobs, workers(), quiet))
    yield from failures
    for row, record in counted.items():
        if now := scratch.get(record.experiment, "complexity"):
            yield compare_complexity(row, now, record)
        elif not failures:
            yield Finding("breach", "complexity", f"{row}: not measured")
    if now := trained and scratch.get(TRAINED, "accuracy", SEED):
        yield from compare_training(now, trained)
    elif trained and not failures:
        yield Finding("breach", "training", "not measured")


def _measure_latency(stored: float, scratch: Store, quiet: bool) -> Iterator[Finding]:
    """Alone on the machine. A breach is measured once more before it counts: machines are noisy."""
    rows = tuple(find_row(row) for row in TIMED)
    job = Job("latency", rows, str(scratch.path), budget_s=LATENCY_S, command=("bench", "regression"))
    for last in (False, True):
        for row in rows:
            scratch.record_path(row, "latency").unlink(missing_ok=True)
        failures = list(_run([(job, LATENCY_S)], 1, quiet))
        yield from failures
        if failures:
            return
        over, under = (scratch.get(row, "latency") for row in rows)
        finding = compare_latency(over, under, stored, last)
        yield finding
        if finding.state != "again":
            return


def _run(jobs: list[tuple[Job, float]], slots: int, quiet: bool) -> Iterator[Finding]:
    for failure in JobPool([(jobs, slots)], quiet).run():
        kind, _, text = failure.partition(" ")
        yield Finding("breach", "training" if kind == "accuracy" else kind, text)


def _job(m: Measurement, scratch: Store, row: str) -> Job:
    return Job(m.kind, (m.experiment,), str(scratch.path), m.seed, row=row, command=("bench", "regression"))


def _get(store: Store, what: Experiment, kind: str, seed: int | None = None, table: str = "table1") -> Record:
    record = store.get(what, kind, seed)
    if record is None or not record.is_current:
        path, state = (
            store.record_path(what, kind, seed),
            "is missing" if record is None else "is not of today's recipe",
        )
        raise BenchError(f"record {path} {state}: measure it with 'bench run {table} --store {store.path}'")
    return record
