"""The pool with jobs that are small scripts: failures, messages, slots, the estimate, and that no job outlives it."""

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.records import Store
from bench.run import pool
from bench.run.jobs import Job
from bench.run.pool import Estimator, JobPool, JobProcess
from tests.report.fakes import R50, SMALL

ROOT = Path(__file__).resolve().parents[2]

# A job that does what the first word of its command says.
SCRIPT = """
import json, os, signal, sys, time
job = json.loads(sys.argv[1])
what, *arguments = job["command"]
def say(**message):
    print(json.dumps(message), flush=True)
if what == "chatty":
    print("Downloading: [/weights] 3 %", flush=True)
    for line in ("", "[1, 2]", "7", "null", '"text"', '{"total": 5}', '{"total": 0, "done": 0, "label": ""}', "{"):
        print(line, flush=True)
    say(done=1, total=2, label="half [/done]")
    say(done=5, total=2, label="too much")
    say(finished=True)
if what == "log":
    begun = time.monotonic()
    time.sleep(0.3)
    with open(arguments[0], "a") as file:
        file.write(json.dumps([job["seed"], begun, time.monotonic(), os.environ.get("OMP_NUM_THREADS")]) + "\\n")
    say(finished=True)
if what == "error":
    say(error="checkpoint [/tmp/x] is damaged: delete it")
    sys.exit(2)
if what == "signal":
    say(done=1, total=4, label="quarter")
    os.kill(os.getpid(), signal.SIGKILL)
if what == "hang":
    say(done=0, total=1, label="hangs")
    time.sleep(120)
if what == "raise":
    raise RuntimeError("a bug")
if what == "lie":
    say(finished=True)
    sys.exit(3)
"""


@pytest.fixture
def scripted(monkeypatch):
    """Jobs run SCRIPT in place of `bench.run.jobs`."""

    def popen(command, **kwargs):
        assert command[:3] == [sys.executable, "-m", "bench.run.jobs"]
        return subprocess.Popen([sys.executable, "-S", "-c", SCRIPT, *command[3:]], **kwargs)

    monkeypatch.setattr(pool, "subprocess", SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE))


def fake_job(store, seed, *command):
    return Job("accuracy", (SMALL,), str(store.path), seed=seed, command=tuple(map(str, command)))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def log_of(store, seed):
    return store.scratch_dir(SMALL, "accuracy", seed) / "log.txt"


def test_failures_are_reported_and_the_rest_goes_on(scripted, store, capfd):
    names = ["error", "signal", "raise", "quiet", "lie", "chatty"]
    jobs = [(fake_job(store, seed, name), 1.0) for seed, name in enumerate(names)]
    failures = JobPool([(jobs, 1)]).run()
    label = f"accuracy {SMALL.key} seed"
    assert failures == [
        f"{label} 0: checkpoint [/tmp/x] is damaged: delete it",
        f"{label} 1: ended with code -9, see {log_of(store, 1)}",
        f"{label} 2: ended with code 1, see {log_of(store, 2)}",
        f"{label} 3: ended with code 0, see {log_of(store, 3)}",
        f"{label} 4: ended with code 3, see {log_of(store, 4)}",
    ]
    assert "RuntimeError: a bug" in log_of(store, 2).read_text()
    shown = capfd.readouterr().err.splitlines()
    assert [line for line in shown if line.startswith("failed: ")] == [f"failed: {failure}" for failure in failures]
    assert f"done: {label} 5" in shown


def test_the_page_is_printed_when_a_stage_has_ended_and_another_follows(scripted, store, capfd):
    jobs = [(fake_job(store, seed, "chatty"), 1.0) for seed in range(3)]
    pages = iter(["[counts] known", "latencies known"])
    assert JobPool([(jobs[:1], 1), ([], 1), (jobs[1:], 2), ([], 1)]).run(lambda: next(pages)) == []
    shown = capfd.readouterr().err.splitlines()
    page, done = shown.index("[counts] known"), [number for number, line in enumerate(shown) if "done: " in line]
    assert done[0] < page < done[1] and "latencies known" not in shown


