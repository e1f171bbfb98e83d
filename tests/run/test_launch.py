"""Jobs of a launch: what is missing, what it costs, and real processes that are stopped, requeued and finish."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from torch.distributed.run import parse_args

from bench.errors import BenchError
from bench.experiments import experiment, find_row, get_table, recipe_for
from bench.records import Store
from bench.run import plan as runner
from bench.run.launch import cost, plan, sbatch, slurm, training_process
from bench.run.launch.plan import Setup, command, find_trainings
from bench.run.launch.sbatch import Resources, sbatch_script
from bench.run.launch.selection import select_trainings
from bench.run.launch.training_process import TrainingProcess, start_training
from bench.run.pool import JobPool
from tests.report.fakes import R50, SMALL, accuracy, complexity, full_store
from tests.run import fake_slurm

STAND_IN = Path(__file__).with_name("stand_in_training.py")
TABLE = get_table("table1")
REFERENCE = Store(Path(__file__).resolve().parents[2] / "results" / "reference")


@pytest.fixture
def setup(tmp_path):
    return Setup(Store(tmp_path / "store"), entry=(str(STAND_IN),))


def launched(trainings, setup, slots=1, gpus=()):
    """The failures of a launch on this machine."""
    jobs = [(training, 1.0) for training in trainings]
    return JobPool([(jobs, slots)], start=partial(TrainingProcess, setup=setup, free_gpus=list(gpus))).run()


def starts(training, setup):
    """What the stand-in noted at each start: process, first step, GPUs, parent."""
    path = plan.work_folder(training, setup.store) / "pids"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def states(trainings, store):
    return [store.state(t.experiment, "accuracy", t.seed) for t in trainings]


def in_background(action):
    failed = []

    def run():
        try:
            action()
        except BaseException as error:  # an assertion in a thread would be lost
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failed


def test_two_jobs_one_killed_and_requeued(setup, monkeypatch, capsys):
    """SIGTERM to one of them: exit code 75, requeued, resumed from its checkpoint; the other is not disturbed."""
    monkeypatch.setenv("STEPS", "40")
    victim, other = trainings = find_trainings(TABLE, setup.store, "small")[:2]

    def kill():
        wait_for(lambda: starts(victim, setup) and starts(other, setup))
        time.sleep(0.3)
        assert states(trainings, setup.store) == ["missing", "missing"], "two at once"
        os.kill(int(starts(victim, setup)[0][0]), signal.SIGTERM)

    thread, failed = in_background(kill)
    assert launched(trainings, setup, slots=2) == []
    thread.join()
    assert not failed
    assert states(trainings, setup.store) == ["done", "done"]
    said = capsys.readouterr().err
    assert all(f"done: {training.label}" in said for training in trainings)
    (first, begin, *_), (second, resumed, *_) = starts(victim, setup)
    assert first != second and begin == "0" and 0 < int(resumed) < 40
    assert len(starts(other, setup)) == 1
    assert "launch: stopped, requeued" in plan.log_path(victim, setup.store).read_text()


def test_a_failed_job_is_named_with_its_log_and_the_rest_goes_on(setup, monkeypatch, capsys):
    monkeypatch.setenv("STEPS", "1")
    monkeypatch.setenv("FAIL", "0")
    trainings = find_trainings(TABLE, setup.store, "small")[:2]
    plan.log_path(trainings[0], setup.store).write_text("error: of an earlier launch\n")
    (failure,) = launched(trainings, setup, slots=2)
    path = str(plan.log_path(trainings[0], setup.store))
    assert failure.startswith("table1/maskformer-small seed 0: the disk is full") and path in failure
    assert states(trainings, setup.store) == ["missing", "done"]
    assert len(starts(trainings[0], setup)) == 1, "a failed job is not requeued"
    said = capsys.readouterr().err
    assert f"failed: {failure}" in said and f"done: {trainings[1].label}" in said


def test_requeues_are_bounded(setup, monkeypatch):
    monkeypatch.setenv("AGAIN", "1")
    monkeypatch.setattr(training_process, "REQUEUES", 1)
    trainings = find_trainings(TABLE, setup.store, "small")[:1]
    (failure,) = launched(trainings, setup)
    assert "ended without a record" in failure and str(plan.log_path(trainings[0], setup.store)) in failure
    assert [step for _, step, *_ in starts(trainings[0], setup)] == ["0", "1"]


def test_interrupted_launch_saves_the_checkpoints_and_the_next_one_goes_on(setup, monkeypatch):
    monkeypatch.setenv("STEPS", "1000")
    trainings = find_trainings(TABLE, setup.store, "small")[:1]

    def interrupt(self):
        if starts(trainings[0], setup):
            time.sleep(0.3)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(JobPool, "_show", interrupt)
        launched(trainings, setup)
    assert len(starts(trainings[0], setup)) == 1 and not plan.is_claimed(trainings[0], setup.store)
    monkeypatch.setenv("STEPS", "1")
    assert launched(trainings, setup) == []
    assert states(trainings, setup.store) == ["done"]
    assert int(starts(trainings[0], setup)[1][1]) > 0


def test_gpus_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPS", "1")
    setup = Setup(Store(tmp_path), gpus=1, entry=(str(STAND_IN),))
    trainings = find_trainings(TABLE, setup.store, "small")[:3]
    assert launched(trainings, setup, slots=2, gpus=["3", "5"]) == []
    seen = [starts(training, setup)[0][2] for training in trainings]
    assert set(seen[:2]) == {"3", "5"} and seen[2] in ("3", "5")


def test_training_of_several_processes_one_killed(tmp_path, monkeypatch):
    """Through torchrun, as on several GPUs."""
    monkeypatch.setenv("STEPS", "60")
    setup = Setup(Store(tmp_path), gpus=2, entry=(str(STAND_IN),))
    (training,) = find_trainings(TABLE, setup.store, "small")[:1]

    def kill():
        wait_for(lambda: starts(training, setup))
        time.sleep(0.3)
        os.kill(int(starts(training, setup)[0][0]), signal.SIGTERM)

    thread, failed = in_background(kill)
    assert launched([training], setup, gpus=["0", "1"]) == []
    thread.join()
    assert not failed and states([training], setup.store) == ["done"]
    assert int(starts(training, setup)[1][1]) > 0 and starts(training, setup)[0][2] == "0,1"


@pytest.mark.parametrize("target", ["worker", "torchrun"])
def test_exit_code_through_torchrun(tmp_path, monkeypatch, target):
    """Two processes on one node; torchrun itself would exit 1 when a worker asks to be run again."""
    monkeypatch.setenv("STEPS", "1000")
    setup = Setup(Store(tmp_path), gpus=2, entry=(str(STAND_IN),))
    training = find_trainings(TABLE, setup.store, "small")[0]
    process = start_training(command(training, setup), plan.log_path(training, setup.store), {})
    wait_for(lambda: starts(training, setup))
    time.sleep(0.3)
    os.kill(process.pid if target == "torchrun" else int(starts(training, setup)[0][0]), signal.SIGTERM)
    assert process.wait(60) == 75
    assert not plan.is_claimed(training, setup.store)


def test_workers_under_torchrun_have_our_time_to_save(tmp_path):
    """Of one second here, in which this worker does not end; torchrun's own would be 30, which a step and a checkpoint
    of 3 GB may exceed."""
    worker, began = tmp_path / "worker.py", tmp_path / "began"
    worker.write_text(
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(began)!r}).touch()\n"
        "time.sleep(100)\n"
    )
    code = "from bench.run import jobs; jobs.SAVE_SECONDS = 1; from bench.run.launch import torchrun; torchrun.main()"
    command = [sys.executable, "-c", code, "--standalone", "--nproc-per-node", "1", str(worker)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait_for(began.exists)
        told = time.monotonic()
        process.terminate()
        assert process.wait(60) == 75 and 1 <= time.monotonic() - told < 25


def test_a_crash_under_torchrun_is_no_request_to_run_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIL", "0")
    setup = Setup(Store(tmp_path), gpus=2, entry=(str(STAND_IN),))
    training = find_trainings(TABLE, setup.store, "small")[0]
    log = plan.log_path(training, setup.store)
    assert start_training(command(training, setup), log, {}).wait(60) == 1
    assert plan.read_failure(log) == "the disk is full"


# Commands and cost


def test_command_of_one_process_and_of_many(tmp_path):
    store = Store(tmp_path)
    training = next(t for t in find_trainings(TABLE, store, "paper") if t.row == "table1/hcformer+-r50" and t.seed == 2)
    tail = ["-m", "bench", "train", "table1/hcformer+-r50", "--seed", "2", "--store", str(tmp_path.resolve())]
    assert command(training, Setup(store, gpus=1)) == [sys.executable, *tail, "--micro-batch", "2"]
    data = ["--data-root", "/data"]
    torchrun = [sys.executable, "-m", "bench.run.launch.torchrun"]
    assert command(training, Setup(store, gpus=8, data_root=Path("/data"))) == [
        *torchrun, "--standalone", "--nnodes", "1", "--nproc-per-node", "8", *tail, *data,
    ]  # fmt: skip
    assert command(training, Setup(store, gpus=4, nodes=2), "node7", 20123, "44_1") == [
        *torchrun, "--rdzv-backend", "c10d", "--rdzv-endpoint", "node7:20123", "--rdzv-id", "44_1",
        "--nnodes", "2", "--nproc-per-node", "4", *tail,
    ]  # fmt: skip
    parsed = parse_args(command(training, Setup(store, gpus=4, nodes=2), "node7", 20123, "44_1")[3:])
    assert parsed.training_script == "bench" and parsed.module and parsed.training_script_args == tail[2:]


@pytest.mark.parametrize("name", ["tableIa", "tableIb", "table1@timm:test_resnet"])
def test_models_that_train_batch_norms_compute_their_share_at_once(tmp_path, name):
    """However many GPUs share the batch, a statistic is of all of it; other numbers are refused with those that do."""
    store = Store(tmp_path)
    trainings = find_trainings(get_table(name), store, "paper")
    for gpus in (0, 1, 2, 4, 8, 16):
        setup = Setup(store, gpus=gpus)
        plan.check_shares(trainings, setup)
        assert all("--micro-batch" not in command(training, setup) for training in trainings)
    with pytest.raises(BenchError, match=r"^table.*: 12 processes .* 16 evenly: start 1, 2, 4, 8, 16 .*--gpus"):
        plan.check_shares(trainings, Setup(store, gpus=6, nodes=2))


@pytest.mark.parametrize("name", ["table1", "tableIb", "table1@timm:resnet18"])
def test_a_training_is_named_as_bench_train_finds_it(tmp_path, name):
    trainings = find_trainings(get_table(name), Store(tmp_path), "small")
    assert trainings and all(find_row(t.row) == t.experiment for t in trainings)


def test_stale_and_missing_are_trained(tmp_path):
    store = full_store(TABLE, tmp_path)
    assert {t.state for t in find_trainings(TABLE, store, "small")} == {"done"}
    first = find_trainings(TABLE, store, "small")[0]
    store.record_path(first.experiment, "accuracy", first.seed).unlink()
    assert [t.label for t in find_trainings(TABLE, store, "small") if t.state != "done"] == [
        "table1/maskformer-small seed 0"
    ]


def one_step(what, stores, gpu=True):
    return cost.step_times([what], stores, gpu)[what]


def test_step_time_from_records_then_assumed(tmp_path):
    """By hand: 368 750 steps in 200 000 s on 8 GPUs are 1.6 M GPU seconds, 4.339 of them a step."""
    stores = own, reference = Store(tmp_path / "own"), Store(tmp_path / "reference")
    assumed = one_step(R50, stores)
    assert assumed.seconds == runner.PAPER_STEP_S and assumed.source.startswith("assumed")
    assert cost.device_hours(R50, assumed) == pytest.approx(368_750 * 4 / 3600)
    for store, seconds in ((reference, 200_000.0), (own, 100_000.0)):
        record = accuracy(R50, 0, gpu="H100")
        metrics = dict(record.metrics) | {"training_seconds": {"value": seconds, "unit": "s", "n": 1}}
        store.write(replace(record, metrics=metrics, details={"processes": 8}))
        found = one_step(R50, stores)
        assert found.seconds == pytest.approx(seconds * 8 / 368_750)
        assert store.path.name in found.source and "H100" in found.source
    assert one_step(R50, stores, gpu=False).source.startswith("assumed"), "a GPU says nothing of a CPU"


def test_step_time_from_gpu_check_and_by_flops(tmp_path):
    """By hand: 50 ms for one image of 512 x 512; 16 of 1024 x 1024 are 64 times that. Twice the FLOPs: twice."""
    store, large = Store(tmp_path), experiment("hcformer", "swin_l", "coco_panoptic", "paper")
    training = {"state": "passed", "provenance": {"gpu": "H100"}}
    training["result"] = {"rows": [{"what": "train step hcformer", "ms": 50.0}]}
    (tmp_path / "gpu_check.json").write_text(json.dumps({"training": training}))
    assert one_step(R50, [store]).seconds == pytest.approx(3.2) and "H100" in one_step(R50, [store]).source
    assert cost.step_times([R50, large], [store], True)[large].source.startswith("assumed"), "no FLOPs to compare by"
    store.write(complexity(R50, flops=100.0))
    store.write(complexity(large, flops=200.0))
    found = cost.step_times([R50, large], [store], True)[large]
    assert found.seconds == pytest.approx(3.2 * 196 / 96) and "hcformer r50" in found.source  # of the networks
    assert one_step(SMALL, [store], gpu=False).seconds == runner.STEP_S["hcformer"]


@pytest.mark.parametrize("rows", ['[{"what": 1}]', "7", '[{"what": "train step hcformer", "ms": "fast"}]'])
def test_damaged_gpu_check_is_named(tmp_path, rows):
    path = tmp_path / "gpu_check.json"
    path.write_text(
        f'{{"training": {{"state": "passed", "result": {{"rows": {rows}}}, "provenance": {{"gpu": "x"}}}}}}'
    )
    with pytest.raises(BenchError, match=f"{path} is damaged"):
        one_step(R50, [Store(tmp_path)])


def test_fraction_done_is_that_of_the_training_log(setup):
    training = find_trainings(TABLE, setup.store, "small")[0]
    assert plan.fraction_done(training, setup.store) is None and not setup.store.path.exists()
    log = plan.log_path(training, setup.store).with_name("log.jsonl")
    log.write_text("".join(json.dumps({"iteration": i, "iterations": 450, "loss": 1.0}) + "\n" for i in range(1, 91)))
    assert plan.fraction_done(training, setup.store) == pytest.approx(0.2)
    log.write_text('{"iterat')
    assert plan.fraction_done(training, setup.store) is None


def test_claims_are_seen(setup):
    training = find_trainings(TABLE, setup.store, "small")[0]
    assert not plan.is_claimed(training, setup.store) and not setup.store.path.exists()
    with setup.store.claim(training.experiment, "accuracy", training.seed):
        assert plan.is_claimed(training, setup.store)
    assert not plan.is_claimed(training, setup.store)


# Slurm: real jobs under a fake scheduler


@pytest.fixture
def fake(tmp_path, monkeypatch):
    folder = tmp_path / "slurm"
    fake_slurm.install(folder)
    (folder / "run").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_slurm_jobs_are_requeued_but_not_when_cancelled(setup, fake, monkeypatch):
    """Before its time limit Slurm sends USR2, before a preemption SIGTERM, and SIGTERM also when a user cancels."""
    monkeypatch.setenv("STEPS", "80")
    limited, preempted, cancelled = trainings = find_trainings(TABLE, setup.store, "small")[:3]
    script = sbatch_script(trainings, setup, Resources(1.0, 4), wall_hours=1.0)
    assert slurm.submit(script, trainings, setup) == ["4242_0", "4242_1", "4242_2"]
    wait_for(lambda: all(starts(training, setup) for training in trainings))
    (fake / "state").write_text("COMPLETING\n")
    os.kill(int(starts(cancelled, setup)[0][3]), signal.SIGTERM)
    wait_for(lambda: "to go on with the next launch" in plan.log_path(cancelled, setup.store).read_text())
    (fake / "state").write_text("RUNNING\n")
    os.kill(int(starts(limited, setup)[0][3]), signal.SIGUSR2)
    os.kill(int(starts(preempted, setup)[0][3]), signal.SIGTERM)
    wait_for(lambda: states([limited, preempted], setup.store) == ["done", "done"])
    calls = (fake / "calls").read_text().splitlines()
    assert sorted(c for c in calls if c.startswith("scontrol")) == [
        "scontrol requeue 4242_0",
        "scontrol requeue 4242_1",
    ]
    assert all(int(starts(t, setup)[1][1]) > 0 for t in (limited, preempted))
    assert len(starts(cancelled, setup)) == 1 and states([cancelled], setup.store) == ["missing"]


def submit(trainings, setup, requeues_of=1.0):
    slurm.submit(sbatch_script(trainings, setup, Resources(1.0, 4), requeues_of), trainings, setup)


def said(training, setup):
    path = plan.work_folder(training, setup.store) / plan.LOG
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("refused", [False, True])
def test_a_slurm_job_that_is_not_requeued_says_so(setup, fake, monkeypatch, refused):
    """Since Slurm refuses, or since it was requeued as often as its time limit explains."""
    monkeypatch.setenv("AGAIN", "1")  # ends with 75 each time
    monkeypatch.setattr(sbatch, "SPARE_REQUEUES", 0)
    (training,) = find_trainings(TABLE, setup.store, "small")[:1]
    if refused:
        (fake / "no-requeue").touch()
    submit([training], setup)
    words = "not requeued after all (scontrol: error: Requested" if refused else "requeued too often already"
    wait_for(lambda: words in said(training, setup))
    assert len(starts(training, setup)) == (1 if refused else 3), "an hour of an hour: two requeues"
    assert states([training], setup.store) == ["missing"]


def test_a_slurm_job_that_fails_ends_with_its_code(setup, fake, monkeypatch):
    monkeypatch.setenv("FAIL", "0")
    (training,) = find_trainings(TABLE, setup.store, "small")[:1]
    submit([training], setup)
    wait_for(
        lambda: "ended with code 1, see " in ((fake / "jobs.txt").read_text() if (fake / "jobs.txt").exists() else "")
    )
    assert "error: the disk is full" in said(training, setup)
    assert "scontrol" not in (fake / "calls").read_text()


def test_nodes_of_a_slurm_job_meet_at_its_first(tmp_path, fake, monkeypatch):
    """Two processes of one node of one, through the real torchrun: names, port and id come from the job."""
    monkeypatch.setenv("STEPS", "2")
    of_one = Setup(Store(tmp_path / "a store"), gpus=2, nodes=2, entry=(str(STAND_IN),))
    (training,) = find_trainings(TABLE, of_one.store, "small")[:1]
    script = sbatch_script([training], of_one, Resources(1.0, 8), 1.0)
    assert '--rdzv-endpoint "$HEAD_NODE:$PORT" --rdzv-id "$SLURM_JOB_ID" --nnodes 2 ' in script
    slurm.submit(script.replace("--nnodes 2", "--nnodes 1"), [training], of_one)
    wait_for(lambda: states([training], of_one.store) == ["done"])


def test_a_launch_within_a_job_submits_as_from_outside(setup, fake, monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "MASTER_ADDR", "RANK", "SBATCH_ACCOUNT", "SLURM_CONF"):
        monkeypatch.setenv(name, "7")
    (fake / "run").unlink()
    submit(find_trainings(TABLE, setup.store, "small")[:1], setup)
    names = {line.partition("=")[0] for line in (fake / "environment").read_text().splitlines()}
    assert names & {"SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "MASTER_ADDR", "RANK"} == set()
    assert {"SBATCH_ACCOUNT", "SLURM_CONF", "PATH"} <= names


# Which trainings


def labels(setup, *names, **filters):
    return [training.label for training in select_trainings(names, setup.store, **filters)]


def test_rows_and_tables_and_filters(setup):
    assert labels(setup, "table1/hcformer-r50", "table1/maskformer-swin_s", seeds=[2]) == [
        "table1/hcformer-r50 seed 2", "table1/maskformer-swin_s seed 2",
    ]  # fmt: skip
    assert len(labels(setup, "table1", scale="paper")) == 36
    chosen = labels(setup, "table1", scale="paper", methods=["hcformer", "hcformer+"], backbones=["r50"], seeds=[0, 1])
    assert chosen == [f"table1/{method}-r50 seed {seed}" for method in ("hcformer", "hcformer+") for seed in (0, 1)]
    again = labels(setup, "table1/hcformer-r50", "table1", scale="paper")
    assert len(again) == 36 and again[0] == "table1/hcformer-r50 seed 0", "each once"
    ablations = select_trainings(["table1", "table5"], setup.store, scale="paper")
    assert len({(t.experiment, t.seed) for t in ablations}) == len(ablations) > 36
    assert labels(setup, "table1/hcformer-small", seeds=[1]) == ["table1/hcformer-small seed 1"]
    assert labels(setup, "table1@timm:resnet18/hcformer-timm:resnet18", seeds=[0])


@pytest.mark.parametrize(
    "names, filters, words",
    [
        (["table1"], {"seeds": [7]}, "unknown seed of table1 '7': .*Known: 0, 1, 2"),
        (["table1"], {"methods": ["hcformr"]}, "unknown method of table1 'hcformr': did you mean 'hcformer'"),
        (["table1"], {"backbones": ["r50"]}, "unknown backbone of table1 'r50': .*Known: small"),
        (["table1/hcformer-r50"], {"scale": "small"}, "one launch is of one scale"),
        (["table1", "table1/hcformer-r50"], {}, "one launch is of one scale"),
        (["table1/hcformer-r51"], {}, "did you mean 'hcformer-r50'"),
        (["table1/hcformer-r50", "table1/maskformer-swin_s"], {"methods": ["hcformer"], "backbones": ["swin_s"]},
         "no training of table1/hcformer-r50 table1/maskformer-swin_s fits"),
    ],
)  # fmt: skip
def test_mistaken_selections(setup, names, filters, words):
    with pytest.raises(BenchError, match=words):
        select_trainings(names, setup.store, **filters)


# What the FLOPs say


def test_assumed_steps_follow_the_flops(tmp_path):
    """By hand: 83 G at 903 803 pixels are 96.3 G at 1024 x 1024, 1541 of 16 images; 4 s for 8706."""
    store = Store(tmp_path)
    store.write(complexity(R50, flops=87.0))  # 4 of them post-processing
    found = one_step(R50, [store])
    share = 83.0 * 1024 * 1024 / 903_803 * 16 / 8706
    assert found.seconds == pytest.approx(4.0 * share, rel=1e-4) and "nothing measured" in found.source
    least, most = found.range
    assert least == 0.5 and most == pytest.approx(2.0 * share**-0.74, rel=1e-3), (
        "a small model is the less proportional"
    )


def test_crop_and_batch_of_the_data_set_count(tmp_path):
    ade20k = experiment("hcformer", "r50", "ade20k", "paper")
    store = Store(tmp_path)
    store.write(complexity(ade20k, flops=28.0))
    expected = 4.0 * 24.0 * 16 / 8706  # counted on the crop of 512 x 512 itself
    assert one_step(ade20k, [store]).seconds == pytest.approx(expected)


def test_spread_of_the_seeds_is_the_range(tmp_path):
    store = Store(tmp_path)
    for seed, seconds in enumerate((900.0, 1000.0, 1300.0)):
        record = accuracy(SMALL, seed)
        store.write(
            replace(record, metrics=record.metrics | {"training_seconds": {"value": seconds, "unit": "s", "n": 1}})
        )
    assert one_step(SMALL, [store], gpu=False).range == pytest.approx((0.9, 1.3))


def test_assumptions_are_those_of_the_reference_store():
    """The step that 4 s are assumed for is the mean of Table 1's iterations, the power that of two training steps."""
    total = steps = 0.0
    for row in (row.experiment for row in TABLE.rows if row.experiment):
        iterations = recipe_for(row).iterations
        total += iterations * cost._step_gflops(row, [REFERENCE])
        steps += iterations
    assert total / steps == pytest.approx(cost.PAPER_STEP_GFLOPS, rel=0.01)
    speed = json.loads((REFERENCE.path / "benchmark.json").read_text())
    flops = speed["flops_g"]["hcformer"] / speed["flops_g"]["maskformer"]
    power = math.log(speed["ratios"]["train_step_hcformer_over_maskformer"]) / math.log(flops)
    assert power == pytest.approx(cost.FLOPS_POWER, abs=0.03)
