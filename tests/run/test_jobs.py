"""One job: its JSON, its messages and exit codes, two processes at the same measurement, and a kill in training."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.data.synthesis import synthetic
from bench.experiments import RECIPES, experiment, recipe_for
from bench.measure.measured import Measured
from bench.measure.released import LOG
from bench.records import Store
from bench.run import jobs
from bench.run.jobs import TRY_AGAIN, Job, Reporter
from bench.training import engine
from tests.report.fakes import R50, SMALL, WEIGHTS, complexity, latency

ROOT = Path(__file__).resolve().parents[2]
CHEAPEST = experiment("maskformer", "r50", "coco_panoptic", "paper")


@pytest.mark.parametrize(
    "job",
    [
        Job("complexity", (R50,), "a folder/é"),
        Job("latency", (R50, SMALL), "s", bases=(R50,), budget_s=12.5, command=("bench", "run", "--store", "a b")),
        Job("accuracy", (SMALL,), "s", seed=2, data_root="/data"),
        Job("released", (R50,), "s", weights="my weights.safetensors"),
    ],
    ids=lambda job: job.kind,
)
def test_json_round_trip(job):
    assert Job.from_json(job.to_json()) == job


def test_labels():
    assert Job("latency", (R50, SMALL), "s").label == "latency of 2 models"
    levels = (R50, experiment("hcformer", "r50", "coco_panoptic", "paper", hierarchical_level=0))
    assert Job("latency", levels, "s").label == "latency of 2 models r50 coco_panoptic"
    assert Job("complexity", (R50,), "s", row="table1/hcformer-r50").label == "complexity table1/hcformer-r50"
    assert Job("accuracy", (SMALL,), "s", seed=0).label == f"accuracy {SMALL.key} seed 0"
    assert Job("released", (R50,), "s", weights="a/b.safetensors").label == "evaluation of b.safetensors"


def test_reporter_is_not_talkative_but_tells_the_end(capsys, monkeypatch):
    now = 50.0
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now)
    report = Reporter()
    for done in range(101):
        report(done, 100, "step")
        now += 0.01
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert 3 <= len(lines) <= 6 and lines[0]["done"] == 0 and lines[-1] == {"done": 100, "total": 100, "label": "step"}


# Processes

# `bench.run.jobs` whose complexity measurement does what the job's command says.
CHILD = """
import os, sys, time
from pathlib import Path
from bench.run import jobs
from bench.errors import BenchError
from tests.report.fakes import complexity
def measure(job, store, report, execution):
    what = job.command[0]
    if what == "mistake":
        raise BenchError("file x is damaged: delete it")
    if what == "bug":
        print("a library says something")
        raise RuntimeError("a bug")
    report(1, 2, "measuring")
    if what == "wait":
        with open(store.path / "measured", "a") as file:
            file.write(f"{os.getpid()}\\n")
        while not (store.path / "go").exists():
            time.sleep(0.02)
        store.write(complexity(job.experiments[0]))
    if what == "forever":
        time.sleep(120)
