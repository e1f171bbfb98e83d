"""Evaluation of a model by a recipe, and what becomes a record's metrics."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, pad

from bench.data.coco import CocoPanoptic
from bench.data.registry import open_split
from bench.data.synthesis.layouts import synthesize
from bench.errors import BenchError
from bench.evaluation.evaluate import Evaluation, make_evaluator
from bench.evaluation.saved_predictions import SavedPredictions
from bench.experiments import RECIPES, experiment
from bench.experiments.datasets import DATASETS
from bench.experiments.inference_rules import InferenceRules
from bench.measure import accuracy
from bench.measure.accuracy import measure_accuracy
from bench.training.engine import Execution, TrainingResult
from bench.training.progress import StepReport
from bench.weights.files import sha256
from bench.weights.load import open_weights, trained_facts
from bench.zoo import build_model
from models.outputs import MaskPrediction, PixelPrediction
from tests.conftest import few_scenes
from tests.data.conftest import TinyCoco
from tests.measure.evaluation_alone import AS_IT_IS, evaluate
from tests.report.fakes import SMALL

RECIPE = RECIPES["synthetic_panoptic", "small"]
OF_LAYER_NORMS = experiment("hcformer", "timm:test_convnext", "synthetic_panoptic", "small")
METRICS = {"PQ", "PQ_th", "PQ_st", "AP_pan_th", "mIoU_pan"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Cache folder with two training and four validation images."""
    return few_scenes(tmp_path_factory, train=2, val=4)


@pytest.fixture(scope="module")
def val_set(cache):
    return open_split("synthetic_panoptic", "val", cache)


class Oracle(nn.Module):
    """Answers image after image of a data set with its own segments, as surely as logits can; notes the inputs."""

    def __init__(self, dataset, shift=0, queries=16):
        super().__init__()
        self.dataset, self.shift, self.queries = dataset, shift, queries
        self.unused = nn.Parameter(torch.zeros(1))
        self.inputs, self.index = [], 0

    def forward(self, images):
        assert not self.training and not torch.is_grad_enabled()
        self.inputs.append(images)
        sample = self.dataset[self.index]
        self.index += 1
        count, classes = len(sample.labels), len(self.dataset.categories)
        class_logits = torch.zeros(1, self.queries, classes + 1)
        class_logits[:, count:, -1] = 30
        class_logits[0, torch.arange(count), (sample.labels + self.shift) % classes] = 30
        masks = pad(sample.masks.float(), (0, 0, 0, 0, 0, self.queries - count))[None]
        return MaskPrediction(class_logits, 60 * interpolate(masks, images.shape[-2:]) - 30)


def test_perfect_prediction(val_set):
    seen = []
    values = evaluate(Oracle(val_set), AS_IT_IS, val_set, lambda done, total: seen.append((done, total)))
    assert values == {name: pytest.approx(100, abs=1e-6) for name in METRICS}
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_right_masks_of_wrong_classes(val_set):
    values = evaluate(Oracle(val_set, shift=1), AS_IT_IS, val_set)
    assert values["PQ"] < 15 and values["mIoU_pan"] < 15


