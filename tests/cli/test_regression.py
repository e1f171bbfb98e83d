"""`bench regression` as a user types it; what jobs would measure is made up."""

from dataclasses import replace

import pytest

from bench.experiments import find_row
from bench.records import Store
from bench.regression import gate as regression
from tests.conftest import mistake
from tests.report import fakes

ROWS = [find_row(row) for row in regression.ROWS]
OVER, UNDER = (find_row(row) for row in regression.TIMED)


def write(store, flops=90.0, loss=15.0, ratios=(0.6,)):
    """Everything that the gate reads. ratios: of the latency runs, one after the other, of which one is taken."""
    for what in ROWS:
        record = fakes.complexity(what, flops=flops)
        metrics = {"flops": {**record.metrics["flops"], "by_operator": {"conv": flops}}}
        store.write(replace(record, metrics={**record.metrics, **metrics}))
    for seed in (0, 1, 2):
        record = fakes.accuracy(regression.TRAINED, seed)
        metrics = {"final_loss": {"value": loss, "unit": "1", "n": 1}}
        store.write(replace(record, metrics={**record.metrics, **metrics}))
    store.write(fakes.latency(OVER, 1000.0 * ratios[0]))
    store.write(fakes.latency(UNDER, 1000.0))


@pytest.fixture
def gate(bench, monkeypatch, tmp_path):
    """gate(*arguments, failures=(), **measured) -> (exit code, output, errors); reference: `write`'s defaults."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write(Store(tmp_path / "results" / "reference"))

    def run(*arguments, failures=(), ratios=(0.6,), **measured):
        remaining = list(ratios)

        class Pool:
            def __init__(self, stages, quiet):
                jobs = [job for jobs, _ in stages for job, _ in jobs]
                self.kinds, self.store = {job.kind for job in jobs}, Store(jobs[0].store)

            def run(self):
                write(self.store, ratios=(remaining.pop(0) if self.kinds == {"latency"} else 0.0,), **measured)
                return [line for line in failures if line.split()[0] in self.kinds]

        monkeypatch.setattr(regression, "JobPool", Pool)
        return bench("regression", *arguments)

    return run


def states(out):
    return [tuple(line.split()[:2]) for line in out.splitlines()[:-1]]


def test_all_is_well(gate, tmp_path):
    before = {path: path.read_bytes() for path in (tmp_path / "results" / "reference").rglob("*.json")}
    code, out, errors = gate()
    assert (code, errors) == (0, "") and out.splitlines()[-1].startswith("no breach in ")
    parts = [*["complexity"] * len(ROWS), "training", "latency"]
    assert states(out) == [("ok", part) for part in parts]
    assert before == {path: path.read_bytes() for path in (tmp_path / "results" / "reference").rglob("*.json")}
    assert (tmp_path / "results" / "local" / "regression" / "records").is_dir()


def test_a_line_a_breach_and_exit_code_1(gate):
    code, out, errors = gate(flops=91.0, loss=9.0, ratios=(0.8, 0.8))
    lines = out.splitlines()
    assert (code, errors) == (1, "") and lines[-1].startswith("breaches in ")
    assert states(out) == [
        *[("breach", "complexity")] * len(ROWS), ("breach", "training"), ("ok", "training"),
        ("again", "latency"), ("breach", "latency"),
    ]  # fmt: skip
    assert "FLOPs (G) 91 instead of 90, conv 91 instead of 90" in lines[0] and "table1/hcformer-r50" in lines[0]
    assert "final_loss 9.00 (allowed 13.50 to 16.50), stored seeds 15.00 to 15.00" in lines[len(ROWS)]
    assert "800 / 1000 ms = 0.800, n = 3 (allowed 0.480 to 0.750, stored 0.600)" in lines[-2]


def test_a_slow_moment_of_the_machine_is_no_breach(gate):
    code, out, _ = gate("--part", "latency", ratios=(0.8, 0.7))
    assert code == 0 and states(out) == [("again", "latency"), ("ok", "latency")]


def test_a_job_that_fails_is_a_breach(gate):
    failures = ["complexity hcformer r50: operator 'x' has no FLOPs handle", "latency of 2 models: ended with code 1"]
    code, out, _ = gate(failures=failures)
    assert code == 1 and ("breach", "latency") == states(out)[-1]
    assert out.splitlines()[0].split() == "breach complexity hcformer r50: operator 'x' has no FLOPs handle".split()


def test_parts(gate):
    assert states(gate("--part", "training", "--part", "latency")[1]) == [("ok", "training"), ("ok", "latency")]
    mistake(gate("--part", "trainin"), "part 'trainin'", "did you mean 'training'")


def test_missing_and_stale_records(gate, tmp_path):
    store = Store(tmp_path / "results" / "reference")
    path = store.record_path(regression.TRAINED, "accuracy", 1)
    kept = path.read_text()
    path.unlink()
    mistake(gate(), str(path), "is missing", "bench run table1 --store")
    path.write_text(kept)
    counted = store.record_path(find_row("table2/mask_rcnn-r50"), "complexity")
    counted.rename(tmp_path / "kept.json")
    mistake(gate(), str(counted), "is missing", "bench run table2 --store")
    (tmp_path / "kept.json").rename(counted)
    record = store.get(regression.TRAINED, "accuracy", 1)
    store.write(replace(record, recipe={**record.recipe, "iterations": 7}))
    mistake(gate(), str(path), "is not of today's recipe", "bench run table1 --store")
    assert gate("--part", "latency")[0] == 0, "that part does without"
    mistake(gate("--store", tmp_path / "none"), "none is not a folder", "--store")
    scratch = tmp_path / "results" / "local" / "regression"
    mistake(gate("--store", scratch), str(scratch), "another store")
    assert (scratch / "records").is_dir()


def test_interruption_shows_no_traceback(gate, bench, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(regression, "_measure_side_by_side", interrupt)
    assert bench("regression") == (130, "", "interrupted\n")
