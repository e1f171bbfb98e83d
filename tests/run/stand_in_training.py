"""Behaves to a launch as `bench train ROW --seed N --store DIR` does, without a model: a program for test_launch.

Counts STEPS steps into a checkpoint and writes an accuracy record. SIGTERM: saves and exits 75. Beside the checkpoint
it leaves `pids` (a line each start: process, step it began at, GPUs it may see, parent). A seed in FAIL fails as a
user's mistake; with AGAIN it gets one step further each time.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from bench.experiments import find_row, recipe_for
from bench.records import Record, Store

STEPS = int(os.environ.get("STEPS", "20"))
STEP_SECONDS = 0.05
NOTHING = dict.fromkeys(("commit", "dirty", "versions", "cpu", "gpu", "start", "duration_s"), "none") | {"gpu": None}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("row")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    if os.environ.get("RANK", "0") != "0":
        for _ in range(STEPS):
            time.sleep(STEP_SECONDS)
            if stopped:
                sys.exit(75)
        sys.exit()
    store, what = Store(given.store), find_row(given.row)
    with store.claim(what, "accuracy", given.seed) as mine:
        assert mine, "two processes train the same"
        folder = store.scratch_dir(what, "accuracy", given.seed)
        checkpoint = folder / "checkpoint"
        step = int(checkpoint.read_text()) if checkpoint.exists() else 0
        with (folder / "pids").open("a") as file:
            file.write(f"{os.getpid()} {step} {os.environ.get('CUDA_VISIBLE_DEVICES') or '-'} {os.getppid()}\n")
        if str(given.seed) in os.environ.get("FAIL", "").split():
            sys.exit("error: the disk is full")
        while step < STEPS:
            time.sleep(STEP_SECONDS)
            step += 1
            if stopped or "AGAIN" in os.environ:
                checkpoint.write_text(str(step))
                sys.exit(75)
        metrics = {"PQ": {"value": 40.0, "unit": "%", "n": 1}}
        store.write(Record(what, "accuracy", metrics, NOTHING, seed=given.seed, recipe=recipe_for(what)))


if __name__ == "__main__":
    main()
