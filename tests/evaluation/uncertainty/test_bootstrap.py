"""Metrics of resampled images, against the ordinary evaluators and pycocotools on data sets that have the images as
often as a draw has them, and intervals against a plain numpy resampling."""

import json

import numpy as np
import pytest

from bench.data.run_lengths import segment_annotations
from bench.evaluation.image_results import ImageResults
from bench.evaluation.instance import InstanceEvaluator
from bench.evaluation.quality import PanopticQuality
from bench.evaluation.semantic import Confusion
from bench.evaluation.uncertainty.bootstrap import DRAWS, ImageCounts, draw_images, intervals
from tests.evaluation.test_instance import box_mask, entry, official, write_set
from tests.evaluation.test_quality import CATEGORIES, segments_of

IMAGES = 7
SIZE = (20, 24)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def plain_interval(metric) -> list[float]:
    """The middle 95 % of `metric(images)` over draws with replacement, written as one writes it in numpy."""
    rng = np.random.default_rng(0)
    values = [metric(rng.integers(IMAGES, size=IMAGES)) for _ in range(1000)]
    return np.nanpercentile(values, [2.5, 97.5]).tolist()


def test_panoptic_quality_of_a_plain_resampling(rng):
    """Also PQ_st, of which the images that have stuff are few: some draws have none."""
    quality, measured = PanopticQuality(CATEGORIES), {}
    for image_id in range(IMAGES):
        classes = [1, 8, 8, 92, 200, 1] if image_id < 2 else [1, 8, 8, 1, 1, 8]
        true = rng.integers(0, 6, (5, 6)).repeat(4, 0).repeat(4, 1)
        noise = np.where(rng.random(SIZE) < 0.1 + 0.1 * image_id, rng.integers(0, 6, SIZE), true)
        sides = [segment_annotations(image_id, ids, segments_of(ids, classes, [0] * 6)) for ids in (true, noise)]
        measured[image_id] = quality.measure(*sides, {"id": image_id, "height": SIZE[0], "width": SIZE[1]})
        quality.take(image_id, measured[image_id])
    found = intervals(ImageCounts(np.arange(IMAGES), [quality.counts(range(IMAGES))]))

    def of_draw(images):
        again = PanopticQuality(CATEGORIES)
        for number, image_id in enumerate(images):
            again.take(number, measured[image_id])
        return again.compute()

    without_stuff = of_draw([3, 4])
    assert np.isnan(without_stuff["PQ_st"]) and 0 < without_stuff["PQ_th"] < 100
    for name in ("PQ", "PQ_th", "PQ_st"):
        expected = plain_interval(lambda images, name=name: of_draw(images)[name])
        assert found[name] == pytest.approx(expected, abs=1e-9) and expected[1] - expected[0] > 1


@pytest.mark.parametrize("missing_counts", [False, True])
def test_mean_iou_of_a_plain_resampling(rng, missing_counts):
    """Classes that are true in few images, or only predicted, and ignored pixels."""
    truths = [rng.choice([0, 1, 2 + number % 3, 255], SIZE) for number in range(IMAGES)]
    predictions = [np.where(rng.random(SIZE) < 0.7, np.minimum(truth, 5), rng.integers(0, 6, SIZE)) for truth in truths]

    def of_draw(images):
        confusion = Confusion(6, missing_counts)
        for number, image in enumerate(images):
            confusion.take(number, confusion.measure(truths[image], predictions[image]))
        return confusion

    counts = of_draw(range(IMAGES)).counts(range(IMAGES), ("mIoU", "pixel_accuracy"))
    found = intervals(ImageCounts(np.arange(IMAGES), [counts]))
    for name, metric in (("mIoU", Confusion.mean_iou), ("pixel_accuracy", Confusion.pixel_accuracy)):
        expected = plain_interval(lambda images, metric=metric: metric(of_draw(images)))
        assert found[name] == pytest.approx(expected, abs=1e-9) and expected[1] - expected[0] > 1


