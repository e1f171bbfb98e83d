"""The regression gate sees planted faults, each of which leaves the program running, and what its limits are."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.experiments import find_row
from bench.measure.complexity import flops as complexity
from bench.measure.complexity import handles
from bench.records import Store
from bench.regression import gate as regression
from bench.regression.checks import compare_complexity, compare_latency, compare_training
from bench.run.jobs import Job, run_job
from tests.report import fakes

DEFORM = "torchvision::deform_conv2d"
ROW = "table1/hcformer-r50"


def breaches(findings):
    return [finding.text for finding in findings if finding.state == "breach"]


# --- Planted faults (those of layers and losses: test_cases.py) ---


class PoolHere:
    """Runs the jobs in this process."""

    def __init__(self, stages, quiet=False):
        self._stages = stages

    def run(self):
        failures = []
        for job, _ in (job for jobs, _ in self._stages for job in jobs):
            try:
                run_job(job, lambda *_: None)
            except BenchError as error:
                failures.append(f"{job.label}: {error}")
        return failures


@pytest.fixture(scope="module")
def two_images():
    """Only the first two images are counted."""
    images = complexity.counted_images(find_row(ROW))[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(complexity, "counted_images", lambda _: images)
        yield


@pytest.fixture(scope="module")
def stored(two_images, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("stored"))
    run_job(Job("complexity", (find_row(ROW),), str(store.path)), lambda *_: None)
    return store


@pytest.fixture
def counted(stored, tmp_path, monkeypatch):
    """counted() -> the gate's findings for one row, whose stored count is of the same two images."""
    monkeypatch.setattr(regression, "ROWS", (ROW,))
    monkeypatch.setattr(regression, "JobPool", PoolHere)

    def run():
        shown = []
        passed = regression.check(stored, Store(tmp_path / "scratch"), ["complexity"], shown.append)
        assert passed == (not breaches(shown)) and all(finding.part == "complexity" for finding in shown)
        return shown

    return run


def test_same_count_passes(counted):
    (finding,) = counted()
    assert finding.state == "ok" and finding.text.startswith(f"{ROW}: 38.387363 M parameters, ")


def test_removed_handle(counted, monkeypatch):
    monkeypatch.delitem(handles.HANDLES, DEFORM)
    (line,) = breaches(counted())
    assert line.startswith(f"{ROW}: operator '{DEFORM}' has no FLOPs handle")
    monkeypatch.setattr(handles, "FREE", handles.FREE | {DEFORM})  # and now it silently counts 0
    (line,) = breaches(counted())
    assert "FLOPs (G) " in line and "deform_conv2d 0 instead of " in line and "conv " not in line.split("2d 0")[0]


def test_removed_handle_of_what_is_composed_of_counted_operators(counted, monkeypatch):
    """The total stays, by other names: the handle was tested, the parts are counted by chance."""
    monkeypatch.delitem(handles.HANDLES, "aten::linear")
    (line,) = breaches(counted())
    assert "linear 0 instead of " in line


# --- Limits ---


def with_metrics(record, **values):
    metrics = {name: {"value": value, "unit": "1", "n": 1} for name, value in values.items()}
    return replace(record, metrics={**record.metrics, **metrics})


def test_complexity_is_exact():
    then = fakes.complexity()
    then = replace(then, metrics={**then.metrics, "flops": {**then.metrics["flops"], "by_operator": {"conv": 87.9}}})
    assert compare_complexity(ROW, then, then).state == "ok"
    one_parameter_more = with_metrics(then, params=38.390001)
    finding = compare_complexity(ROW, one_parameter_more, then)
    assert finding.state == "breach" and finding.text == f"{ROW}: parameters (M) 38.390001 instead of 38.39"


STORED = [
    with_metrics(fakes.accuracy(seed=seed, pq=pq), final_loss=loss)  # mIoU_pan lies 4 points above PQ
    for seed, pq, loss in ((0, 50.0, 15.0), (1, 55.0, 15.5), (2, 52.0, 14.0))
]


@pytest.mark.parametrize(
    ("pq", "loss", "wrong"),
    [
        (50.0, 15.0, []),
        (45.1, 12.6, []),  # PQ's range is 5 wide, the margin of the loss is a tenth of 15
        (59.9, 16.9, []),
        (44.9, 15.0, ["PQ", "AP_pan_th", "mIoU_pan"]),
        (60.1, 15.0, ["PQ", "AP_pan_th", "mIoU_pan"]),
        (52.0, 12.4, ["final_loss"]),
    ],
)
def test_training_lies_in_the_widened_range(pq, loss, wrong):
    findings = list(compare_training(with_metrics(fakes.accuracy(pq=pq), final_loss=loss), STORED))
    assert [line.partition(" ")[0] for line in breaches(findings)] == wrong
    assert sum(finding.state == "ok" for finding in findings) == (len(wrong) < 4)


def test_a_metric_that_is_gone_is_a_breach():
    now = with_metrics(fakes.accuracy(pq=52.0), final_loss=15.0)
    now = replace(now, metrics={name: metric for name, metric in now.metrics.items() if name != "PQ"})
    assert [line.partition(" ")[0] for line in breaches(compare_training(now, STORED))] == ["PQ"]


def test_latency_may_be_a_quarter_slower():
    slow, under = fakes.latency(median=624.0), fakes.latency(median=1000.0)
    assert compare_latency(slow, under, 0.5, last=False).state == "ok"
    slow = fakes.latency(median=626.0)
    assert compare_latency(slow, under, 0.5, last=False).state == "again"
    assert compare_latency(slow, under, 0.5, last=True).state == "breach"
    assert compare_latency(fakes.latency(median=401.0), under, 0.5, last=True).state == "ok"
    assert compare_latency(fakes.latency(median=399.0), under, 0.5, last=True).state == "breach", "MaskFormer is slower"
    with pytest.raises(BenchError, match="not of one run on a CPU"):
        compare_latency(fakes.latency(run="b"), under, 0.5, last=True)


def test_what_was_not_measured_is_a_breach(counted, monkeypatch):
    """Also where the pool tells of no failure."""
    monkeypatch.setattr(PoolHere, "run", lambda self: [])
    assert breaches(counted()) == [f"{ROW}: not measured"]


def test_one_gate_at_a_time(counted, tmp_path):
    with regression._alone(Store(tmp_path / "scratch")), pytest.raises(BenchError, match="another .* wait for it"):
        counted()
    assert not breaches(counted())


def test_reference_store_has_what_the_gate_compares_with(monkeypatch, tmp_path):
    """And it is looked at before anything is measured."""
    monkeypatch.setattr(regression, "_measure_side_by_side", lambda *_: iter(()))
    monkeypatch.setattr(regression, "_measure_latency", lambda *_: iter(()))
    stored = Store(Path(__file__).parents[2] / "results" / "reference")
    assert regression.check(stored, Store(tmp_path), (), pytest.fail)
