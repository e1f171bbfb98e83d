"""Latencies of a machine that did other work: recognised, marked, of no use to a claim, and timed again."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.experiments import experiment, get_table
from bench.records import Store
from bench.report import collect_cells
from bench.report.claims import decide_claims
from bench.report.write import write_overview, write_report
from bench.run import plan as runner
from tests.report.fakes import R50, cell, complexity, csv_of, full_store, latency, page

TABLE = get_table("table1")
REFERENCE = Store(Path(__file__).resolve().parents[2] / "results" / "reference")
MASKFORMER = experiment("maskformer", "r50", "coco_panoptic", "paper")
OBSERVED = (2200, 20_800, 30_900)  # ms of MaskFormer, three rounds beside another run


def of_rounds(*samples, beside=(), **provenance):
    record = latency(MASKFORMER, 0, offsets=samples, **provenance)
    named = {name: list(samples) for name in record.metrics}
    return replace(record, samples=named | {f"{name} of another": list(beside) for name in named if beside})


def with_load(load: str, **provenance):
    record = latency(**provenance)
    return replace(record, details=record.details | {"load_average": load})


@pytest.mark.parametrize(
    "samples, busy",
    [
        (OBSERVED, True),
        ((2200, 2300, 30_900), True),
        ((1000, 5000, 5000), True),
        ((1000, 1055, 1707), False),  # the widest of the reference store: HCFormer on Cityscapes
        ((1000,), False),
        ((1000,) * 29 + (9000,), False),  # one slow round of thirty
        ((1000,) * 20 + (2100,) * 10, True),
    ],
)
def test_spread(samples, busy):
    assert of_rounds(*samples).is_of_busy_machine is busy
    assert of_rounds(1000, 1000, 1000, beside=samples).is_of_busy_machine is busy


@pytest.mark.parametrize(
    "record, busy",
    [
        (with_load("1.7 to 2.1"), False),  # of two cores, filled by the timing itself
        (with_load("1.0 to 3.2"), True),
        (with_load("4.1 to 1.9"), True),
        (with_load("1.0 to 3.2", processors=64), False),  # two of them are this process's, the load is of all
        (with_load("70.0 to 71.0", processors=64), True),
        (with_load("1.0 to 3.2", cores=None), False),
        (with_load("unknown"), False),
        (complexity(), False),
    ],
)
def test_load_average(record, busy):
    assert record.is_of_busy_machine is busy


def test_no_latency_of_the_reference_is_of_a_busy_machine():
    timed = [record for record in REFERENCE.load_all() if record.kind == "latency"]
    assert len(timed) == 91 and not any(record.is_of_busy_machine for record in timed)


@pytest.fixture
def busy_store(tmp_path) -> Store:
    """Table 1 as measured, with a MaskFormer that was disturbed."""
    store = full_store(TABLE, tmp_path / "store")
    store.write(of_rounds(*OBSERVED))
    return store


def test_cells_say_so(busy_store):
    frame = csv_of(TABLE, busy_store)
    (number,) = (row.number for row in TABLE.rows if row.experiment == MASKFORMER)
    for metric in ("latency_network", "latency_end_to_end", "latency_network_p90"):
        assert cell(frame, number, metric)["verdict"] == "busy machine"
        assert cell(frame, 5, metric)["verdict"] == "no published value"
    text = page(TABLE, busy_store)
    assert text.count("| busy machine") == 1 and "the next `bench run` times it again" in text
    assert "busy" not in page(TABLE, full_store(TABLE, busy_store.path.parent / "quiet"))
    write_report("table1", busy_store)
    latex = (busy_store.path / "tables" / "table1.tex").read_text()
    assert latex.count("busy machine") == 2, "both columns of the row"
    overview = write_overview(busy_store.path.parent).read_text()
    assert "busy machine" in overview.split("## quiet")[1] and "busy" not in overview.split("## quiet")[0]


def test_no_ratio_of_it_decides_a_claim(busy_store):
    def decisions(store):
        decided = decide_claims(collect_cells(store))
        return {(one.claim.text, one.case.label): one for one in decided if one.column.kind == "latency"}

    quiet = decisions(full_store(TABLE, busy_store.path.parent / "quiet"))
    for name, one in decisions(busy_store).items():
        if any(side.cells[0].row.experiment == MASKFORMER for side in one.sides) and all(one.measured):
            assert (one.outcome.decision, one.outcome.reason, one.outcome.ratios) == ("undecided", "busy machine", ())
            assert quiet[name].outcome.decision in ("holds", "does not hold")
        else:
            assert one.outcome == quiet[name].outcome


def test_the_next_run_times_its_group_again_and_once(busy_store, monkeypatch):
    """With what was timed beside it; what is then still busy stays until the run after."""
    planned = [p for p in runner.plan(TABLE, busy_store) if p.state != "done"]
    assert {(p.state, p.measurement.kind, p.measurement.experiment.backbone) for p in planned} == {
        ("busy", "latency", "r50")
    }
    assert len(planned) == 4 and sum(p.estimate_s for p in planned) >= runner.LATENCY_BUDGET_S
    started = []

    class Pool:
        def __init__(self, stages, quiet=False):
            started.append([job for jobs, _ in stages for job, _ in jobs])

        def run(self, page=None):
            return []

    monkeypatch.setattr(runner, "JobPool", Pool)
    assert runner.run(TABLE, busy_store, quiet=True) == []
    (jobs,) = started
    assert [(job.kind, {e.backbone for e in job.experiments}, len(job.experiments)) for job in jobs] == [
        ("latency", {"r50"}, 4)
    ]
    for experiment_ in jobs[0].experiments:
        busy_store.write(latency(experiment_, run="again"))
    assert {p.state for p in runner.plan(TABLE, busy_store)} == {"done"}


def test_a_row_whose_base_was_disturbed_is_timed_again(tmp_path):
    """Also where the base is of another table's rows, and not after a run in which it was timed beside."""
    store = Store(tmp_path)
    store.write(latency(R50))
    store.write(of_rounds(*OBSERVED))
    planned = {p.measurement.experiment: p.state for p in runner.plan(TABLE, store) if p.measurement.kind == "latency"}
    assert (planned[R50], planned[MASKFORMER]) == ("busy", "busy")
    store.write(latency(R50, run="b", beside={MASKFORMER: 1000.0}))
    planned = {p.measurement.experiment: p.state for p in runner.plan(TABLE, store) if p.measurement.kind == "latency"}
    assert planned[MASKFORMER] == "busy" and planned[R50] != "busy"


def test_plan_as_typed(bench, busy_store):
    code, out, _ = bench("plan", "table1", "--store", busy_store.path)
    (line,) = (line for line in out.splitlines() if "latency" in line and "table1/maskformer-r50 " in line)
    assert code == 0 and " busy " in line
