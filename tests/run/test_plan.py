"""Plans and the jobs made from them; no job is started here."""

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bench.data.registry import dataset_root
from bench.errors import BenchError
from bench.experiments import TABLES, get_table, recipe_for
from bench.experiments.datasets import get_dataset
from bench.experiments.tables import latency_bases
from bench.records import Record, Store
from bench.run import plan as runner
from bench.run import pool
from tests.data.conftest import TinyCoco
from tests.report.fakes import LATENCY_DETAILS, PROVENANCE, R50, SMALL, full_store, latency, released

TABLE = get_table("table1")
REFERENCE = Store(Path(__file__).resolve().parents[2] / "results" / "reference")
KINDS = ["complexity", "latency", "accuracy"]


@pytest.fixture
def full(tmp_path) -> Store:
    return full_store(TABLE, tmp_path / "store")


@pytest.fixture
def started(monkeypatch):
    """The stages handed to the pool, one list a run, and the data sets asked for; nothing is started or written."""
    stages = []

    class Pool:
        def __init__(self, given, quiet=False):
            stages.append(given)

        def run(self, page=None):
            return ["the pool's answer"]

    monkeypatch.setattr(runner, "JobPool", Pool)
    monkeypatch.setattr("bench.data.registry.open_split", open_split)
    return stages


def open_split(name, split, root=None):
    """The check of a data set without reading (or generating) it."""
    if not get_dataset(name).generated:
        dataset_root(name, root)


def jobs(stage):
    return [job for job, _ in stage[0]]


def remove(store, measurement):
    store.record_path(measurement.experiment, measurement.kind, measurement.seed).unlink()


def pick(kind, index=0):
    return [m for m in TABLE.measurements() if m.kind == kind][index]


# Plans


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_plan_of_an_empty_store(tmp_path, scale):
    planned = runner.plan(TABLE, Store(tmp_path / "none"), scale)
    assert Counter(p.measurement for p in planned) == Counter(TABLE.measurements(scale))
    kinds = [p.measurement.kind for p in planned]
    assert kinds == sorted(kinds, key=KINDS.index)
    assert {p.state for p in planned} == {"missing"}
    assert all(p.estimate_s > 0 for p in planned)
    groups = runner.latency_groups(planned)
    assert [(g.rows[0].backbone, len(g.rows), g.bases) for g in groups] == [
        ("r50", 4, ()), ("swin_s", 4, ()), ("swin_l", 4, ()),
    ]  # fmt: skip
    timed = sum(p.estimate_s for p in planned if p.measurement.kind == "latency")
    assert timed == pytest.approx(sum(map(runner.latency_seconds, groups))) and timed >= 3 * runner.LATENCY_BUDGET_S
    assert not (tmp_path / "none").exists()


def test_plan_knows_what_is_there(full):
    assert {p.state for p in runner.plan(TABLE, full)} == {"done"}
    gone, old = pick("complexity", 3), pick("accuracy", 2)
    remove(full, gone)
    recipe = replace(recipe_for(old.experiment), iterations=12345)
    metrics = {"PQ": {"value": 1.0, "unit": "%", "n": 1}}
    full.write(Record(old.experiment, "accuracy", metrics, PROVENANCE, old.seed, recipe))
    states = {p.measurement: p.state for p in runner.plan(TABLE, full) if p.state != "done"}
    assert states == {gone: "missing", old: "stale"}


def test_damaged_record_stops_the_plan(full):
    what = pick("latency")
    path = full.record_path(what.experiment, what.kind)
    path.write_text(path.read_text()[:100])
    with pytest.raises(BenchError, match=rf"^(?!.*\n).*{path.name}.*delete it"):
        runner.plan(TABLE, full)


# Runs