def test_model_sees_the_image_as_it_is(val_set):
    model = Oracle(val_set)
    evaluate(model, AS_IT_IS, val_set)
    assert [tuple(images.shape) for images in model.inputs] == [(1, 3, 128, 128)] * 4
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    expected = (val_set[2].image.float() - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(model.inputs[2][0], expected)


@pytest.mark.parametrize(
    ("shorter", "longer", "size"),
    [
        (32, 100, (32, 48)),  # the shorter side of 4 becomes 32
        (80, 96, (64, 96)),  # the longer side of 6 would exceed 96
        (27, 100, (27, 41)),  # 40.5 is rounded up
    ],
)
def test_test_size(tmp_path, shorter, longer, size):
    dataset = CocoPanoptic(TinyCoco(tmp_path / "tiny").root, "val")
    model = Oracle(dataset)
    values = evaluate(model, InferenceRules(shorter, longer), dataset)
    (images,) = model.inputs
    assert tuple(images.shape[-2:]) == tuple(-(-side // 32) * 32 for side in size)
    assert images[0, :, size[0] - 1, size[1] - 1].any(), "the image ends too early"
    assert not images[..., size[0] :, :].any() and not images[..., size[1] :].any(), "no zeros beyond the image"
    assert set(values) == METRICS  # at the image's own size again: the evaluator refuses another


# What is recorded


@pytest.fixture
def untrained(monkeypatch):
    """No training; the evaluation finds no stuff."""
    calls = []

    def train(model, recipe, seed, dataset, folder, identity, progress, execution, criterion):
        calls.append((identity, seed, len(dataset)))
        last = recipe.iterations
        progress(StepReport(last, last, 12.0, 1e-3, 0.1, 5.0, 0.0, 2**30))
        return TrainingResult(3.5, 2, 12.0)

    monkeypatch.setattr(accuracy, "train", train)
    values = {"PQ": 50.0, "PQ_th": 0.0, "PQ_st": float("nan")}
    monkeypatch.setattr(accuracy, "evaluate_shared", lambda *args: Evaluation(values, {"PQ": (45.0, 55.0)}, 1.25))
    return calls


def test_metric_without_a_value_is_left_out(cache, tmp_path, untrained):
    progress = []
    result = measure_accuracy(SMALL, 1, tmp_path, cache, lambda *report: progress.append(report))
    assert result.metrics == {
        "PQ": {"value": 50.0, "unit": "%", "n": 4, "interval": [45.0, 55.0]},
        "PQ_th": {"value": 0.0, "unit": "%", "n": 4},
        "training_seconds": {"value": 3.5, "unit": "s", "n": 1},
        "evaluation_seconds": {"value": 1.25, "unit": "s", "n": 4},
        "final_loss": {"value": 12.0, "unit": "1", "n": 1},
    }
    assert result.recipe == RECIPE
    assert (result.details["resumed"], result.details["train_images"], result.details["val_images"]) == (2, 2, 4)
    assert result.details["imagenet_weights"] == "none: trained from scratch"
    batch = {"precision": "float32", "batch_size": 8, "processes": 1, "images_at_once": 8, "passes_a_step": 1}
    assert result.details.items() >= batch.items()
    assert progress[-1][2] == "step 450/450, loss 12.0, lr 1.0e-03, 5.0 images/s, 0% waiting for data, 1.0 GiB"
    assert all(0 < done < total for done, total, _ in progress), "evaluation is still to come"


def test_checkpoints_tell_seeds_and_recipes_apart(cache, tmp_path, untrained, monkeypatch):
    for seed in (0, 1):
        measure_accuracy(SMALL, seed, tmp_path, cache, lambda *_: None)
    monkeypatch.setitem(RECIPES, ("synthetic_panoptic", "small"), replace(RECIPE, learning_rate=1e-9))
    measure_accuracy(SMALL, 1, tmp_path, cache, lambda *_: None)
    assert [seed for _, seed, _ in untrained] == [0, 1, 1]
    assert len({identity for identity, *_ in untrained}) == 3


def test_precision_is_a_fact_of_the_run_and_not_of_the_recipe(cache, tmp_path, untrained):
    execution = Execution(precision="bf16", micro_batch=3)
    result = measure_accuracy(OF_LAYER_NORMS, 1, tmp_path, cache, lambda *_: None, execution)
    assert result.recipe == RECIPE and result.details["precision"] == "bf16"
    assert (result.details["images_at_once"], result.details["passes_a_step"]) == (3, 3)
    measure_accuracy(OF_LAYER_NORMS, 1, tmp_path, cache, lambda *_: None)
    assert len({identity for identity, *_ in untrained}) == 2, "a checkpoint of another precision would be continued"


@pytest.fixture
def trained_at_once(monkeypatch):
    """No training; the evaluation is real."""
    monkeypatch.setattr(accuracy, "train", lambda *args: TrainingResult(3.5, 0, 12.0))


def test_predictions_are_kept_and_score_the_same(cache, tmp_path, trained_at_once, val_set):
    metrics = measure_accuracy(SMALL, 1, tmp_path, cache, lambda *_: None).metrics
    saved, evaluator = SavedPredictions(tmp_path / "predictions", val_set), make_evaluator(val_set)
    for image in val_set.images:
        evaluator.take(evaluator.measure(saved.of(image)))
    again = evaluator.compute()
    assert {name: metrics[name]["value"] for name in METRICS} == again
    assert saved.facts["model"] == f"{SMALL.key} seed 1"


def test_predictions_of_an_earlier_training_are_dropped(cache, tmp_path, trained_at_once, val_set):
    """Unless its checkpoint is there: then it is this one's, which goes on."""
    measure_accuracy(SMALL, 1, tmp_path, cache, lambda *_: None)
    file = tmp_path / "predictions" / "panoptic.json"
    before = file.stat().st_ino
    (tmp_path / "checkpoint.pt").touch()
    measure_accuracy(SMALL, 1, tmp_path, cache, lambda *_: None)
    assert file.stat().st_ino == before
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / "predictions" / "old").touch()
    measure_accuracy(SMALL, 1, tmp_path, cache, lambda *_: None)
    assert file.exists() and not (tmp_path / "predictions" / "old").exists()


def test_evaluated_is_the_split_that_results_are_reported_on(cache, tmp_path, untrained, monkeypatch):
    """As CamVid's test split, which is not its validation split; here the training images."""
    monkeypatch.setitem(DATASETS, SMALL.dataset, replace(DATASETS[SMALL.dataset], test_split="train"))
    result = measure_accuracy(SMALL, 1, tmp_path, cache, lambda *_: None)
    assert (result.details["val_split"], result.details["val_images"]) == ("train", 2)
    assert result.details["val_fingerprint"] == result.details["train_fingerprint"]


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("coco_panoptic", METRICS),
        ("coco_instance", {"AP"}),
        ("ade20k", {"mIoU", "pixel_accuracy"}),
        ("cityscapes", {"mIoU", "pixel_accuracy"}),
    ],
)
def test_every_data_set_trains_and_is_evaluated(tmp_path, monkeypatch, name, metrics):
    """Three images in the official layout (one without objects, one with a crowd), loaded by a process of its own."""
    synthesize(name, tmp_path / "data", 3)
    recipe = replace(RECIPE, iterations=2, batch_size=3, crop_size=(64, 96), scale_range=(0.5, 2.0), num_points=64)
    monkeypatch.setitem(RECIPES, (name, "small"), recipe)
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], recipes=DATASETS["synthetic_panoptic"].recipes))
    what = experiment("hcformer", "small", name, "small", decoder_layers=1, num_queries=8)
    (tmp_path / "run").mkdir()
    result = measure_accuracy(what, 0, tmp_path / "run", tmp_path / "data", lambda *_: None)
    assert result.metrics["final_loss"]["value"] > 0 and metrics - {"PQ_th", "AP_pan_th"} <= set(result.metrics)
    assert result.details["val_images"] == 3


