"""Weights of trainings: what a training leaves, `bench weights export`, and that predict and run take the files."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize  # noqa: F401  (starts a process when it is imported, which the fixture `bench` refuses)
import torch
from PIL import Image
from safetensors.torch import load_file

from bench.data.synthesis import synthetic
from bench.experiments import RECIPES, find_row, recipe_for
from bench.records import Store
from bench.run import plan
from bench.run.jobs import Job, run_job
from bench.training import engine
from bench.weights.files import sha256
from tests.cli.test_train import KEY, ROW, SHRINK, WHAT, no_processes, short  # noqa: F401
from tests.conftest import mistake
from tests.report.fakes import PROVENANCE

PIXELS = "tableIa/pspnet-small"


class Inline:
    """Runs the jobs in this process."""

    def __init__(self, stages, quiet):
        self.jobs = [job for jobs, _ in stages for job, _ in jobs]

    def run(self):
        for job in self.jobs:
            run_job(job, lambda *_: None)
        return []


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(plan, "JobPool", Inline)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """The store of a training of ROW, seed 1, that was killed with a checkpoint of step 12; do not change it."""
    folder = tmp_path_factory.mktemp("unfinished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(synthetic, "SPLITS", synthetic.SPLITS)
        patch.setattr(engine, "CHECKPOINT_SECONDS", engine.CHECKPOINT_SECONDS)
        patch.setitem(RECIPES, KEY, RECIPES[KEY])
        patch.setattr("bench.provenance.collect", lambda command: PROVENANCE)
        patch.setattr("bench.measure.accuracy._keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        exec(SHRINK, {})
        with pytest.raises(KeyboardInterrupt):
            run_job(Job("accuracy", (WHAT,), str(folder / "store"), seed=1), lambda *_: None)
    return Store(folder / "store")


def values(record):
    return {name: metric["value"] for name, metric in record.metrics.items() if metric["unit"] == "%"}


def picture(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("row", [ROW, PIXELS])
def test_weights_of_a_training_are_evaluated_as_it_was(bench, tmp_path, short, inline, row, monkeypatch):  # noqa: F811
    """From the command line, small: training, its weights, `bench run --weights`: the same figures, to the bit."""
    what, store = find_row(row), Store(tmp_path / "store")
    if row == PIXELS:
        key = ("synthetic_semantic", "small")
        monkeypatch.setitem(RECIPES, key, replace(RECIPES[key], iterations=4, batch_size=2, crop_size=(64, 64)))
    code, out, errors = bench("train", row, "--seed", 1, "--store", store.path)
    assert code == 0, errors
    (weights,) = re.findall(r"^weights: (.+), for", out, re.MULTILINE)
    code, out, errors = bench("run", "--weights", weights, "--store", store.path)
    assert code == 0, errors
    trained, evaluated = store.get(what, "accuracy", 1), store.get(what, "released")
    assert values(trained) == values(evaluated) and len(values(trained)) > 1
    assert evaluated.details["weights"]["sha256"] == trained.details["weights"]["sha256"] == sha256(weights)
    assert evaluated.details["weights"]["recipe_hash"] == recipe_for(what).hash
    code, out, errors = bench("predict", "--weights", weights, picture(tmp_path / "a.png"), "-o", tmp_path / "out")
    assert code == 0, errors
    assert json.loads((tmp_path / "out" / "a.json").read_text())["image"]["height"] == 45
    for run in (store.path / "work" / what.key / "accuracy-1", row, what.key):
        code, out, errors = bench("weights", "export", run, "--seed", 1, "--store", store.path)
        assert code == 0, errors
        assert f"weights: {weights}\n" in out
    assert bench("weights", "export", row, tmp_path / "copy.safetensors", "--seed", 1, "--store", store.path)[0] == 0
    assert sha256(tmp_path / "copy.safetensors") == sha256(weights)


def test_weights_of_a_checkpoint(bench, unfinished, tmp_path, short):  # noqa: F811
    checkpoint = unfinished.work_path(WHAT, "accuracy", 1) / engine.CHECKPOINT
    expected = torch.load(checkpoint)["model"]
    for run in (checkpoint, checkpoint.parent, ROW):
        code, out, errors = bench("weights", "export", run, "o.safetensors", "--seed", 1, "--store", unfinished.path)
        assert (code, errors) == (0, "")
        assert out.startswith("maskformer small on synthetic_panoptic, seed 1: step 12 of 12\nweights: o.safetensors\n")
        found = load_file(tmp_path / "o.safetensors")
        assert found.keys() == expected.keys() and all(torch.equal(found[n], v) for n, v in expected.items())
        (tmp_path / "o.safetensors").unlink()
    code, out, _ = bench("weights", "export", checkpoint)
    assert code == 0 and f"weights: {checkpoint.with_suffix('.safetensors')}\n" in out
    code, out, errors = bench(
        "predict", "--weights", checkpoint.with_suffix(".safetensors"), picture(tmp_path / "a.png")
    )
    assert code == 0, errors


def test_commands_lead_to_the_export_of_a_checkpoint(bench, unfinished, tmp_path):
    checkpoint = unfinished.work_path(WHAT, "accuracy", 1) / engine.CHECKPOINT
    image = picture(tmp_path / "a.png")
    mistake(bench("predict", "--weights", checkpoint, image), f"'bench weights export {checkpoint}'")
    mistake(bench("run", "--weights", checkpoint), f"'bench weights export {checkpoint}'")
    mistake(bench("weights", "convert", checkpoint, "-o", "o.safetensors"), "'bench weights export'")
    code, out, _ = bench("weights", "inspect", checkpoint)
    assert code == 0 and f"next: bench weights export {checkpoint}\n" in out


class Command:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_checkpoints_that_are_wrong(bench, unfinished, tmp_path):
    checkpoint, bad = unfinished.work_path(WHAT, "accuracy", 1) / engine.CHECKPOINT, tmp_path / "bad.pt"
    whole = torch.load(checkpoint)
    name = next(iter(whole["model"]))
    cases = [
        (whole | {"evil": Command(tmp_path / "it ran")}, "posix.system"),
        (whole | {"identity": whole["identity"].replace(WHAT.key, "hcformer-small-x-small-0")}, "is the key of no row"),
        (whole | {"identity": "../../x"}, "no checkpoint of a training here"),
        (whole | {"iteration": "many"}, "how long it was trained"),
        (whole | {"model": whole["model"] | {name: torch.ones(1)}}, "does not fit the model"),
        (whole | {"model": {n: v for n, v in whole["model"].items() if n != name}}, name),
        (whole | {"model": whole["model"] | {name: whole["model"][name] * float("nan")}}, "not finite"),
    ]
    for content, words in cases:
        torch.save(content, bad)
        mistake(bench("weights", "export", bad, tmp_path / "o.safetensors"), str(bad), words)
    bad.write_bytes(checkpoint.read_bytes()[:-100])
    mistake(bench("weights", "export", bad), str(bad), "damaged")
    mistake(bench("weights", "export", tmp_path / "none.pt"), "none.pt", "check its path")
    mistake(bench("weights", "export", ROW, "--store", unfinished.path), "--seed")
    mistake(bench("weights", "export", ROW, "--seed", 7, "--store", unfinished.path), "accuracy-7", "bench train")
    mistake(bench("weights", "export", checkpoint, tmp_path / "o.pt"), "OUT.safetensors")
    shutil.copy(checkpoint, tmp_path / "there.safetensors")
    mistake(bench("weights", "export", checkpoint, tmp_path / "there.safetensors"), "is there already")
    assert not (tmp_path / "it ran").exists() and not (tmp_path / "o.safetensors").exists()