def test_nothing_is_started_where_all_is_done(full, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was started")

    monkeypatch.setattr(pool.subprocess, "Popen", refuse)
    monkeypatch.setattr("bench.data.synthesis.synthetic.generate", refuse)
    assert runner.run(TABLE, full, quiet=True) == []


def test_run_of_an_empty_store(tmp_path, started):
    assert runner.run(TABLE, Store(tmp_path / "store")) == ["the pool's answer"]
    (stages,) = started
    assert [[job.kind for job in jobs(stage)] for stage in stages] == [
        ["complexity"] * 12,
        ["latency"] * 3,
        ["accuracy"] * 12,
    ]
    assert [slots for _, slots in stages] == [runner.workers(), 1, runner.workers()]
    assert all(estimate > 0 for stage, _ in stages for _, estimate in stage)
    wanted = [m for m in TABLE.measurements() if m.kind == "accuracy"]
    wanted.sort(key=lambda m: -runner.estimate(m))  # the longest first
    assert jobs(stages[2])[0].label == "accuracy table1/mask2former-small seed 0"
    assert [(job.experiments, job.seed) for job in jobs(stages[2])] == [((m.experiment,), m.seed) for m in wanted]
    assert {job.store for stage in stages for job in jobs(stage)} == {str(tmp_path / "store")}


@pytest.mark.parametrize("kind", ["complexity", "accuracy"])
def test_only_the_missing_is_measured(full, started, kind):
    what = pick(kind, 5)
    remove(full, what)
    runner.run(TABLE, full)
    (job,) = (job for stage in started[0] for job in jobs(stage))
    assert (job.kind, job.experiments, job.seed) == (kind, (what.experiment,), what.seed)


def timed(stages):
    return [(job.experiments, job.bases) for job in jobs(stages[1])]


def test_a_missing_latency_is_timed_beside_what_it_is_compared_with(full, started):
    what = pick("latency", 7)
    remove(full, what)
    runner.run(TABLE, full)
    (job,) = (job for stage in started[0] for job in jobs(stage))
    base = next(row for row in TABLE.rows if (row.method, row.backbone) == ("MaskFormer", "Swin-S"))
    assert job.kind == "latency" and job.budget_s == runner.LATENCY_BUDGET_S
    assert (job.experiments, job.bases) == ((what.experiment,), (base.experiment,))


def test_rows_of_several_tables_are_timed_once(tmp_path, started):
    """Each table its own, but for what another table has timed; the records hold what they are compared with."""
    store = Store(tmp_path / "store")

    def rows_timed(name):
        runner.run(get_table(name), store)
        for rows, bases in timed(started[-1]):
            for row in rows:
                beside = {b: 1000.0 for b in (*rows, *bases) if b in latency_bases(row)}
                store.write(latency(row, run=name, beside=beside))
        return [row for rows, _ in timed(started[-1]) for row in rows]

    seen = []
    for name, count in (("table4", 4), ("table1", 11), ("tableIIa", 0), ("tableIIb", 3), ("tableVI", 3), ("table5", 4)):
        rows = rows_timed(name)
        assert len(rows) == count and not set(rows) & set(seen), name
        seen += rows
    for name in ("table1", "table4", "table5", "tableIIa", "tableIIb", "tableVI"):
        assert rows_timed(name) == [], "done, whatever was timed after it"
    before = store.load_all()
    runner.run(get_table("table4"), store, force=True)
    assert len(store.load_all()) == len(before) - 4 and len(rows_timed("table4")) == 4
    assert [rows_timed(name) for name in ("table1", "table5", "tableIIa", "tableIIb")] == [[]] * 4


@pytest.mark.parametrize("name", TABLES)
def test_nothing_of_the_reference_is_measured_again(name):
    """Its latencies are of larger runs; the bases are in them."""
    states = Counter(p.state for p in runner.plan(get_table(name), REFERENCE))
    assert set(states) == {"done"}


def test_a_latency_that_is_not_of_its_base_s_run_is_timed_again(full, started):
    what = pick("latency", 2)
    full.write(latency(what.experiment, run="another"))
    assert [p.measurement for p in runner.plan(TABLE, full) if p.state == "stale"] == [what]
    runner.run(TABLE, full)
    assert [rows for rows, _ in timed(started[0])] == [(what.experiment,)]


def test_what_was_timed_beside_a_base_of_another_padding_is_timed_again(full, started):
    """MaskFormer's time on padded images, in the same run: neither it nor a ratio to it is today's."""
    (base,) = (row.experiment for row in TABLE.rows if row.experiment and row.name == "maskformer-r50")
    full.write(replace(latency(base), details=LATENCY_DETAILS | {"padding": "maskformer: to a multiple of 32"}))
    stale = [p.measurement.experiment for p in runner.plan(TABLE, full) if p.state == "stale"]
    assert base in stale and {what.backbone for what in stale} == {"r50"}
    compared = {row.experiment for row in TABLE.rows if row.experiment and TABLE.base_of(row).experiment == base}
    assert set(stale) == compared | {base}


def test_force_measures_everything(full, started, capsys):
    before = full.load_all()
    runner.run(TABLE, full, force=True)
    assert [len(jobs(stage)) for stage in started[0]] == [12, 3, 12]
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"set aside: {len(before)} record(s), now in {full.path / 'work' / 'before-2'}")
    assert full.load_all() == [] and Store(said.split(" now in ")[1]).load_all() == before


