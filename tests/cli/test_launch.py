"""`bench launch` as a user types it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partialmethod
from pathlib import Path

import pytest

from bench.data.synthesis import synthetic
from bench.experiments import RECIPES, get_table
from bench.records import Store
from bench.run import plan as runner
from bench.run.launch import cost, plan, slurm
from bench.run.launch.plan import Setup, find_trainings
from tests.conftest import mistake
from tests.report.fakes import full_store
from tests.run import fake_slurm, short_training

ROOT = Path(__file__).resolve().parents[2]
TABLE = get_table("table1")
Popen = subprocess.Popen
SETUP = Setup.__init__


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def cluster(bench, monkeypatch, tmp_path):
    """bench, with a Slurm that takes jobs and starts none, and without generating the data."""
    fake_slurm.install(tmp_path / "slurm")
    monkeypatch.setattr(subprocess, "Popen", Popen)  # the fixture refuses every process
    monkeypatch.setattr(runner, "prepare_data", lambda *_: None)
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}:{os.environ['PATH']}")
    return bench


# Dry run


def test_dry_run_of_table1_at_paper_scale(tmp_path):
    """In a process of its own, without data, GPU or network: 12 rows, 3 seeds, the iterations of the recipes."""
    command = [sys.executable, "-m", "bench", "launch", "table1", "--scale", "paper", "--dry-run"]
    command += ["--store", str(tmp_path / "store"), "--data-root", str(tmp_path / "none"), "--gpus", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "36 trainings, 0 done, 0 at work, 36 to start" in done.stdout and "36 jobs of 8 GPU(s)" in done.stdout
    row = re.search(r"table1/hcformer-r50 +0 1 2 +368,750 +(\S+) +(\S+) +(\S+) to (\S+) +(\S+) +assumed", done.stdout)
    seconds, hours, low, high, wall = (float(number.replace(",", "")) for number in row.groups())
    assert hours == pytest.approx(3 * 368_750 * seconds / 3600, rel=0.01) and low < hours < high
    assert wall == pytest.approx(hours / 3 / 8, rel=0.01)
    first = re.match(
        r"36 jobs of 8 GPU\(s\): about (\S+) GPU hours \((\S+) to (\S+)\), (\S+) node-days \((\S+) to (\S+)\)\n",
        done.stdout,
    )
    total, low, high, days, fewest, most = (float(number.replace(",", "")) for number in first.groups())
    assert low < total < high and fewest < days < most and days == pytest.approx(total / 8 / 24, rel=0.01)
    lines = [line for line in done.stdout.splitlines() if "-m bench train" in line]
    assert len(lines) == 36 and all("--nproc-per-node 8" in line for line in lines)
    assert sum("table1/hcformer+-swin_l --seed 2 " in line for line in lines) == 1
    assert list(tmp_path.iterdir()) == []


def test_dry_run_says_what_is_assumed(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "visible_gpus", lambda: [])
    code, out, errors = bench("launch", "table1", "--scale", "paper", "--dry-run")
    assert (code, errors) == (0, "") and "no GPU here: 8 a job assumed" in out and "assumed: nothing measured" in out
    # By hand, in units of 50 epochs: R50 and Swin-S 1 + 1 + 1 + 2 each, Swin-L twice that; mean step 4 s.
    total = 3 * (5 + 5 + 10) * 368_750 * runner.PAPER_STEP_S / 3600
    said = float(re.search(r"about (\S+) GPU hours", out)[1].replace(",", ""))
    assert said == pytest.approx(total, rel=0.01) and list(tmp_path.iterdir()) == []


def test_dry_run_of_what_is_missing(bench, tmp_path):
    store = full_store(TABLE, tmp_path / "store")
    code, out, _ = bench("launch", "table1", "--dry-run", "--store", store.path)
    assert code == 0 and "12 trainings, 12 done, 0 at work, 0 to start" in out
    last = find_trainings(TABLE, store, "small")[-1]
    store.record_path(last.experiment, "accuracy", last.seed).unlink()
    code, out, _ = bench("launch", "table1", "--dry-run", "--store", store.path)
    assert "11 done, 0 at work, 1 to start" in out and "table1/hcformer+-small --seed 2" in out
    assert "measured: 2 record(s) of store, Example CPU" in out
    with store.claim(last.experiment, "accuracy", last.seed):
        code, out, _ = bench("launch", "table1", "--dry-run", "--store", store.path)
    assert "1 at work, 0 to start" in out and f"at work: {last.label}" in out


# Mistakes


@pytest.mark.parametrize(
    "options, words",
    [
        (["--backend", "slrm"], ["unknown backend 'slrm'", "did you mean 'slurm'?"]),
        (["--scale", "papr"], ["unknown scale 'papr'"]),
        (["--nodes", "2"], ["--nodes", "--backend slurm"]),
        (["--partition", "gpu", "--backend", "local"], ["--partition", "--backend local"]),
        (["--hours", "5"], ["--hours", "--backend slurm"]),
        (["--hours", "nan", "--backend", "slurm"], ["--hours must be positive"]),
        (["--hours", "0", "--backend", "slurm"], ["--hours must be positive"]),
        (["--memory", "9"], ["--memory", "--backend slurm"]),
        (["--seeds", "0,one"], ["--seeds takes whole numbers", "'one'"]),
        (["--seeds", "5"], ["unknown seed of table1 '5'"]),
        (["--methods", "hcformr"], ["unknown method", "did you mean 'hcformer'?"]),
        (["--gpus", "3", "--backend", "slurm", "--dry-run"], ["3 processes", "batch of 8", "--gpus"]),
        (["--gpus", "64"], ["--gpus 64", "of this machine"]),
    ],
)
def test_mistakes(bench, tmp_path, options, words):
    mistake(bench("launch", "table1", *options), *words)
    assert list(tmp_path.iterdir()) == []


def test_unknown_table(bench):
    mistake(bench("launch", "tabel1"), "unknown table 'tabel1'", "did you mean 'table1'?")
    mistake(bench("launch", "table1", "table1/hcformer-r51"), "did you mean 'hcformer-r50'?")


def test_paper_scale_without_a_gpu_or_data(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "visible_gpus", lambda: [])
    mistake(bench("launch", "table1", "--scale", "paper"), "no CUDA GPU", "--backend slurm", "--gpus 0")
    answer = bench("launch", "table1", "--scale", "paper", "--gpus", "0")
    assert answer[0] == 2 and answer[2].count("\n") == 1 and "--data-root or BENCH_DATA" in answer[2]
    assert list(tmp_path.iterdir()) == []


# Slurm


def answer_of(result, *words):
    code, _, errors = result
    assert code == 2 and errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert all(word in errors for word in words), errors


def test_without_slurm(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "prepare_data", lambda *_: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    answer_of(bench("launch", "table1", "--backend", "slurm"), "no Slurm here", "--backend torchrun")


def test_slurm_refuses(cluster, store):
    answer_of(
        cluster("launch", "table1", "--backend", "slurm", "--partition", "nowhere", "--store", store.path),
        "invalid partition specified: nowhere", "--partition",
    )  # fmt: skip


def test_job_array_and_what_the_same_command_says_later(cluster, store, tmp_path):
    options = ["--backend", "slurm", "--gpus", "4", "--nodes", "2", "--partition", "gpu", "--hours", "12"]
    code, out, errors = cluster("launch", "table1", *options, "--store", store.path)
    assert (code, errors) == (0, "")
    assert (
        "job 4242_0: table1/maskformer-small seed 0, log " in out
        and "job 4242_11: table1/hcformer+-small seed 2" in out
    )
    script = (tmp_path / "slurm" / "script").read_text()
    wanted = {
        "array=0-11", "job-name=hcformer-bench", "nodes=2", "ntasks-per-node=1", "gpus-per-node=4",
        "cpus-per-task=32", "partition=gpu", "time=720", "requeue", "signal=USR2@180", "open-mode=append", "mem=16G",
    }  # fmt: skip
    assert wanted <= set(re.findall(r"#SBATCH --(\S+)", script))
    assert script.count(" -m bench train table1/") == 12 and (store.path / "work" / "slurm").is_dir()
    # Ten of them are still there; two have ended without a record.
    listed = "".join(f"4242_{index}|{'RUNNING' if index else 'PENDING'}\n" for index in range(10))
    (tmp_path / "slurm" / "states").write_text(listed + "77_1|RUNNING\n")
    code, out, _ = cluster("launch", "table1", *options, "--store", store.path)
    assert code == 0 and "10 at work, 2 to start" in out
    assert "at work: table1/maskformer-small seed 0: job 4242_0 pending" in out
    assert "--array=0-1\n" in (tmp_path / "slurm" / "script").read_text()


def test_damaged_note_of_a_job(cluster, store):
    training = find_trainings(TABLE, store, "small")[0]
    path = plan.log_path(training, store).with_name(slurm.NOTE)
    path.write_text("{}")
    mistake(
        cluster("launch", "table1", "--backend", "slurm", "--store", store.path), str(path), "is damaged", "delete it"
    )


def test_number_of_requeues_follows_from_the_time_limit(cluster, store, monkeypatch, tmp_path):
    """By hand: 450 steps of 720 s are 90 hours, twelve limits of 8; twice that, and 20 to spare."""
    monkeypatch.setattr(cost, "step_times", lambda all_, *_: {e: cost.StepTime(720.0, "given") for e in all_})
    assert cluster("launch", "table1", "--backend", "slurm", "--hours", "8", "--store", store.path)[0] == 0
    assert " --requeues 44 " in (tmp_path / "slurm" / "script").read_text()


def test_a_dry_run_prints_the_script_that_is_submitted(cluster, store, tmp_path):
    """To the byte; it needs no Slurm, and writes nothing."""
    command = ["launch", "table1/hcformer-small", "table1/maskformer-small", "--seeds", "0,2", "--backend", "slurm"]
    command += ["--gpus", "2", "--partition", "a b", "--memory", "40", "--hours", "1.5", "--store", store.path]
    code, out, errors = cluster(*command, "--dry-run")
    assert (code, errors, store.path.exists()) == (0, "", False)
    assert not (tmp_path / "slurm" / "calls").exists()
    assert out.startswith("4 jobs of 2 GPU(s): about ") and "2 GPU(s) and 40 GB of memory, 20 a process" in out
    assert cluster(*command)[0] == 0
    script = (tmp_path / "slurm" / "script").read_text()
    assert script in out and script.startswith("#!/bin/bash\n#SBATCH ")
    wanted = ("array=0-3", "mem=40G", "time=90", "partition='a b'", "gpus-per-node=2", "requeue", "signal=USR2@180")
    assert all(f"#SBATCH --{line}\n" in script for line in wanted)
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    trained = re.findall(r"train (\S+) --seed (\d)", script)
    assert trained == [(f"table1/{m}-small", seed) for m in ("hcformer", "maskformer") for seed in "02"]


def test_memory_follows_gpus_and_scale(cluster):
    for options, memory in ((["--scale", "paper"], 256), (["--scale", "paper", "--gpus", "4"], 128), ([], 4)):
        code, out, _ = cluster("launch", "table1", *options, "--backend", "slurm", "--dry-run")
        assert code == 0 and f"#SBATCH --mem={memory}G\n" in out and f"{memory} GB of memory" in out


def test_sbatch_that_answers_nonsense(cluster, store, tmp_path):
    (tmp_path / "slurm" / "sbatch").write_text("#!/bin/sh\necho hello\n")
    answer_of(
        cluster("launch", "table1", "--backend", "slurm", "--store", store.path), "sbatch refused the jobs (hello)"
    )


# On this machine


@pytest.fixture
def short(bench, monkeypatch):
    """bench, whose launches run the real `bench train` with little data and few iterations."""
    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(synthetic, "SPLITS", synthetic.SPLITS)
    monkeypatch.setitem(RECIPES, short_training.KEY, RECIPES[short_training.KEY])
    short_training.shrink()
    monkeypatch.setattr(Setup, "__init__", partialmethod(SETUP, entry=(short_training.__file__, "train")))
    all_trainings = find_trainings
    monkeypatch.setattr(plan, "find_trainings", lambda *given: all_trainings(*given)[:4:3])  # of two methods
    return bench


def test_real_trainings_side_by_side_one_killed(short, store, tmp_path):
    """`bench train` itself, two at once: one gets SIGTERM in the middle, is requeued and resumes."""
    victim, other = plan.find_trainings(TABLE, store, "small")
    log = plan.work_folder(victim, store) / "log.jsonl"

    def kill():
        end = time.monotonic() + 180
        while time.monotonic() < end:
            if log.exists() and log.stat().st_size:
                with (plan.work_folder(victim, store) / ".lock").open() as lock:
                    holder = os.fstat(lock.fileno()).st_ino
                pids = [
                    line.split()[4] for line in Path("/proc/locks").read_text().splitlines() if f":{holder} " in line
                ]
                if pids:
                    os.kill(int(pids[0]), signal.SIGTERM)
                    return
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    code, out, errors = short("launch", "table1", "--backend", "local", "--gpus", "0", "--store", store.path)
    thread.join()
    assert code == 0 and "2 trained" in out, errors
    assert "done: table1/maskformer-small seed 0" in errors
    record = store.get(victim.experiment, "accuracy", victim.seed)
    assert record.details["resumed"] == 1 and record.recipe["iterations"] == short_training.ITERATIONS
    assert store.get(other.experiment, "accuracy", other.seed).details["resumed"] == 0
    said = plan.log_path(victim, store).read_text()
    assert "stopped" in said and "launch: stopped, requeued" in said
    assert "2 done, 0 at work, 0 to start" in short("launch", "table1", "--store", store.path)[1]


def test_a_failure_is_named_with_its_log(short, store, monkeypatch):
    monkeypatch.setattr(Setup, "__init__", partialmethod(SETUP, entry=(short_training.__file__, "trian")))
    code, out, errors = short("launch", "table1", "--gpus", "0", "--store", store.path)
    last = errors.splitlines()[-1]
    assert code == 2 and last.startswith("error: 2 job(s) failed") and "the same command tries them again" in last
    for training in plan.find_trainings(TABLE, store, "small"):
        assert f"{training.label}: ended without a record, see {plan.log_path(training, store)}" in last