def test_progress_is_what_a_job_says(scripted, store, monkeypatch):
    fractions = []
    original = JobProcess._take

    def take(self, line):
        original(self, line)
        fractions.append(self.fraction() or 0.0)

    monkeypatch.setattr(JobProcess, "_take", take)
    assert JobPool([([(fake_job(store, 0, "chatty"), 1.0)], 1)], quiet=True).run() == []
    assert set(fractions) == {0.0, 0.5, 1.0} and fractions == sorted(fractions)


def test_message_that_comes_in_pieces(scripted, store):
    job = JobProcess(fake_job(store, 0, "hang"))
    started, pieces = (
        job._process,
        [b'noise\n{"done": 1, "to', b'tal": 4, "la', None, b'bel": "x"}\n{"err', b'or": "y"}\n'],
    )
    stdout = SimpleNamespace(read=lambda: pieces.pop(0), closed=False)
    job._process = SimpleNamespace(stdout=stdout, poll=lambda: None, returncode=2)
    while pieces:
        assert job.poll() is None
    assert (job.fraction(), job.note, job.failure()) == (0.25, "x", "y")
    started.kill()
    started.communicate()


@pytest.mark.parametrize(("kind", "threads"), [("complexity", "1"), ("latency", "7"), ("released", "7")])
def test_what_runs_alone_gets_all_threads(scripted, store, tmp_path, monkeypatch, kind, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    job = Job(kind, (R50,), str(store.path), command=("log", str(tmp_path / "times")))
    assert JobPool([([(job, 1.0)], 1)], quiet=True).run() == []
    assert json.loads((tmp_path / "times").read_text())[-1] == threads


def test_slots_and_stages(scripted, store, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    file = tmp_path / "times"
    stages = [
        ([(fake_job(store, seed, "log", file), 1.0) for seed in range(4)], 2),
        ([], 2),
        ([(fake_job(store, seed, "log", file), 1.0) for seed in (4, 5)], 1),
    ]
    assert JobPool(stages, quiet=True).run() == []
    times = sorted(json.loads(line) for line in file.read_text().splitlines())
    assert [seed for seed, *_ in times] == list(range(6))
    running = [sum(b <= at < e for _, b, e, _ in times) for _, at, _, _ in times]
    assert max(running[:4]) == 2, "two jobs of the first stage run side by side"
    assert running[4:] == [1, 1]
    assert max(end for _, _, end, _ in times[:4]) <= times[4][1] and times[4][2] <= times[5][1]
    # A thread each, also alone: the same bits on any number of cores.
    assert [threads for *_, threads in times] == ["1"] * 6


def test_nothing_to_do():
    assert JobPool([([], 2), ([], 1)], quiet=True).run() == []


# The estimate


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr(pool.time, "monotonic", lambda: now.value)
    return now


def stage(estimates, slots):
    return [(None, estimate) for estimate in estimates], slots


def test_what_an_earlier_run_did_says_nothing_of_the_pace(clock):
    """A job of 100 s goes on at 90 %: after 10 s the other one is expected to take its 100 s, not 10."""
    estimator = Estimator([stage([100, 100], 1)])
    estimator.skip(90)
    assert estimator.estimate(90.0) == (pytest.approx(0.45), pytest.approx(110))
    clock.value += 10
    estimator.finish(100)
    assert estimator.estimate(0.0) == (pytest.approx(0.5), pytest.approx(100))
    clock.value += 60
    assert estimator.estimate(30.0) == (pytest.approx(0.65), pytest.approx(70 / 40 * 70))


def test_estimate_of_a_plan(clock):
    """Two slots of 60 s, then 40 s alone: 100 s on the machine of the estimates, twice that on one half as fast."""
    estimator = Estimator([stage([30, 30, 30, 30], 2), stage([40], 1)])
    assert estimator.estimate(0.0) == (0.0, 100.0)
    clock.value += 60
    estimator.finish(30)
    assert estimator.estimate(30.0) == (pytest.approx(0.3), pytest.approx(140))
    clock.value += 60
    for _ in range(3):
        estimator.finish(30)
    assert estimator.estimate(0.0) == (pytest.approx(0.6), pytest.approx(80))
    estimator.begin(1)
    assert estimator.estimate(10.0) == (pytest.approx(0.7), pytest.approx(120 / 70 * 30))
    estimator.finish(40)
    assert estimator.estimate(0.0) == (1.0, 0.0)


def test_remaining_time_falls_at_a_steady_pace(clock):
    estimator = Estimator([stage([50] * 4, 2), stage([], 2), stage([20], 1), stage([10] * 6, 2)])
    left = []
    for number, (length, count, slots) in ((0, (50, 4, 2)), (2, (20, 1, 1)), (3, (10, 6, 2))):
        estimator.begin(number)
        for _ in range(count // slots):
            for part in range(5):
                clock.value += 1.5 * length / 5
                left.append(estimator.estimate(slots * length * (part + 1) / 5)[1])
            for _ in range(slots):
                estimator.finish(length)
    assert all(before > after for before, after in pairwise(left[2:]))
    assert all(seconds >= 0 for seconds in left) and left[-1] == pytest.approx(0)


def test_job_that_ends_at_once_counts_in_its_stage(clock):
    estimator = Estimator([stage([10], 1), stage([10, 10], 1)])
    estimator.finish(10)
    estimator.begin(1)
    estimator.finish(10)
    assert estimator.estimate(0.0)[0] == pytest.approx(2 / 3)


def test_empty_plan():
    assert Estimator([stage([], 2)]).estimate(0.0) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 min 00 s"), (61.9, "1 min 01 s"), (3600 * 30 + 125, "30 h 02 min"), (3600 * 76, "3 d 04 h")],
)
def test_duration(seconds, text):
    assert pool.duration(seconds) == text


# Jobs end with the command

# A job that holds its claim until it ends.
HOLDER = """
import time
from pathlib import Path
from bench.run import jobs
def hold(job, report):
    store = jobs.Store(job.store)
    with store.claim(job.experiments[0], job.kind, job.seed) as mine:
        (store.path / f"started-{job.experiments[0].backbone}").write_text(str(mine))
        time.sleep(120)
jobs.run_job = hold
jobs.main()
"""
# `bench run table1` with HOLDER as its jobs.
COMMAND = f"""
import signal, subprocess, sys
from types import SimpleNamespace
from bench.cli import app as cli
from bench.run import pool
from bench.run import plan as runner
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit "ignore"
def popen(command, **kwargs):
    return subprocess.Popen([sys.executable, "-c", {HOLDER!r}, *command[3:]], **kwargs)
pool.subprocess = SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE)
runner.prepare_data = lambda *args: None
runner.workers = lambda: 1
cli.main()
"""


def claimed(store):
    with store.claim(R50_MASKFORMER, "complexity") as mine:
        return not mine


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.05)


R50_MASKFORMER = type(R50).from_dict(  # the first row of the table that is built
    R50.to_dict() | {"method": "maskformer", "encoder_layers": 6, "decoder_layers": 6}
)


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGTERM, 143, ""),
        (signal.SIGINT, 130, "goes on where it stopped"),
    ],
)
def test_no_job_outlives_the_command(store, number, code, words):
    command = [sys.executable, "-c", COMMAND, "run", "table1", "--store", str(store.path)]
    started = store.path / "started-r50"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: started.exists() and started.read_text(), 30)
            assert started.read_text() == "True" and claimed(store)
            process.send_signal(number)
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == code
    assert words in errors and "Traceback" not in errors
    wait_for(lambda: not claimed(store), 2)


def test_interruption_goes_up_and_ends_the_jobs(scripted, store, monkeypatch):
    processes = []

    def show(self):
        processes.extend(running.process._process for running in self._running)
        raise KeyboardInterrupt

    monkeypatch.setattr(JobPool, "_show", show)
    jobs = [(fake_job(store, seed, "hang"), 1.0) for seed in range(2)]
    with pytest.raises(KeyboardInterrupt):
        JobPool([(jobs, 2)], quiet=True).run()
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2
