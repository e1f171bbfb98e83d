"""Accuracy of one experiment and seed: train by its recipe, then evaluate the last checkpoint."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from bench.data.coco import Sample
from bench.data.coco_instance import CocoInstance
from bench.data.registry import open_split
from bench.errors import BenchError
from bench.evaluation.evaluate import Evaluation, clear, evaluate_shared
from bench.evaluation.image_results import ImageResults, image_results
from bench.evaluation.prediction_writer import PredictionWriter
from bench.experiments.backbones import get_backbone
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.inference_rules import InferenceRules, inference_facts, inference_rules, post_processing
from bench.experiments.methods import get_method
from bench.experiments.recipe import Recipe, recipe_for
from bench.measure.complexity.flops import count_parameters
from bench.measure.inference import batch_norms_text, predict_one, prepare_for_inference
from bench.measure.measured import Measured
from bench.training.batch_norm import has_batch_norms
from bench.training.batches import loading_processes
from bench.training.distributed import World
from bench.training.engine import CHECKPOINT, Execution, train
from bench.training.pixel_criterion import PixelCriterion
from bench.training.progress import StepReport
from bench.training.shares import check_division
from bench.weights.convert import write_weights
from bench.weights.files import sha256
from bench.weights.imagenet import load_imagenet
from bench.weights.load import WEIGHTS, pack, trained_facts
from bench.zoo import build_model
from models.clustering import fast_form, use_form

EVALUATION_SHARE = 0.05  # of the progress bar
PREDICTIONS = "predictions"
Progress = Callable[[float, float, str], None]


def measure_accuracy(
    experiment: Experiment, seed: int, folder: Path, data_root: Path | None, progress: Progress,
    execution: Execution | None = None, commit: str | None = None,
) -> Measured | None:  # fmt: skip
    """Train with the seed, with checkpoint and logs in `folder`, then evaluate the last state on the data set's split
    for that, saving weights and predictions in `folder` too. The checkpoint is the caller's to remove afterwards.
    folder: the measurement's work folder of a store. commit: of this code, for the weights.

    In several processes all call this, and all but the first get None. Raises BenchError, and Stopped when
    `execution.stop` says so, with the work saved.
    """
    recipe, info = recipe_for(experiment), get_dataset(experiment.dataset)
    per_pixel, at_paper_scale = get_method(experiment.method).predicts == "pixels", experiment.scale == "paper"
    if per_pixel and info.task != "semantic":
        raise BenchError(
            f"{experiment.method} labels pixels, {info.name} is a {info.task} data set: use a semantic one"
        )
    execution = execution or Execution()
    world = execution.world
    if execution.workers is None:
        execution = replace(execution, workers=0 if info.generated else loading_processes(world))
    execution = replace(execution, paper_scale=at_paper_scale)
    check_division(experiment, world.size, execution.micro_batch)
    train_split = open_split(experiment.dataset, "train", data_root)
    train_set = train_split.for_training() if isinstance(train_split, CocoInstance) else train_split
    val_set = open_split(experiment.dataset, info.eval_split, data_root)
    model, weights = _build(experiment, seed, recipe, world)
    if world.is_main and not (folder / CHECKPOINT).exists():
        _forget_evaluation(folder)
    world.wait()
    total = recipe.iterations / (1 - EVALUATION_SHARE)

    def on_step(report: StepReport) -> None:
        progress(report.iteration, total, str(report))

    def on_image(done: int, count: int) -> None:
        progress(recipe.iterations + (total - recipe.iterations) * done / count, total, f"evaluated {done}/{count}")

    # The data set's fingerprint too: training never goes on with other data.
    data = train_split.fingerprint()
    precision = execution.precision or recipe.precision
    identity = f"{experiment.key} seed {seed} recipe {recipe.hash} precision {precision} data {data}"
    normalised = len(execution.passes(recipe)[0]) * world.size if has_batch_norms(model) else 0
    if normalised and at_paper_scale:
        identity += f" batch norms over {normalised} images"
    criterion = PixelCriterion(recipe.auxiliary_weight, recipe.scale_regularisation) if per_pixel else None
    result = train(model, recipe, seed, train_set, folder, identity, on_step, execution, criterion)
    if per_pixel:
        model.auxiliary_head = None  # of the training alone
    kept = {}
    if world.is_main:
        kept = _keep(model, trained_facts(experiment, seed, recipe.hash, commit, recipe.iterations), folder / WEIGHTS)

    # Of the small scale, which is not folded, nothing is said: its evaluations go on as they began.
    folded = {"batch_norms": batch_norms_text(True)} if at_paper_scale else {}
    evaluated = {
        "training": identity,
        "final_loss": result.final_loss,  # of another training on the same recipe it is another one
        "val_fingerprint": val_set.fingerprint(),
        **inference_facts(experiment),
        **folded,
    }
    rules = inference_rules(experiment)
    ready = prepare_for_inference(model, world.device, fold=True, many_images=True) if at_paper_scale else model
    found = evaluate_shared(
        lambda index: predict_image(ready, val_set, val_set[index], rules),
        val_set, folder, evaluated, world, on_image, execution.stop,
        prediction_writer(folder, experiment, f"seed {seed}", val_set, world),
    )  # fmt: skip
    if found is None:
        return None
    metrics = percentages(found, len(val_set))
    metrics["training_seconds"] = {"value": result.seconds, "unit": "s", "n": 1}
    metrics["evaluation_seconds"] = {"value": found.seconds, "unit": "s", "n": len(val_set)}
    metrics["final_loss"] = {"value": result.final_loss, "unit": "1", "n": 1}
    details = {
        "weights": kept,
        "imagenet_weights": weights,
        "device": str(world.device),
        **execution.facts(recipe),
        "batch_norm_images": normalised,
        "resumed": result.resumed,
        "skipped_updates": result.skipped,
        "train_images": len(train_split),
        "val_images": len(val_set),
        "val_split": info.eval_split,
        "official_images": info.images.get(info.eval_split),
        "official_train_images": info.images.get(info.train_split),
        "train_fingerprint": data,
        "val_fingerprint": evaluated["val_fingerprint"],
        **inference_facts(experiment),
        **folded,
        "sizes": experiment.sizes or "the paper's",
        "parameters": count_parameters(model),
    }
    return Measured(metrics, result.seconds + found.seconds, details, recipe=recipe)


def _build(experiment: Experiment, seed: int, recipe: Recipe, world: World) -> tuple[nn.Module, str]:
    """The model on its device, ready to be trained, and which ImageNet weights it starts from."""
    model = build_model(experiment, seed, recipe.drop_path, auxiliary=recipe.auxiliary_weight > 0)
    backbone = get_backbone(experiment.backbone)
    weights = load_imagenet(model.backbone, backbone) if recipe.pretrained else "none: trained from scratch"
    model = model.to(world.device)
    if experiment.scale == "paper":  # a short run would not earn back the compilation
        use_form(model, fast_form(world.device))
    return model, weights


def _keep(model: nn.Module, facts: dict, path: Path) -> dict[str, str]:
    """Write the trained weights as `bench weights convert` does, for `bench predict` and `bench run --weights`; what a
    record says of the file: its path in the store and its SHA-256."""
    write_weights({name: value.cpu() for name, value in model.state_dict().items()}, pack(facts), path)
    return {"file": path.relative_to(path.parents[3]).as_posix(), "sha256": sha256(path)}


def prediction_writer(folder: Path, experiment: Experiment, model: str, dataset, world: World) -> PredictionWriter:
    """Of all processes on the same folder, which the first one prepares.

    model: what tells it from others of the experiment, e.g. "seed 0". Predictions of another model or another
    post-processing are removed: what was measured on them is not used either. Raises BenchError where `folder` cannot
    be written.
    """
    identity = {
        "dataset": experiment.dataset,
        "split": dataset.split,
        "model": f"{experiment.key} {model}",
        "post_processing": post_processing(experiment),
    }
    if not world.is_main:
        world.wait()
    try:
        writer = PredictionWriter(folder / PREDICTIONS, dataset, identity)
    except BenchError:
        shutil.rmtree(folder / PREDICTIONS, ignore_errors=True)
        writer = PredictionWriter(folder / PREDICTIONS, dataset, identity)
    if world.is_main:
        world.wait()
    return writer


def _forget_evaluation(folder: Path) -> None:
    """Remove what an earlier training and its evaluation left."""
    clear(folder)
    (folder / WEIGHTS).unlink(missing_ok=True)
    shutil.rmtree(folder / PREDICTIONS, ignore_errors=True)


@torch.inference_mode()
def predict_image(model: nn.Module, dataset: Dataset, sample: Sample, rules: InferenceRules) -> ImageResults:
    """What `model` predicts for one image of the data set, as it is evaluated."""
    output, sizes = predict_one(model, sample.image, rules)
    return image_results(
        sample.image_id, output, dataset.task, sizes, dataset.categories, cut_to_mask=rules.cut_to_mask
    )


def percentages(found: Evaluation, images: int) -> dict[str, dict]:
    """Metrics of a record; one without a value (nan) is left out."""
    metrics: dict[str, dict] = {}
    for name, value in found.values.items():
        if value == value:
            metrics[name] = {"value": value, "unit": "%", "n": images}
            if name in found.intervals:
                metrics[name]["interval"] = list(found.intervals[name])
    return metrics
