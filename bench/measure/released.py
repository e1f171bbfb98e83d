"""Accuracy of a checkpoint that somebody else trained: evaluated here, nothing is trained."""

from pathlib import Path

import torch

from bench.data.registry import open_split, split_fingerprint
from bench.errors import BenchError
from bench.evaluation.evaluate import evaluate_shared
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.inference_rules import inference_facts, inference_rules
from bench.machine import default_device
from bench.measure.accuracy import Progress, percentages, predict_image, prediction_writer
from bench.measure.complexity.flops import count_parameters
from bench.measure.inference import batch_norms_text, prepare_for_inference
from bench.measure.measured import Measured
from bench.records import Store
from bench.training.distributed import World
from bench.weights.files import sha256
from bench.weights.load import open_weights

LOG = "images-0.jsonl"  # of the one process that evaluates


def is_done(store: Store, experiment: Experiment, weights: Path, data_root: Path | None = None) -> bool:
    """Whether the store has the record of this file, by its SHA-256, on the data that is found, made as today.

    Raises BenchError where it has that of another file or of other data, and for a file that cannot be read.
    """
    record = store.get(experiment, "released")
    if record is None:
        return False
    path, remedy = store.record_path(experiment, "released"), "--force replaces it, another --store keeps both"
    known, digest = record.details["weights"], sha256(weights)
    if known["sha256"] != digest:
        raise BenchError(
            f"{path} is of {known['file']} (SHA-256 {known['sha256'][:12]}), not of {weights} (SHA-256 "
            f"{digest[:12]}): {remedy}"
        )
    try:
        data = split_fingerprint(experiment.dataset, get_dataset(experiment.dataset).eval_split, data_root)
    except BenchError:
        return record.is_current  # no data to compare with
    if record.details.get("val_fingerprint", data) != data:
        raise BenchError(
            f"{path} is of other data ({record.details.get('val_images')} images) than those in "
            f"{data_root or 'the folder of the data'}: {remedy}"
        )
    return record.is_current


def measure_released(
    experiment: Experiment, weights: Path, folder: Path, data_root: Path | None, progress: Progress
) -> Measured:
    """The checkpoint's accuracy on the data set's split for results, with a log in `folder` to go on from.

    The log is the caller's to remove afterwards; the predictions stay in `folder` too (`bench score` reads them).

    Raises BenchError where the file is not of this experiment, and for missing or broken data.
    """
    info = get_dataset(experiment.dataset)
    val_set = open_split(experiment.dataset, info.eval_split, data_root)
    opened = open_weights(weights, **experiment.to_dict())
    model, facts = opened.build(), opened.facts
    device = default_device()
    parameters, at_paper_scale = count_parameters(model), experiment.scale == "paper"
    model = prepare_for_inference(model, device, fold=at_paper_scale, many_images=at_paper_scale)
    rules = inference_rules(experiment)
    details = {
        "weights": facts,
        "test_shorter_side": rules.shorter_side,
        "test_longer_side": rules.longer_side,
        "val_images": len(val_set),
        "official_images": info.images.get(info.eval_split),
        "val_split": info.eval_split,
        "val_fingerprint": val_set.fingerprint(),
        "device": str(device),
        **inference_facts(experiment),
        "batch_norms": batch_norms_text(at_paper_scale),
    }
    identity = {"key": experiment.key, "torch": torch.__version__, **details, "weights": facts["sha256"]}
    counts: list[int] = []  # of images done, from those of an earlier part on

    def on_image(done: int, count: int) -> None:
        counts.append(done)
        progress(done, count, f"evaluated {done}/{count}")

    world = World(device=device)
    predictions = prediction_writer(folder, experiment, f"weights {facts['sha256']}", val_set, world)
    found = evaluate_shared(
        lambda index: predict_image(model, val_set, val_set[index], rules),
        val_set, folder, identity, world, on_image, predictions=predictions,
    )  # fmt: skip
    metrics = percentages(found, len(val_set))
    metrics["evaluation_seconds"] = {"value": found.seconds, "unit": "s", "n": len(val_set)}
    details |= {
        "resumed_after_images": counts[0],
        "sizes": experiment.sizes or "the paper's",
        "parameters": parameters,
    }
    return Measured(metrics, found.seconds, details)