def test_a_forced_run_that_was_stopped_goes_on(full, started, capsys, monkeypatch):
    """The pool of these tests tells of a failure each time, so that none of the runs has ended."""
    records = {(r.experiment, r.kind, r.seed): r for r in full.load_all()}
    runner.run(TABLE, full, force=True)
    for what in (pick("complexity", 3), pick("accuracy", 0)):
        full.write(records[what.experiment, what.kind, what.seed])  # measured again
    capsys.readouterr()
    runner.run(TABLE, full, force=True)
    assert [len(jobs(stage)) for stage in started[1]] == [11, 3, 11]
    assert len(full.load_all()) == 2 and "goes on with the forced run" in capsys.readouterr().err
    monkeypatch.setattr("bench.run.set_aside.provenance.state", lambda: {"commit": "another"})
    runner.run(TABLE, full, force=True)
    assert [len(jobs(stage)) for stage in started[2]] == [12, 3, 12], "other code begins anew"
    assert full.load_all() == [] and "set aside: 2 record(s)" in capsys.readouterr().err


def test_only_records_of_the_table_and_the_scale_are_set_aside(full, started):
    other = get_table("tableIV").rows[0].experiment
    full.write(latency(other))
    before = full.load_all()
    with pytest.raises(BenchError, match="--data-root"):  # the data of the paper's scale are not there
        runner.run(TABLE, full, "paper", force=True)
    assert not (full.path / "work").exists()
    runner.run(get_table("tableIb"), full, force=True)
    assert full.load_all() == before
    runner.run(TABLE, full, force=True)
    assert [r.key for r in full.load_all()] == [other.key]


@pytest.mark.parametrize("force", [True, False])
def test_a_run_that_ends_ends_the_forced_one(full, started, monkeypatch, force):
    """Also a plain one, after which nothing is left to go on with."""
    records = full.load_all()
    runner.run(TABLE, full, force=True)
    monkeypatch.setattr(runner.JobPool, "run", lambda self, page=None: [])
    runner.run(TABLE, full, force=force)
    for record in records:
        full.write(record)
    runner.run(TABLE, full, force=True)
    assert [len(jobs(stage)) for stage in started[-1]] == [12, 3, 12]


def test_a_forced_evaluation_is_of_one_checkpoint(tmp_path, started, weights, monkeypatch):
    monkeypatch.setattr("bench.data.registry.open_split", lambda *_: range(4))
    store = Store(tmp_path / "store")
    first = released(SMALL, weights=digest(weights))
    runner.evaluate_released(SMALL, weights, store, None, force=True)  # does not end
    store.write(first)  # evaluated later, without force
    content = weights.read_bytes()
    weights.write_bytes(b"other weights")
    assert runner.evaluate_released(SMALL, weights, store, None, force=True) == ["the pool's answer"]
    assert store.load_all() == []
    store.write(released(SMALL, weights=digest(weights)))
    weights.write_bytes(content)
    runner.evaluate_released(SMALL, weights, store, None, force=True)
    assert store.load_all() == [], "what the other one measured is no part of this one that goes on"
    store.write(first)
    runner.evaluate_released(SMALL, weights, store, None, force=True)
    assert store.load_all() == [first]


