"""A full disk, a limit on the size of files and a store that cannot be written, all real: one line, exit code 2,
nothing left of the file, and what was there before can be used."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.data.synthesis import synthetic
from bench.experiments import find_row
from bench.records import Store
from tests.report.fakes import R50, complexity

ROOT = Path(__file__).resolve().parents[1]
WHAT = find_row("table1/hcformer-small")
# A training of seconds with a checkpoint a step.
SHORT = """
import resource
from dataclasses import replace
import torch
from bench.data.synthesis import synthetic
from bench.experiments import RECIPES
from bench.training import engine
torch.set_num_threads(1)
synthetic.SPLITS = {"train": 4, "val": 2}
key = ("synthetic_panoptic", "small")
RECIPES[key] = replace(RECIPES[key], iterations=4, batch_size=2, num_points=64, crop_size=(64, 64))
engine.CHECKPOINT_SECONDS = 0.0
"""
LIMITED_CHECKPOINT = (
    SHORT
    + """
save = engine.save_checkpoint
def limited(path, state):
    if state["iteration"] == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
    save(path, state)
engine.save_checkpoint = limited
"""
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """With the first scenes of the synthetic data set."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLITS", {"train": 4, "val": 2})
        synthetic.ensure(folder / "hcformer-bench")
    return folder


def bench(cache, *arguments, before="", limit=None, wrapper=()):
    """The command line in a process of its own, after some code; limit: on the size of files, in bytes."""
    program = f"{before}\nfrom bench.cli import app\napp.main()\n"
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])

    def restrict():
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    command = [*wrapper, sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cache, env=environment, capture_output=True, text=True, timeout=120, preexec_fn=restrict
    )


def refused(done, *words):
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert last.startswith("error: ") and all(word in last for word in words), last


def left_over(folder):
    return [path for path in Path(folder).rglob("*.tmp")]


def mount(script):
    """Arguments before a command that let it run where `script` has mounted something, seen by nobody else."""
    wrapper = ("unshare", "-Urm", "sh", "-c", f'{script} && exec "$@"', "sh")
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system of their own")
    return wrapper


def train(store):
    return "train", "table1/hcformer-small", "--seed", 0, "--store", store


def test_checkpoint_that_does_not_fit(cache, tmp_path):
    """The third does not; the second stays, and the training goes on from it to the record."""
    store = Store(tmp_path / "store")
    done = bench(cache, *train(store.path), before=LIMITED_CHECKPOINT)
    checkpoint = store.work_path(WHAT, "accuracy", 0) / "checkpoint.pt"
    assert checkpoint.stat().st_size > 1_500_000
    refused(done, f"cannot write {checkpoint} (File too large): ", "ulimit -f", "--store")
    assert left_over(tmp_path) == [] and torch.load(checkpoint)["iteration"] == 2
    done = bench(cache, *train(store.path), before=SHORT)
    assert done.returncode == 0, done.stderr
    assert store.get(WHAT, "accuracy", 0).details["resumed"] == 1
    log = checkpoint.with_name("log.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in log] == [1, 2, 3, 4]


def test_first_checkpoint_on_a_full_disk(cache, tmp_path):
    """A file system of 1 MB."""
    (tmp_path / "small").mkdir()
    listing = f"trap 'ls -A {tmp_path}/small/work/*/* > {tmp_path}/listing' EXIT"
    wrapper = mount(f"mount -t tmpfs -o size=1m none {tmp_path}/small")
    wrapper = (*wrapper[:-2], wrapper[-2].replace('exec "$@"', f'{{ {listing}; "$@"; }}'), wrapper[-1])
    done = bench(cache, *train(tmp_path / "small"), before=SHORT, wrapper=wrapper)
    refused(done, "checkpoint.pt (No space left on device): free space or")
    assert set((tmp_path / "listing").read_text().split()) <= {".lock", "log.jsonl"}


def test_log_that_does_not_fit(cache, tmp_path):
    refused(bench(cache, *train(tmp_path / "store"), before=SHORT, limit=100), "log.jsonl (File too large): ")
    assert left_over(tmp_path) == []


def test_nothing_can_be_written(cache, tmp_path):
    """Neither the first file of the store nor, where a library asks for one first, a temporary one."""
    done = bench(cache, *train(tmp_path / "store"), limit=0)
    refused(done)
    assert "(File too large)" in done.stderr or "TMPDIR" in done.stderr


def test_no_place_for_temporary_files(cache, tmp_path):
    looks = "import tempfile\nfrom bench.cli import score\nfrom bench.experiments import datasets\n"
    looks += "datasets.get_dataset = lambda name: tempfile.mkstemp()\n"
    refused(bench(cache, "score", "ade20k", tmp_path, before=looks, limit=0), "temporary directory", "TMPDIR")


def test_record_and_pages_that_do_not_fit(cache, tmp_path):
    """The pages that were there before stay as they were."""
    store = Store(tmp_path / "store")
    store.write(complexity(R50))
    assert bench(cache, "report", "table1", "--store", store.path).returncode == 0
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    refused(bench(cache, "report", "table1", "--store", store.path, limit=100), "cannot write", "(File too large)")
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before


def test_data_set_that_does_not_fit(cache, tmp_path):
    done = bench(cache, "data", "synthesize", "ade20k", "--out", tmp_path / "new" / "ade", "--images", 1, limit=200)
    refused(done, "cannot write", "(File too large)", "choose another folder")
    assert not (tmp_path / "new" / "ade").exists() and list((tmp_path / "new").iterdir()) == []


def test_store_that_cannot_be_written(cache, tmp_path):
    """Mounted read-only, with a record in it."""
    store = Store(tmp_path / "store")
    store.write(complexity(R50))
    wrapper = mount(f"mount --bind {store.path} {store.path} && mount -o remount,ro,bind {store.path}")
    refused(
        bench(cache, *train(store.path), before=SHORT, wrapper=wrapper),
        str(store.path),
        "Read-only file system",
        "--store",
    )
    refused(bench(cache, "report", "table1", "--store", store.path, wrapper=wrapper), "Read-only file system")


def test_refused_training_leaves_nothing(cache, tmp_path):
    done = bench(cache, "train", "table1/hcformer-r50", "--seed", 0, "--store", tmp_path / "store")
    refused(done, "coco_panoptic needs its files")
    assert list(tmp_path.iterdir()) == []
