"""SemanticEvaluator against Cityscapes' own evaluation, a plain numpy definition, and by hand."""

import contextlib
import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as cityscapes_evaluation
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from bench.data.registry import open_split
from bench.errors import BenchError
from bench.evaluation.evaluate import make_evaluator
from bench.evaluation.image_results import ImageResults
from bench.evaluation.postprocess import semantic_labels_of
from bench.evaluation.semantic import SemanticEvaluator
from tests.evaluation.noisy import noisy_logits, results_from


def stand_in(truths: list[np.ndarray], classes: int = 4):
    return SimpleNamespace(
        task="semantic",
        missing_counts=False,
        images=[{"id": number, "file_name": f"{number}.png"} for number in range(1, len(truths) + 1)],
        categories=[SimpleNamespace(id=number, name=str(number)) for number in range(classes)],
        label_map=lambda index: truths[index],
    )


def measure_labels(evaluator, image_id: int, labels) -> dict:
    labels = np.asarray(labels)
    return evaluator.measure(ImageResults(image_id, labels.shape, labels=labels))


def evaluate(dataset, predictions: list[np.ndarray], reverse=False) -> dict[str, float]:
    evaluator = make_evaluator(dataset)
    pairs = list(zip(dataset.images, predictions, strict=True))
    for image, labels in reversed(pairs) if reverse else pairs:
        evaluator.take(json.loads(json.dumps(measure_labels(evaluator, image["id"], labels))))
    return evaluator.compute()


@pytest.fixture(scope="module")
def cityscapes(generated_once):
    return open_split("cityscapes", "val", generated_once("cityscapes"))


def official_cityscapes(folder, dataset, predictions: list[np.ndarray]) -> float:
    """The benchmark's script on files: labelIds of the truth, PNGs with label ids of the predictions."""
    ids = np.array([category.id for category in dataset.categories], np.uint8)
    found, true = [], []
    for index, labels in enumerate(predictions):
        found.append(str(folder / f"{index}.png"))
        Image.fromarray(ids[labels]).save(found[-1])
        true.append(str(dataset.files(index)[1]))
    args = cityscapes_evaluation.args
    args.evalLabels, args.JSONOutput, args.quiet, args.evalInstLevelScore = [], False, True, False
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        results = cityscapes_evaluation.evaluateImgLists(found, true, args)
    return 100 * results["averageScoreClasses"]


@pytest.mark.parametrize("seed", range(3))
def test_cityscapes_number_is_that_of_its_own_script(tmp_path, cityscapes, seed):
    """Also with classes that are nowhere true, and that are predicted on ignored pixels alone."""
    rng = np.random.default_rng(seed)
    predictions = []
    for index in range(len(cityscapes)):
        truth = cityscapes.label_map(index)
        labels = np.where(truth < 19, truth, rng.integers(0, 19)).astype(np.uint8)
        wrong = rng.random((1, *truth.shape[1:])) < 0.2
        predictions.append(np.where(wrong, rng.integers(0, 19 if seed else 3), labels))
    found = evaluate(cityscapes, predictions)
    assert found["mIoU"] == pytest.approx(official_cityscapes(tmp_path, cityscapes, predictions), abs=1e-6)
    assert 0 < found["mIoU"] < 100 and found == evaluate(cityscapes, predictions, reverse=True)


maps = arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 3, 255]))
predicted = arrays(np.uint8, (4, 5), elements=st.integers(0, 3))


@given(st.lists(st.tuples(maps, predicted), min_size=1, max_size=3))
def test_definition(pairs):
    truth, labels = (np.concatenate([pair[side].reshape(-1) for pair in pairs]) for side in (0, 1))
    valid = truth != 255
    present = [k for k in range(4) if (truth == k).any()]
    ious = [((truth == k) & (labels == k)).sum() / ((truth == k) | (valid & (labels == k))).sum() for k in present]
    found = evaluate(stand_in([pair[0] for pair in pairs]), [pair[1] for pair in pairs])
    if not present:
        assert all(math.isnan(value) for value in found.values())
        return
    assert found["mIoU"] == pytest.approx(100 * np.mean(ious), abs=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(100 * np.mean(truth[valid] == labels[valid]), abs=1e-6)


def test_by_hand():
    truth = np.array([[0, 0, 0, 0, 1, 1, 255, 255]], np.uint8)
    labels = np.array([[0, 0, 1, 3, 1, 0, 1, 2]], np.uint8)
    found = evaluate(stand_in([truth]), [labels])
    assert found["mIoU"] == pytest.approx(100 * (2 / 5 + 1 / 3) / 2)  # class 3 is nowhere true, 255 counts nowhere
    assert found["pixel_accuracy"] == pytest.approx(100 * 3 / 6)


def test_logits_are_resized_as_scores(cityscapes):
    sample = cityscapes[0]
    classes, masks, sizes = noisy_logits(sample, 19, 0)
    evaluator = SemanticEvaluator(cityscapes, missing_counts=True)
    labels = semantic_labels_of(classes, masks, *sizes)
    assert evaluator.measure(results_from(cityscapes, 1, classes, masks, sizes)) == measure_labels(evaluator, 1, labels)


def test_real_camvid_against_itself(shared):
    dataset = open_split("camvid", "val", shared / "data" / "camvid")
    dataset.images = dataset.images[:20]
    truths = [dataset.label_map(index) for index in range(20)]
    assert any((truth == 255).any() for truth in truths)
    predictions = [np.where(truth == 255, 5, truth) for truth in truths]
    assert evaluate(dataset, predictions) == {"mIoU": 100.0, "pixel_accuracy": 100.0}


def test_mistakes_are_said_in_one_line():
    evaluator = SemanticEvaluator(stand_in([np.zeros((2, 3), np.uint8)]))
    with pytest.raises(BenchError, match="no image was added"):
        evaluator.compute()
    with pytest.raises(BenchError, match="image 9 is not in the data set"):
        measure_labels(evaluator, 9, np.zeros((2, 3), int))
    with pytest.raises(BenchError, match=r"^(?!.*\n).*resize the masks"):
        measure_labels(evaluator, 1, np.zeros((3, 2), int))
    for wrong in (4, 255, -1):
        with pytest.raises(BenchError, match="is no class: give indices from 0 to 3"):
            measure_labels(evaluator, 1, np.full((2, 3), wrong))
    measured = measure_labels(evaluator, 1, np.zeros((2, 3), int))
    evaluator.take(measured)
    with pytest.raises(BenchError, match="already evaluated"):
        evaluator.take(measured)