def test_weights_say_what_they_are_of_and_are_there_before_the_evaluation(cache, tmp_path, monkeypatch):
    """A new training drops those of an earlier one."""
    monkeypatch.setattr(accuracy, "train", lambda *args: TrainingResult(3.5, 0, 12.0))

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(accuracy, "evaluate_shared", fail)
    with pytest.raises(KeyboardInterrupt):
        measure_accuracy(SMALL, 1, tmp_path, cache, lambda *_: None, None, "0abc")
    opened = open_weights(tmp_path / "weights.safetensors")
    assert opened.experiment == SMALL and opened.facts["source"] == "trained here, seed 1"
    known = {"seed": "1", "recipe_hash": RECIPE.hash, "commit": "0abc", "iteration": str(RECIPE.iterations)}
    assert opened.facts.items() >= known.items()
    monkeypatch.setattr(accuracy, "train", fail)
    with pytest.raises(KeyboardInterrupt):
        measure_accuracy(SMALL, 1, tmp_path, cache, lambda *_: None)
    assert not (tmp_path / "weights.safetensors").exists()


# Per-pixel methods


class PixelOracle(Oracle):
    """Answers with the labels as logits; those of the first image belong to the next class."""

    def forward(self, images):
        sample = self.dataset[self.index]
        labels = (self.dataset.label_map(self.index) + (self.index == 0)) % len(self.dataset.categories)
        self.index += 1
        logits = torch.stack([torch.from_numpy(labels == k).float() for k in range(len(self.dataset.categories))])
        assert sample.image.shape[1:] == logits.shape[1:]
        return PixelPrediction(60 * logits[None] - 30)