# Data sets


def test_data_root_belongs_to_the_paper_scale(tmp_path, started):
    for scale in ("small", "paper"):
        runner.run(TABLE, Store(tmp_path / "store"), scale, data_root=tmp_path)
    roots = [{job.data_root for job in jobs(stages[2])} for stages in started]
    assert roots == [{None}, {str(tmp_path)}]


def test_small_scale_data_is_generated_before_jobs_ask_for_it(tmp_path, started, monkeypatch):
    opened = []
    monkeypatch.setattr("bench.data.registry.open_split", lambda *arguments: opened.append(arguments))
    runner.run(TABLE, Store(tmp_path / "store"), data_root=tmp_path / "coco")
    assert opened == [("synthetic_panoptic", split, None) for split in ("train", "val")]


@pytest.mark.parametrize("root", [None, "absent"])
def test_paper_scale_without_its_data_starts_nothing(tmp_path, started, root):
    folder = root and tmp_path / root
    with pytest.raises(BenchError, match=r"^(?!.*\n).*coco_panoptic.*--data-root or BENCH_DATA"):
        runner.run(TABLE, Store(tmp_path / "store"), "paper", data_root=folder)
    assert started == []


# Released checkpoints


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "some weights.safetensors"
    path.write_bytes(b"weights")
    return path


def digest(path):
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "file": path.name}


def test_evaluation_of_a_checkpoint_is_one_job(tmp_path, started, weights, monkeypatch):
    opened = []

    def open_split(*arguments):
        opened.append(arguments)
        return range(50)

    monkeypatch.setattr("bench.data.registry.open_split", open_split)
    store = Store(tmp_path / "store")
    for what in (R50, SMALL):
        answer = runner.evaluate_released(what, weights, store, tmp_path / "coco")
        assert answer == ["the pool's answer"]
    assert opened == [("coco_panoptic", "val2017", tmp_path / "coco"), ("synthetic_panoptic", "val", None)]
    (((job, estimate),), slots), *rest = started[0]
    assert (job.kind, job.experiments, job.weights) == ("released", (R50,), str(weights))
    assert (job.data_root, slots, rest) == (str(tmp_path / "coco"), 1, []) and estimate > 50
    assert jobs(started[1][0])[0].data_root is None, "generated data lies in the cache"


def test_evaluated_checkpoint_is_not_evaluated_again(tmp_path, started, weights):
    store = Store(tmp_path / "store")
    store.write(released(R50, weights=digest(weights)))
    assert runner.evaluate_released(R50, weights, store, None) == [] == started
    weights.write_bytes(b"other weights")
    with pytest.raises(BenchError, match=r"is of some weights\.safetensors .* --force replaces it"):
        runner.evaluate_released(R50, weights, store, None)
    assert started == []
    with pytest.raises(BenchError, match="--data-root or BENCH_DATA"):
        runner.evaluate_released(R50, weights, store, None, force=True)


@pytest.mark.parametrize("root", [None, "absent"])
def test_checkpoint_without_its_data_starts_nothing(tmp_path, started, weights, root):
    with pytest.raises(BenchError, match=r"^(?!.*\n).*coco_panoptic.*--data-root or BENCH_DATA"):
        runner.evaluate_released(R50, weights, Store(tmp_path / "store"), root and tmp_path / root)
    assert started == [] and not (tmp_path / "store").exists()


def test_data_of_other_categories_starts_nothing(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(runner, "JobPool", None)
    root = TinyCoco(tmp_path / "tiny").root
    (root / "val").rename(root / "val2017")
    for path in (root / "annotations").glob("*_val*"):
        path.rename(path.with_name(path.name.replace("_val", "_val2017")))
    with pytest.raises(BenchError, match="is it the right data set"):
        runner.evaluate_released(R50, weights, Store(tmp_path / "store"), root)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (64, 8)])
def test_workers(monkeypatch, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert runner.workers() == expected
