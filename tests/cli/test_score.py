"""`bench score` as a user types it: the numbers of the evaluation, again."""

import json
import re
import shutil

import pytest
import torch

from bench.data.registry import open_split
from bench.data.synthesis import synthetic
from bench.evaluation.prediction_writer import PredictionWriter
from bench.experiments import experiment
from bench.zoo import build_model
from tests.conftest import mistake
from tests.measure.evaluation_alone import AS_IT_IS, evaluate

WHAT = experiment("hcformer", "small", "synthetic_panoptic", "small", decoder_layers=1, num_queries=8)


@pytest.fixture
def evaluated(bench, monkeypatch, tmp_path):
    """(folder of predictions, metrics) of a model that was never trained, but is sure of itself."""
    monkeypatch.setattr(synthetic, "SPLITS", {"train": 1, "val": 3})
    dataset = open_split("synthetic_panoptic", "val")
    model = build_model(WHAT, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    identity = {"dataset": "synthetic_panoptic", "split": "val", "model": "some\nmodel", "post_processing": "version 0"}
    folder = tmp_path / "predictions"
    return folder, evaluate(model, AS_IT_IS, dataset, predictions=PredictionWriter(folder, dataset, identity))


def test_score_prints_the_numbers_of_the_evaluation(bench, evaluated):
    folder, metrics = evaluated
    code, out, _ = bench("score", "synthetic_panoptic", folder)
    assert code == 0
    lines = re.findall(r"^(\w+) +([\d.e-]+) +\[([\d.]+), ([\d.]+)\] +% +3$", out, re.MULTILINE)
    assert {name: float(value) for name, value, *_ in lines} == {
        n: value for n, value in metrics.items() if value == value
    }
    low, high = next((float(low), float(high)) for name, _, low, high in lines if name == "mIoU_pan")
    assert low < metrics["mIoU_pan"] < high and "95 % interval" in out
    assert metrics["mIoU_pan"] > 0 and "some\\nmodel" in out and "version 0" in out


def test_images_of_the_log_that_were_not_saved_are_evaluated_again(tmp_path, evaluated):
    """An evaluation was stopped, and goes on with the predictions wanted."""
    folder, metrics = evaluated
    dataset, model = open_split("synthetic_panoptic", "val"), build_model(WHAT, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    (log := tmp_path / "log").mkdir()
    assert evaluate(model, AS_IT_IS, dataset, folder=log) == metrics
    facts = json.loads((folder / "predictions.json").read_bytes())
    writer = PredictionWriter(tmp_path / "late", dataset, facts)
    found = evaluate(model, AS_IT_IS, dataset, folder=log, predictions=writer)
    assert found == metrics
    assert (tmp_path / "late" / "panoptic.json").read_bytes() == (folder / "panoptic.json").read_bytes()
    again = evaluate(model, AS_IT_IS, dataset, folder=log, predictions=writer)
    assert again == metrics


def test_mistakes(bench, evaluated, tmp_path):
    folder, _ = evaluated
    mistake(bench("score", "synthetic", folder), "unknown data set 'synthetic'", "synthetic_panoptic")
    mistake(bench("score", "synthetic_panoptic", tmp_path / "none"), "none is not a folder")
    mistake(bench("score", "synthetic_panoptic", tmp_path), "predictions.json", "give the folder of saved predictions")
    mistake(bench("score", "coco_panoptic", folder), "of synthetic_panoptic, not of coco_panoptic")
    mistake(bench("score", "synthetic_panoptic", folder, "--split", "train"), "of split 'val', not of 'train'")
    path = folder / "predictions.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"dataset": "coco_panoptic"}))
    mistake(bench("score", "coco_panoptic", folder), "--data-root or BENCH_DATA")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"dataset": "synthetic_panoptic"}))
    shutil.rmtree(folder / "semantic")
    code, out, errors = bench("score", "synthetic_panoptic", folder)
    assert (code, out) == (2, "") and "semantic" in errors.splitlines()[-1] and "is missing" in errors