jobs._measure_and_write, jobs.WAIT_SECONDS = measure, 0.1
jobs.main()
"""


def start(store, *command, script=CHILD, **kwargs):
    job = Job("complexity", (R50,), str(store.path), command=command)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", script, job.to_json()], cwd=ROOT, text=True, **pipes, **kwargs)


def end(process):
    """(exit code, messages, standard error) of a process whose standard input stays open to its end."""
    with process:
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
        return process.returncode, process.stdout.read().splitlines(), process.stderr.read()


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return Store(tmp_path / "store")


def test_success_and_failures(store):
    code, messages, errors = end(start(store, "nothing"))
    assert (code, errors) == (0, "")
    assert [json.loads(line) for line in messages] == [
        {"done": 1, "total": 2, "label": "measuring"},
        {"finished": True},
    ]
    code, messages, errors = end(start(store, "mistake"))
    assert (code, messages, errors) == (2, ['{"error": "file x is damaged: delete it"}'], "")
    code, messages, errors = end(start(store, "bug"))
    assert (code, messages) == (1, ["a library says something"])
    assert errors.startswith("Traceback") and errors.endswith("RuntimeError: a bug\n")


def test_job_ends_when_its_standard_input_closes(store):
    process = start(store, "forever")
    assert "measuring" in process.stdout.readline()
    process.stdin.close()
    closed = time.monotonic()
    assert end(process)[0] != 0
    assert time.monotonic() - closed < 2


def test_job_ends_when_nobody_reads(store):
    process = start(store, "forever", script=CHILD.replace("report(1", "time.sleep(0.3) or report(1"))
    process.stdout.close()
    assert process.wait(timeout=20) == 1
    process.stdin.close()
    process.stderr.close()


def test_second_process_waits_and_finds_it_done(store):
    first = start(store, "wait")
    assert "measuring" in first.stdout.readline()
    second = start(store, "wait")
    assert "waiting for another process" in second.stdout.readline()
    (store.path / "go").touch()
    assert [end(first)[0], end(second)[0]] == [0, 0]
    assert (store.path / "measured").read_text() == f"{first.pid}\n"
    assert store.state(R50, "complexity") == "done"


def test_second_process_takes_over_from_a_dead_one(store):
    first = start(store, "wait")
    assert "measuring" in first.stdout.readline()
    second = start(store, "wait")
    assert "waiting" in second.stdout.readline()
    first.kill()
    end(first)
    (store.path / "go").touch()
    assert end(second)[0] == 0
    assert (store.path / "measured").read_text() == f"{first.pid}\n{second.pid}\n"


# In this process


def test_done_is_not_measured_again(store, monkeypatch):
    measured = []
    monkeypatch.setattr(jobs, "_measure_and_write", lambda job, *_: measured.append(job))
    job = Job("complexity", (R50,), str(store.path))
    jobs.run_job(job, Reporter())
    assert measured == [job]
    store.write(complexity(R50))
    jobs.run_job(job, Reporter())
    assert measured == [job]


MEASURERS = {
    "accuracy": "bench.measure.accuracy.measure_accuracy",
    "latency": "bench.measure.latency.timing.measure_latency",
    "released": "bench.measure.released.measure_released",
}


@pytest.mark.parametrize("kind", MEASURERS)
def test_what_a_measurer_returns_becomes_the_record(store, monkeypatch, kind):
    """Work that a killed job goes on from is there until the record is."""
    seed, name = (0, "checkpoint.pt") if kind == "accuracy" else (None, jobs.UNFINISHED[kind])
    work = store.scratch_dir(SMALL, kind, seed) / name
    details = {"weights": WEIGHTS} if kind == "released" else {"a": "fact"}
    recipe = recipe_for(SMALL) if kind == "accuracy" else None
    measured = Measured({"m": {"value": 1.0, "unit": "s", "n": 3}}, 7.5, details, {"m": [1.0, 2.0]}, recipe)

    def measure(*_):
        if not work.exists():
            work.write_text("half")
            raise KeyboardInterrupt
        return {SMALL.key: measured} if kind == "latency" else measured

    monkeypatch.setattr(MEASURERS[kind], measure)
    job = Job(kind, (SMALL,), str(store.path), seed, weights="file", command=("bench", "run", "a b"))
    with pytest.raises(KeyboardInterrupt):
        jobs.run_job(job, Reporter())
    assert store.get(SMALL, kind, seed) is None and work.exists()
    jobs.run_job(job, Reporter())
    record = store.get(SMALL, kind, seed)
    assert (record.metrics, record.samples, record.details) == (measured.metrics, measured.samples, details)
    assert record.recipe == (recipe and recipe.to_dict()) and record.provenance["duration_s"] == 7.5
    assert record.provenance["command"] == "bench run 'a b'" and not work.exists()


def test_latencies_are_done_when_timed_with_their_bases(store, monkeypatch):
    measured = []
    monkeypatch.setattr(jobs, "_measure_and_write", lambda job, *_: measured.append(job))
    base = experiment("maskformer", "r50", "coco_panoptic", "paper")
    job = Job("latency", (R50,), str(store.path), bases=(base,))
    for record, done in [
        (latency(), False),
        (latency(beside={base: 1.0}), True),
        (latency(run="b"), False),
        (latency(base, run="b"), True),
    ]:
        store.write(record)
        measured.clear()
        jobs.run_job(job, Reporter())
        assert measured == ([] if done else [job])


def test_bases_are_timed_but_have_no_record_of_this(store, monkeypatch):
    base, timed = experiment("maskformer", "r50", "coco_panoptic", "paper"), []

    def measure(experiments, *_):
        timed.extend(experiments)
        return {e.key: Measured({"m": {"value": 1.0, "unit": "ms", "n": 3}}, 1.0, {}) for e in experiments}

    monkeypatch.setattr(MEASURERS["latency"], measure)
    jobs.run_job(Job("latency", (R50,), str(store.path), bases=(base,)), Reporter())
    assert timed == [R50, base] and [r.experiment for r in store.load_all()] == [R50]


def test_names_of_unfinished_work_are_the_measurers_own():
    assert (jobs.UNFINISHED["accuracy"], jobs.UNFINISHED["released"]) == (engine.CHECKPOINT, LOG)


def test_complexity_record(store):
    seen = []
    job = Job("complexity", (CHEAPEST,), str(store.path), command=("bench", "run", "table1"))
    jobs.run_job(job, lambda *report: seen.append(report))
    record = store.get(CHEAPEST, "complexity")
    assert record.metrics["params"]["value"] == pytest.approx(45, rel=0.03)  # Table 1 of the paper
    assert record.metrics["flops"]["value"] == pytest.approx(181, rel=0.03)
    assert record.provenance["command"] == "bench run table1" and record.provenance["duration_s"] > 0
    assert torch.__version__.startswith(record.provenance["versions"]["torch"])
    assert record.details["images"].startswith("mean over the first 100 images of COCO val2017")
    assert seen and seen[-1][0] == seen[-1][1]


# A kill in training

ITERATIONS, STOPPED_AT = 4, 2
# In both: the smallest recipe with which everything happens, and a checkpoint a step.
SHRINK = f"""
from dataclasses import replace
from bench.data.synthesis import synthetic
from bench.experiments import RECIPES
from bench.training import engine
synthetic.SPLITS = {{"train": 6, "val": 2}}
key = ("synthetic_panoptic", "small")
tiny = {{"iterations": {ITERATIONS}, "batch_size": 2, "num_points": 64, "seeds": (0,)}}
RECIPES[key] = replace(RECIPES[key], **tiny)
engine.CHECKPOINT_SECONDS = 0.0
"""
TRAIN = SHRINK + f"""
import sys, time
from bench.run import jobs
from bench.training.update import Updater
step = Updater.step
def stopping(self, iteration, *rest):
    if iteration == {STOPPED_AT}:
        print("stopped", flush=True)
        time.sleep(600)
    return step(self, iteration, *rest)
