"""`bench train`: its record, mistakes, and SIGTERM in one process and in two."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.optimize  # noqa: F401  (starts a process when it is imported, which the fixture `bench` refuses)
import torch

from bench.cli import train as cli_train
from bench.data.synthesis import synthetic
from bench.experiments import RECIPES, find_row, get_table, recipe_for
from bench.records import Store
from bench.run import jobs
from bench.training import engine
from bench.training.distributed import Stopped, World
from bench.weights.files import sha256
from tests.conftest import mistake
from tests.report.fakes import PROVENANCE

ROOT = Path(__file__).resolve().parents[2]
ROW, KEY = "table1/maskformer-small", ("synthetic_panoptic", "small")
WHAT = find_row(ROW)
# The smallest training with which everything happens, a checkpoint a step.
SHRINK = """
from dataclasses import replace
from bench.data.synthesis import synthetic
from bench.experiments import RECIPES
from bench.training import engine
synthetic.SPLITS = {"train": 6, "val": 3}
key = ("synthetic_panoptic", "small")
RECIPES[key] = replace(RECIPES[key], iterations=12, batch_size=2, num_points=64, crop_size=(64, 64))
engine.CHECKPOINT_SECONDS = 0.0
"""
PROGRAM = (
    SHRINK
    + """
import time
import torch
from bench.cli import app as cli
from bench.training.update import Updater
torch.set_num_threads(1)
step = Updater.step
def slow(self, *given):
    time.sleep(0.1)  # so that the signal comes in time
    return step(self, *given)
Updater.step = slow
cli.main()
"""
)


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    """The fixture `bench` refuses them, and provenance would ask git and uname."""
    monkeypatch.setattr("bench.provenance.collect", lambda command: {**PROVENANCE, "command": " ".join(command)})


@pytest.fixture
def short(monkeypatch, tmp_path):
    """SHRINK in this process, on one thread, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(synthetic, "SPLITS", synthetic.SPLITS)
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", engine.CHECKPOINT_SECONDS)
    monkeypatch.setitem(RECIPES, KEY, RECIPES[KEY])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    exec(SHRINK, {})
    yield
    torch.set_num_threads(threads)


def test_record_of_a_training(bench, tmp_path, short):
    store = Store(tmp_path / "store")
    code, out, errors = bench("train", ROW, "--seed", 1, "--store", store.path, "--precision", "bf16")
    assert code == 0, errors
    path = store.record_path(WHAT, "accuracy", 1)
    assert "mIoU_pan" in out and "final_loss" in out and out.endswith(f"written: {path}\n")
    weights = store.path / "work" / WHAT.key / "accuracy-1" / "weights.safetensors"
    assert f"weights: {weights}, for 'bench predict' and 'bench run' with --weights\n" in out
    assert "batch of 2: 1 process(es), 2 image(s) at once, 1 pass(es); bf16 on cpu" in errors
    assert "step 1/12, loss " in errors and "images/s" in errors
    record = store.get(WHAT, "accuracy", 1)
    assert record.is_current and record.details["precision"] == "bf16" and record.details["processes"] == 1
    assert record.provenance["command"].startswith(f"bench train {ROW} --seed 1 --store ")
    folder = store.scratch_dir(WHAT, "accuracy", 1)
    assert len((folder / "log.jsonl").read_text().splitlines()) == 12
    assert not (folder / "checkpoint.pt").exists()
    assert record.details["weights"] == {"file": weights.relative_to(store.path).as_posix(), "sha256": sha256(weights)}

    before = path.stat().st_mtime_ns
    code, again, errors = bench("train", ROW, "--seed", 1, "--store", store.path)
    assert (code, again) == (0, out) and path.stat().st_mtime_ns == before and "step" not in errors


def test_gradient_accumulation_is_said(bench, tmp_path, short):
    """With a backbone of layer norms: trained batch norms are of the whole batch."""
    row = "table1@timm:test_convnext/" + get_table("table1@timm:test_convnext").small_rows[0].name
    code, _, errors = bench("train", row, "--seed", 0, "--store", tmp_path / "store", "--micro-batch", 1)
    assert code == 0 and "batch of 2: 1 process(es), 1 image(s) at once, 2 pass(es); float32 on" in errors
    details = Store(tmp_path / "store").get(find_row(row), "accuracy", 0).details
    assert (details["batch_size"], details["images_at_once"], details["passes_a_step"]) == (2, 1, 2)
    assert details["batch_norm_images"] == 0


# Mistakes


def test_mistakes(bench, tmp_path):
    mistake(bench("train", "table1/hcformer-r5", "--seed", 0), "did you mean 'hcformer-r50'?")
    mistake(bench("train", "hcformer", "--seed", 0), "TABLE/METHOD-BACKBONE")
    mistake(bench("train", ROW, "--seed", 0, "--precision", "fp8"), "unknown precision 'fp8'", "bf16")
    (tmp_path / "file").touch()
    mistake(bench("train", ROW, "--seed", 0, "--store", "file"), "file is not a folder", "--store")
    for seed in ([], ["--seed", -1], ["--seed", 2**64]):
        code, _, errors = bench("train", ROW, *seed)
        assert code == 2 and "--seed" in errors


def test_data_that_is_not_there(bench, tmp_path):
    answer = bench("train", "table1/hcformer-r50", "--seed", 0, "--store", tmp_path / "store")
    mistake(answer, "data set coco_panoptic needs its files: ", "--data-root or BENCH_DATA")