def test_perfect_labels_of_pixels(cache):
    dataset = open_split("synthetic_semantic", "val", cache)
    values = evaluate(PixelOracle(dataset), AS_IT_IS, dataset)
    assert values["pixel_accuracy"] == pytest.approx(75) and 30 < values["mIoU"] < 90


def test_per_pixel_methods_are_trained_and_evaluated(cache, tmp_path, monkeypatch):
    short = replace(RECIPE, iterations=3, batch_size=2, auxiliary_weight=0.4)
    monkeypatch.setitem(RECIPES, ("synthetic_semantic", "small"), short)
    what = experiment("hc_pspnet", "small", "synthetic_semantic", "small")
    result = measure_accuracy(what, 0, tmp_path, cache, lambda *_: None)
    assert {"mIoU", "pixel_accuracy"} < set(result.metrics) and "PQ" not in result.metrics
    assert 0.5 < result.metrics["final_loss"]["value"] < 10
    with torch.device("meta"):
        assert result.details["parameters"] == sum(p.numel() for p in build_model(what).parameters())
    assert (tmp_path / "predictions").is_dir()


def test_per_pixel_methods_need_a_semantic_data_set(cache, tmp_path):
    what = experiment("fcn_32s", "small", "synthetic_panoptic", "small")
    with pytest.raises(BenchError, match="fcn_32s labels pixels, synthetic_panoptic is a panoptic data set"):
        measure_accuracy(what, 0, tmp_path, cache, lambda *_: None)


@pytest.mark.parametrize("images", [1, 4])
def test_passes_of_less_than_the_whole_batch_are_refused(cache, tmp_path, images):
    """One image has pooled cells without a variance to normalise with, four have other statistics than eight."""
    what = experiment("pspnet", "small", "synthetic_semantic", "small")
    with pytest.raises(BenchError, match=f"--micro-batch {images} .* leave it out"):
        measure_accuracy(what, 0, tmp_path, cache, lambda *_: None, Execution(micro_batch=images))


@pytest.mark.parametrize(("method", "backbone", "images"), [("fcn_32s", "r50", 16), ("maskformer", "swin_s", 0)])
def test_images_of_a_batch_norm_are_a_fact_of_the_training(tmp_path, untrained, monkeypatch, method, backbone, images):
    """Of its checkpoints and its record."""
    synthesize("ade20k", tmp_path / "data", 2)
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(accuracy, "load_imagenet", lambda *_: "none")
    what = experiment(method, backbone, "ade20k", "paper")
    result = measure_accuracy(what, 0, tmp_path / "run", tmp_path / "data", lambda *_: None, Execution(micro_batch=16))
    ((identity, *_),) = untrained
    assert result.details["batch_norm_images"] == images
    assert identity.endswith(" batch norms over 16 images") == (images == 16)


def test_weights_of_per_pixel_methods_are_read_back(tmp_path):
    what = experiment("hc_pspnet", "small", "synthetic_semantic", "small")
    model = build_model(what, 0)
    path = tmp_path / "work" / what.key / "accuracy-0" / "weights.safetensors"
    kept = accuracy._keep(model, trained_facts(what, 0, "0123", "abc", 9), path)
    assert kept == {"file": f"work/{what.key}/accuracy-0/weights.safetensors", "sha256": sha256(path)}
    weights = open_weights(path, **what.to_dict())
    assert weights.experiment == what
    found = weights.build().state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
