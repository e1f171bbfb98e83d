"""Accuracy of one experiment and seed: train by its recipe, then evaluate the last checkpoint."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bench.data.coco import CocoPanoptic, fingerprint
from bench.data.registry import dataset_root, get_dataset_info, open_split
from bench.data.transforms import preprocess, resize_image
from bench.evaluation.image_log import ImageLog
from bench.evaluation.panoptic import PanopticEvaluator
from bench.evaluation.postprocess import resize_masks
from bench.experiments.experiment import SMALL_SCALE_MODEL, Experiment
from bench.experiments.hashing import content_hash
from bench.experiments.recipe import Recipe, recipe_for
from bench.profiling.complexity import count_parameters
from bench.training.engine import MEMORY_FORMAT, train
from bench.weights.imagenet import load_imagenet
from bench.zoo import build_model
from models.clustering import fast_form, use_form

EVALUATION_SHARE = 0.05  # of the progress bar
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Accuracy:
    """metrics as a record holds them; the recipe; details: pretraining, data fingerprints, device, resumptions."""

    metrics: dict[str, dict]
    recipe: Recipe
    details: dict


def measure_accuracy(
    experiment: Experiment, seed: int, folder: Path, data_root: Path | None, progress: Progress
) -> Accuracy:
    """Train with the seed, checkpointing in `folder`, then evaluate on the validation split. Raises BenchError."""
    recipe, info = recipe_for(experiment), get_dataset_info(experiment.dataset)
    root = dataset_root(experiment.dataset, data_root)
    train_set = open_split(experiment.dataset, "train", data_root)
    val_set = open_split(experiment.dataset, "val", data_root)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(experiment, seed)
    weights = load_imagenet(model.backbone, experiment.backbone) if recipe.pretrained else "none: trained from scratch"
    model = model.to(device)
    if experiment.scale == "paper":  # a short run would not earn back the compilation
        use_form(model, fast_form(device))
    total = recipe.iterations / (1 - EVALUATION_SHARE)

    def on_step(done: int, _: int, loss: float) -> None:
        progress(done, total, f"step {done}/{recipe.iterations}, loss {loss:.1f}")

    # The data set's fingerprint too: training never goes on with other data.
    data = fingerprint(root, info.train_split)
    identity = f"{experiment.key} seed {seed} recipe {content_hash(recipe.to_dict())} data {data}"
    result = train(model, recipe, seed, train_set, folder, identity, on_step)

    def on_image(done: int, count: int) -> None:
        progress(recipe.iterations + (total - recipe.iterations) * done / count, total, f"evaluated {done}/{count}")

    begun = time.monotonic()
    values = evaluate(model, (recipe.test_shorter_side, recipe.test_longer_side), val_set, on_image)
    metrics = percentages(values, len(val_set))
    metrics["training_seconds"] = {"value": result.seconds, "unit": "s", "n": 1}
    metrics["evaluation_seconds"] = {"value": time.monotonic() - begun, "unit": "s", "n": len(val_set)}
    metrics["final_loss"] = {"value": result.final_loss, "unit": "1", "n": 1}
    details = {
        "imagenet_weights": weights,
        "device": str(device),
        "resumed": result.resumed,
        "train_images": len(train_set),
        "val_images": len(val_set),
        "train_fingerprint": data,
        "val_fingerprint": fingerprint(root, info.val_split),
        "sizes": SMALL_SCALE_MODEL if experiment.scale == "small" else "the paper's",
        "parameters": count_parameters(model),
    }
    return Accuracy(metrics, recipe, details)


def percentages(values: dict[str, float], images: int) -> dict[str, dict]:
    """Metrics of a record; one without a value (nan) is left out."""
    return {name: {"value": value, "unit": "%", "n": images} for name, value in values.items() if value == value}


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    resizing: tuple[int | None, int | None],
    dataset: CocoPanoptic,
    progress: Callable[[int, int], None] | None = None,
    log: ImageLog | None = None,
) -> dict[str, float]:
    """PQ, PQ_th, PQ_st, AP_pan_th, mIoU_pan in percent, image by image.

    resizing: pixels of the shorter and at most of the longer side of a test image, None: as it is. With `log`, the
    images that it holds are not evaluated again.
    """
    model.eval()
    device = next(model.parameters()).device
    evaluator = PanopticEvaluator(dataset)
    for measured in log.replay() if log else ():
        evaluator.take(measured)
    if log and progress:
        progress(evaluator.num_images, len(dataset))
    for index in range(len(dataset)):
        if evaluator.has(dataset.images[index]["id"]):
            continue
        sample = dataset[index]
        image = resize_image(sample.image, *resizing)
        batch = preprocess([image]).to(device, memory_format=MEMORY_FORMAT)
        prediction = model(batch)
        masks = resize_masks(
            prediction.mask_logits[0], batch.shape[-2:], image.shape[-2:], tuple(sample.image.shape[-2:])
        )
        measured = evaluator.measure(sample.image_id, prediction.class_logits[0], masks)
        evaluator.take(measured)
        if log:
            log.append(measured)
        if progress:
            progress(index + 1, len(dataset))
    return evaluator.compute()
