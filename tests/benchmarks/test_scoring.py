"""Scoring COCO-size panoptic images: images a second, on the real photos over and over. Run by `nox -s benchmark`.

`python -m tests.benchmarks.test_scoring FOLDER COUNT` writes a data set and predictions of any size, to time and weigh
`bench score coco_panoptic FOLDER/predictions --data-root FOLDER/coco`.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.data.registry import open_split
from bench.evaluation.evaluate import make_evaluator
from bench.evaluation.image_results import ImageResults
from bench.evaluation.prediction_writer import PredictionWriter
from bench.evaluation.saved_predictions import SavedPredictions
from tests.evaluation.noisy import noisy_logits, results_from

COUNT = 100


def repeat(source: Path, root: Path, count: int) -> tuple[Path, Path]:
    """`count` times the panoptic photos in `source`, in turn, as links, and predictions with 100 queries.

    Returns the folder of the data set and that of the predictions.
    """
    dataset = open_split("coco_panoptic", "val", source)
    content = json.loads(dataset.annotation_file.read_bytes())
    annotated = {annotation["image_id"]: annotation for annotation in content["annotations"]}
    known = [(image, annotated[image["id"]]) for image in dataset.images]
    coco = root / "coco"
    pngs = coco / "annotations" / "panoptic_val2017"
    pngs.mkdir(parents=True)
    (coco / "val2017").mkdir()
    images, annotations = [], []
    for number in range(1, count + 1):
        image, annotation = known[number % len(known)]
        name = f"{number:012d}"
        (coco / "val2017" / f"{name}.jpg").symlink_to(dataset.image_dir.resolve() / image["file_name"])
        (pngs / f"{name}.png").symlink_to(dataset.panoptic_dir.resolve() / annotation["file_name"])
        images.append({**image, "id": number, "file_name": f"{name}.jpg"})
        annotations.append({**annotation, "image_id": number, "file_name": f"{name}.png"})
    content |= {"images": images, "annotations": annotations}
    pngs.with_suffix(".json").write_text(json.dumps(content))
    return coco, _save_predictions(dataset, open_split("coco_panoptic", "val", coco), root / "predictions")


def _save_predictions(source, dataset, folder: Path) -> Path:
    predictions = []
    for sample in source:
        logits, masks, sizes = noisy_logits(sample, len(source.categories), sample.image_id, queries=100)
        predictions.append(results_from(source, sample.image_id, logits, masks, sizes))
    identity = {"dataset": "coco_panoptic", "split": "val2017", "model": "noise", "post_processing": "none"}
    writer = PredictionWriter(folder, dataset, identity)
    for image in dataset.images:
        writer.write(_renamed(predictions[image["id"] % len(predictions)], image["id"]))
    writer.finish()
    return folder


def _renamed(prediction: ImageResults, image_id: int) -> ImageResults:
    instances = [{**entry, "image_id": image_id} for entry in prediction.instances]
    return replace(prediction, image_id=image_id, instances=instances)


@pytest.fixture(scope="module")
def repeated(shared, tmp_path_factory):
    return repeat(shared / "data" / "coco", tmp_path_factory.mktemp("repeated"), COUNT)


def test_scoring(benchmark, repeated):
    """Reading, measuring and averaging: all of `bench score` but its start."""
    dataset = open_split("coco_panoptic", "val", repeated[0])

    def score():
        evaluator, predictions = make_evaluator(dataset), SavedPredictions(repeated[1], dataset)
        for image in dataset.images:
            evaluator.take(evaluator.measure(predictions.of(image)))
        return evaluator.compute()

    metrics = benchmark.pedantic(score, rounds=3, warmup_rounds=1)
    assert 0 < metrics["PQ"] < 100
    benchmark.extra_info["images a second"] = COUNT / benchmark.stats.stats.median
    benchmark.extra_info["minutes for 5000"] = 5000 / 60 * benchmark.stats.stats.median / COUNT


if __name__ == "__main__":
    shared = Path(__file__).resolve().parents[3] / "shared"
    print(*repeat(shared / "data" / "coco", Path(sys.argv[1]), int(sys.argv[2])))