if len(sys.argv) > 2:
    Updater.step = stopping
jobs.main()
"""  # fmt: skip


@pytest.fixture
def shrunk(monkeypatch, tmp_path):
    """SHRINK in this process, one thread, and the data in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    key = ("synthetic_panoptic", "small")
    monkeypatch.setattr(synthetic, "SPLITS", synthetic.SPLITS)
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", engine.CHECKPOINT_SECONDS)
    monkeypatch.setitem(RECIPES, key, RECIPES[key])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    exec(SHRINK, {})
    yield
    torch.set_num_threads(threads)


SAVING = TRAIN.replace(
    "jobs.main()",
    """
engine.CHECKPOINT_SECONDS = 1e9
jobs.Job.saves_first = True  # as at paper scale
def slow(self, iteration, *rest):
    if iteration == 2:
        print("third", flush=True)
        time.sleep(2)  # so that the signal comes in time
    return step(self, iteration, *rest)
Updater.step = slow
jobs.main()
""",
)


@pytest.mark.parametrize("end", ["sigterm", "sigint", "the run is gone"])
def test_training_at_paper_scale_saves_before_it_ends(tmp_path, shrunk, end):
    """Its last checkpoint may be ten minutes old."""
    what = experiment("hcformer", "small", "synthetic_panoptic", "small", decoder_layers=1, num_queries=8)
    store = Store(tmp_path / "store")
    job = Job("accuracy", (what,), str(store.path), seed=1)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT, "text": True}
    with subprocess.Popen([sys.executable, "-c", SAVING, job.to_json()], **pipes) as process:
        assert any(line == "third\n" for line in process.stdout)
        if end == "the run is gone":
            process.stdin.close()
            process.stdout.close()
        else:
            process.send_signal({"sigterm": signal.SIGTERM, "sigint": signal.SIGINT}[end])
            assert json.loads(process.stdout.read().splitlines()[-1])["error"].startswith("stopped, its work saved")
        assert process.wait(60) == (1 if end == "the run is gone" else TRY_AGAIN)
    state = torch.load(store.scratch_dir(what, "accuracy", 1) / "checkpoint.pt")
    assert state["iteration"] == 4  # asked before each step


def test_killed_training_goes_on_and_ends_in_the_same_record(tmp_path, shrunk):
    what = experiment("hcformer", "small", "synthetic_panoptic", "small", decoder_layers=1, num_queries=8)
    straight, killed = Store(tmp_path / "straight"), Store(tmp_path / "killed")
    jobs.run_job(Job("accuracy", (what,), str(straight.path), seed=1), Reporter())
    job = Job("accuracy", (what,), str(killed.path), seed=1)
    command = [sys.executable, "-c", TRAIN, job.to_json()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT, "text": True}
    with subprocess.Popen([*command, "stop"], **pipes) as process:
        assert any(line == "stopped\n" for line in process.stdout)
        process.kill()
    checkpoint = killed.scratch_dir(what, "accuracy", 1) / "checkpoint.pt"
    assert checkpoint.exists() and killed.state(what, "accuracy", 1) == "missing"
    with subprocess.Popen(command, **pipes) as process:
        messages = [json.loads(line) for line in process.stdout if line.startswith("{")]
        assert process.wait() == 0
    assert messages[-1] == {"finished": True}
    assert not checkpoint.exists()

    expected, record = straight.get(what, "accuracy", 1), killed.get(what, "accuracy", 1)
    assert (expected.details["resumed"], record.details["resumed"]) == (0, 1)
    assert record.recipe == recipe_for(what).to_dict()
    ours, theirs = ({n: m for n, m in r.metrics.items() if not n.endswith("_seconds")} for r in (record, expected))
    assert ours == theirs and {"PQ", "mIoU_pan", "final_loss"} <= set(ours)
    same = ("train_fingerprint", "val_fingerprint", "train_images", "val_images", "parameters", "imagenet_weights")
    assert [name for name in same if record.details[name] != expected.details[name]] == []
