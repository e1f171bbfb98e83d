"""A run of the reduced Table 1 (`reduced/sitecustomize.py`), how it is killed, and what is compared afterwards."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REDUCED = Path(__file__).parent / "reduced"
COMMAND = ["-m", "bench", "run", "table1", "--store"]
# Of a record or page: what two runs of the same thing differ in.
_TIMES = ("training_seconds", "evaluation_seconds", "latency_network", "latency_end_to_end")
LEFT_BEHIND_S = 20.0  # a job ends when its run has gone; it may sit in a long call of torch


def environment(folder: Path) -> dict[str, str]:
    """Of a run whose caches lie in `folder`; jobs of one thread, so that two runs have the same bits."""
    path = os.pathsep.join([str(REDUCED), str(ROOT)])
    return os.environ | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def start(folder: Path, store: Path) -> subprocess.Popen:
    """A run in a session of its own, its output in `folder`."""
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *COMMAND, str(store)], cwd=ROOT, env=environment(folder), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip


def undisturbed(folder: Path) -> dict:
    """`results` of a run that nobody disturbs, in a new store in `folder`."""
    run = start(folder, folder / "undisturbed")
    assert run.wait() == 0, (folder / "output.txt").read_text()[-2000:]
    return results(folder / "undisturbed")


def ends_within(run: subprocess.Popen, seconds: float) -> bool:
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill(run: subprocess.Popen, chance: random.Random) -> str:
    """SIGKILL the run, one of its jobs, or all its processes at once; says which."""
    what = chance.choice(("run", "job", "all"))
    jobs = children(run.pid)
    if what == "job" and jobs:
        os.kill(chance.choice(jobs), signal.SIGKILL)
    elif what == "all":
        os.killpg(run.pid, signal.SIGKILL)
    else:
        what = "run"
        run.kill()
    return what


def children(pid: int) -> list[int]:
    """Processes that `pid` started and that are there."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def processes_of(store: Path) -> list[int]:
    """Processes that name the store in their command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(store).encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_for_no_process(store: Path) -> list[int]:
    """Processes of the store that are still there after some seconds; there should be none."""
    end = time.monotonic() + LEFT_BEHIND_S
    while (left := processes_of(store)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def results(store: Path) -> dict:
    """What a finished run must share with every other: records without their times, cells of the table without
    latencies, and the names of all files."""
    records = {}
    for path in sorted((store / "records").rglob("*.json")):
        record = json.loads(path.read_text())
        metrics = {name: metric for name, metric in record["metrics"].items() if name not in _TIMES}
        records[str(path.relative_to(store))] = metrics
    with (store / "tables" / "table1.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["metric"].removesuffix("_p90") not in _TIMES]
    files = sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())
    return {"records": records, "table": table, "files": files}


def differences(found: dict, expected: dict) -> list[str]:
    """Names of what is not equal."""
    parts = [name for name in ("table", "files") if found[name] != expected[name]]
    names = sorted({*found["records"], *expected["records"]})
    return parts + [name for name in names if found["records"].get(name) != expected["records"].get(name)]