def instance_scene(rng) -> tuple[list, list]:
    """Truth (class, crowd, mask) and detections (class, score, mask) of an image, of all sizes."""
    truth, found = [], []
    for _ in range(rng.integers(0, 6)):
        top, left, side = rng.integers(0, 40), rng.integers(0, 40), rng.choice([12, 25, 60, 100])
        category = int(rng.choice([1, 3, 90], p=[0.6, 0.3, 0.1]))
        truth.append((category, int(rng.random() < 0.15), box_mask((top, left, side, side), (140, 150))))
        for _ in range(rng.integers(0, 3)):
            shift = rng.integers(0, 1 + side // 8, 2)
            moved = box_mask((top + shift[0], left + shift[1], side, side), (140, 150))
            found.append((category if rng.random() < 0.9 else 3, rng.random(), moved))
    for _ in range(rng.integers(0, 4)):
        found.append((1, 0.7 * rng.random(), box_mask((*rng.integers(0, 90, 2), 30, 30), (140, 150))))
    return truth, found


def data_set(folder, scenes, times):
    """The images of scenes, each as often as `times` says, and their detections."""
    chosen = dict(enumerate((scene for scene, n in zip(scenes, times, strict=True) for _ in range(n)), start=1))
    folder.mkdir()
    truth = [(i, category, crowd, mask) for i, (true, _) in chosen.items() for category, crowd, mask in true]
    detections = [entry(i, *detection) for i, (_, found) in chosen.items() for detection in found]
    return write_set(folder, dict.fromkeys(chosen, (140, 150)), truth), detections


def evaluated(dataset, detections) -> InstanceEvaluator:
    evaluator = InstanceEvaluator(dataset)
    for image in dataset.images:
        mine = [detection for detection in detections if detection["image_id"] == image["id"]]
        evaluator.take(evaluator.measure(ImageResults(image["id"], (140, 150), instances=mine)))
    return evaluator


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_of_repeated_images_is_pycocotools(tmp_path, seed):
    """AP of masks, by size, and of boundaries; crowds, missed classes, images without objects or detections."""
    rng = np.random.default_rng(seed)
    scenes = [instance_scene(rng) for _ in range(IMAGES)]
    evaluator = evaluated(*data_set(tmp_path / "once", scenes, [1] * IMAGES))
    counts = evaluator.image_counts()
    assert {name: row.item() for name, row in counts.values().items()} == pytest.approx(
        evaluator.compute(), abs=1e-10, nan_ok=True
    )
    weights = np.stack([np.bincount(rng.integers(IMAGES, size=IMAGES), minlength=IMAGES) for _ in range(4)], axis=1)
    found = counts.values(weights.astype(np.int32))
    assert np.ptp(found["AP"]) > 1
    for number, times in enumerate(weights.T):
        dataset, detections = data_set(tmp_path / str(number), scenes, times)
        expected = official(dataset.annotation_file, detections)
        values = {name: row[number] for name, row in found.items()}
        assert {name: -100.0 if np.isnan(v) else v for name, v in values.items()} == pytest.approx(expected, abs=1e-9)


def test_draws_in_parts_are_the_same_draws(rng):
    whole = np.concatenate(list(draw_images(IMAGES)), axis=1)
    parts = list(draw_images(IMAGES, at_once=300))
    assert [part.shape[1] for part in parts] == [300, 300, 300, 100]
    assert np.array_equal(np.concatenate(parts, axis=1), whole) and whole.shape == (IMAGES, DRAWS)
    assert (whole.sum(0) == IMAGES).all()


def test_one_image_says_nothing(rng):
    confusion = Confusion(2)
    confusion.take(4, json.loads(json.dumps(confusion.measure(np.zeros(SIZE, int), rng.integers(0, 2, SIZE)))))
    assert intervals(ImageCounts(np.array([4]), [confusion.counts([4], ("mIoU",))])) == {}


def test_intervals_cover(rng):
    """Of 100 sets of 60 images of one kind, most intervals of the pixel accuracy hold the truth, and not all do."""
    hits = 0
    for _ in range(100):
        right = rng.binomial(100, rng.beta(8, 4, 60))
        confusion = Confusion(2)
        for image_id, count in enumerate(right.tolist()):
            confusion.take(image_id, {"places": [0, 1], "pixels": [count, 100 - count]})
        counts = confusion.counts(range(60), ("mIoU", "pixel_accuracy"))
        low, high = intervals(ImageCounts(np.arange(60), [counts]))["pixel_accuracy"]
        hits += low <= 100 * 8 / 12 <= high
    assert 88 <= hits <= 99