def test_batch_that_the_processes_cannot_share(bench, monkeypatch):
    """Said before anything is measured or claimed."""
    monkeypatch.setattr("bench.training.distributed.join", lambda: _World(World(0, 5, 5, torch.device("cpu"))))
    mistake(bench("train", ROW, "--seed", 0), "5 processes cannot share a batch of 8 evenly: start 1, 2, 4, 8 of them")


@pytest.mark.parametrize(("row", "images", "batch"), [(ROW, 4, 8), ("tableIb/fpn-r101", 1, 16)])
def test_passes_that_trained_batch_norms_cannot_take(bench, tmp_path, row, images, batch):
    """Before data are looked for or anything is written."""
    answer = bench("train", row, "--seed", 0, "--store", tmp_path / "store", "--micro-batch", images)
    mistake(answer, f"whole batch of {batch} images", f"--micro-batch {images}", f"start {batch // images} processes")
    assert list(tmp_path.iterdir()) == []


def test_as_many_processes_as_give_the_whole_batch(bench, tmp_path, monkeypatch):
    begun = []

    def begin(job, report, execution):
        begun.append(execution.passes(recipe_for(job.experiments[0])))
        raise Stopped

    monkeypatch.setattr("bench.training.distributed.join", lambda: _World(World(0, 8, 8, torch.device("cpu"))))
    monkeypatch.setattr(jobs, "run_job", begin)
    code, *_ = bench("train", "tableIb/pspnet-r101", "--seed", 0, "--store", tmp_path / "store", "--micro-batch", 2)
    assert code == 75 and begun == [[range(2)]]


class _World:
    def __init__(self, world):
        self.world = world

    def __enter__(self):
        return self.world

    def __exit__(self, *_):
        pass


def test_loss_that_is_not_finite(bench, tmp_path, short, monkeypatch):
    monkeypatch.setitem(RECIPES, KEY, replace(RECIPES[KEY], learning_rate=1e30, warmup_iterations=0))
    code, out, errors = bench("train", ROW, "--seed", 0, "--store", tmp_path / "store")
    last = errors.splitlines()[-1]
    assert (code, out) == (2, "") and last.startswith("error: the loss is nan at iteration ")
    assert "accuracy-0/checkpoint.pt has the state of iteration " in last and ", images " in last


# SIGTERM


def test_waits_for_another_process_until_told_to_stop(bench, tmp_path, short, monkeypatch):
    monkeypatch.setattr(jobs, "WAIT_SECONDS", 0.0)
    answers = iter([False, True])
    monkeypatch.setattr(cli_train._StopRequest, "__call__", lambda self: next(answers))
    store = Store(tmp_path / "store")
    with store.claim(WHAT, "accuracy", 0) as mine:
        assert mine
        code, out, errors = bench("train", ROW, "--seed", 0, "--store", store.path)
    assert (code, out) == (75, "") and "waiting for another process" in errors
    assert errors.endswith(f"{ROW} seed 0 stopped, its work saved: the same command goes on\n")


def start(tmp_path, store, *launcher):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, *launcher, str(program), "train", ROW, "--seed", "1", "--store", str(store.path)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def steps(store):
    log = store.path / "work" / WHAT.key / "accuracy-1" / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for_a_step(store, process):
    end = time.monotonic() + 90
    while steps(store) < 2:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


def children(process):
    """The processes that it has started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.parametrize("launcher", [(), ("-m", "bench.run.launch.torchrun", "--standalone", "--nproc-per-node", "2")])
def test_sigterm_saves_and_asks_to_be_run_again(tmp_path, short, launcher):
    """Of two processes only the second gets the signal; both stop after the same step."""
    straight = Store(tmp_path / "straight")
    jobs.run_job(jobs.Job("accuracy", (WHAT,), str(straight.path), seed=1), jobs.Reporter())
    store = Store(tmp_path / "store")
    process = start(tmp_path, store, *launcher)
    wait_for_a_step(store, process)
    os.kill(children(process)[-1] if launcher else process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert f"{ROW} seed 1 stopped, its work saved: the same command goes on\n" in errors and "Traceback" not in errors
    checkpoint = store.scratch_dir(WHAT, "accuracy", 1) / "checkpoint.pt"
    assert 2 <= torch.load(checkpoint)["iteration"] == steps(store) < 12
    assert store.get(WHAT, "accuracy", 1) is None

    process = start(tmp_path, store, *launcher)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert out.count("written: ") == 1
    record, expected = store.get(WHAT, "accuracy", 1), straight.get(WHAT, "accuracy", 1)
    assert (record.details["resumed"], record.details["processes"]) == (1, 2 if launcher else 1)
    losses = record.metrics["final_loss"]["value"], expected.metrics["final_loss"]["value"]
    assert losses[0] == pytest.approx(losses[1], rel=0.01 if launcher else 0)  # twelve steps of AdamW: rounding grows
    lines = [json.loads(line)["iteration"] for line in checkpoint.with_name("log.jsonl").read_text().splitlines()]
    assert lines == list(range(1, 13))
    if not launcher:
        metrics = [{n: m for n, m in r.metrics.items() if not n.endswith("_seconds")} for r in (record, expected)]
        assert metrics[0] == metrics[1]
