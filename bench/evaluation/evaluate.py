"""The evaluator of a data set, and an evaluation that may be stopped and is shared by processes, each with a log."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.image_log import ImageLog
from bench.evaluation.image_results import ImageResults
from bench.evaluation.instance import InstanceEvaluator
from bench.evaluation.panoptic import PanopticEvaluator
from bench.evaluation.prediction_writer import PredictionWriter
from bench.evaluation.semantic import SemanticEvaluator
from bench.evaluation.uncertainty.bootstrap import Interval, intervals
from bench.evaluation.uncertainty.file import IMAGE_COUNTS, write_counts
from bench.training.distributed import Stopped, World

LOGS = "images-*.jsonl"


class Evaluation(NamedTuple):
    """values: the metrics of the data set's task in percent. intervals: of those that have one, see
    `bench.evaluation.uncertainty.bootstrap`. seconds: of work, without the intervals'."""

    values: dict[str, float]
    intervals: dict[str, Interval]
    seconds: float


def make_evaluator(dataset) -> Evaluator:
    """That of the data set's task, with no image taken yet. Raises BenchError where it needs a file that cannot be
    read."""
    if dataset.task == "panoptic":
        return PanopticEvaluator(dataset)
    if dataset.task == "instance":
        return InstanceEvaluator(dataset)
    return SemanticEvaluator(dataset, dataset.missing_counts)


def evaluate_shared(
    predict: Callable[[int], ImageResults],
    dataset,
    folder: Path,
    identity: Mapping,
    world: World,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
    predictions: PredictionWriter | None = None,
) -> Evaluation | None:
    """Evaluate a model on the data set; None in all processes but the first.

    predict: the results of the image at an index. Of the images that are missing in the logs in
    `folder`, each process takes every `world.size`-th; the logs may come from any number of processes. identity: plain
    JSON facts that decide the result; logs of another are begun anew. Metrics do not depend on who measured what.
    What they are made of, image by image, is left in `folder` (`IMAGE_COUNTS`).
    Raises Stopped when `stop` says so, between two images.
    """
    evaluator = make_evaluator(dataset)
    positions = {image["id"]: i for i, image in enumerate(dataset.images)}
    log, done = _resume(folder, identity, positions, world, predictions)
    todo = torch.arange(len(dataset))[~done][world.rank :: world.size].tolist()
    before = int(done.sum())
    progress(before, len(dataset))
    for number, index in enumerate(todo, start=1):
        if stop():
            raise Stopped
        try:
            predicted = predict(index)
        except torch.OutOfMemoryError as error:
            image = dataset.images[index]["id"]
            remedy = "what is done is saved: the same command goes on, on a GPU with more"
            raise BenchError(f"out of memory in the evaluation of image {image}: {remedy}") from error
        if predictions is not None:
            predictions.write(predicted)  # before the log, which says that all is done
        log.append(evaluator.measure(predicted))
        progress(min(len(dataset), before + number * world.size), len(dataset))  # the others are about as far
    world.wait()
    if not world.is_main:
        return None
    logs = [ImageLog(path, identity) for path in sorted(folder.glob(LOGS))]
    measured = {entry["image"]["id"]: entry for log in logs for entry in log.replay()}
    for image_id in sorted(measured, key=positions.__getitem__):
        evaluator.take(measured[image_id])
    if predictions is not None:
        predictions.finish()
    values, counts = evaluator.compute(), evaluator.image_counts()
    write_counts(counts, folder / IMAGE_COUNTS)
    return Evaluation(values, intervals(counts), sum(log.seconds for log in logs))


def clear(folder: Path) -> None:
    """Remove the logs and counts of an earlier evaluation."""
    for path in (*folder.glob(LOGS), *folder.glob(IMAGE_COUNTS)):
        path.unlink()


def _resume(
    folder: Path, identity: Mapping, positions: Mapping[int, int], world: World, predictions: PredictionWriter | None
) -> tuple[ImageLog, Tensor]:
    """This process's log, ready to append to, and bool [images]: what all logs hold already."""
    done = torch.zeros(len(positions), device=world.device)
    own = ImageLog(folder / LOGS.replace("*", str(world.rank)), identity)
    for log in [own, *(ImageLog(path, identity) for path in _unclaimed(folder, world))]:
        for entry in log.replay():
            image_id = entry["image"]["id"]
            if predictions is None or predictions.has(image_id):
                done[positions[image_id]] = 1
    return own, world.sum(done).bool().cpu()


def _unclaimed(folder: Path, world: World) -> Iterator[Path]:
    """Logs of processes that are no more, this one's share of them."""
    for path in sorted(folder.glob(LOGS)):
        number = path.stem.partition("-")[2]
        if number.isdigit() and int(number) >= world.size and int(number) % world.size == world.rank:
            yield path
