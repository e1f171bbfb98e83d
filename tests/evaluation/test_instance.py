"""InstanceEvaluator against pycocotools and faster-coco-eval, a second definition of boundaries, and by hand."""

import contextlib
import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import binary_erosion

from bench.data.registry import open_split
from bench.data.run_lengths import encode_masks
from bench.errors import BenchError
from bench.evaluation.evaluate import make_evaluator
from bench.evaluation.image_results import ImageResults
from bench.evaluation.instance import InstanceEvaluator
from tests.evaluation.noisy import results_from
from tests.evaluation.panoptic_folder import class_logits, mask_logits

METRICS = ["AP", "AP_S", "AP_M", "AP_L", "AP_boundary"]


def official(path, detections: list[dict], boundary=True) -> dict[str, float]:
    """pycocotools' AP, checked against faster-coco-eval's, and the latter's boundary AP; in percent, -100 is none."""
    stats = {}
    for name, kind, coco, evaluator in (
        ("segm", "segm", COCO, COCOeval), ("faster", "segm", FasterCOCO, COCOeval_faster),
        *([("boundary", "boundary", FasterCOCO, COCOeval_faster)] if boundary else []),
    ):  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            reference = coco(str(path))
            evaluation = evaluator(reference, reference.loadRes(json.loads(json.dumps(detections))), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats[name] = 100 * np.asarray(evaluation.stats)
    assert stats["segm"][:6] == pytest.approx(stats["faster"][:6], abs=1e-6)
    values = dict(zip(METRICS, stats["segm"][[0, 3, 4, 5]].tolist(), strict=False))
    return values | ({"AP_boundary": float(stats["boundary"][0])} if boundary else {})


def evaluate(dataset, detections: list[dict], reverse=False) -> dict[str, float]:
    evaluator = InstanceEvaluator(dataset)
    for image in reversed(dataset.images) if reverse else dataset.images:
        mine = [entry for entry in detections if entry["image_id"] == image["id"]]
        prediction = ImageResults(image["id"], (image["height"], image["width"]), instances=mine)
        evaluator.take(json.loads(json.dumps(evaluator.measure(prediction))))
    return evaluator.compute()


def agree(found: dict[str, float], expected: dict[str, float]) -> None:
    comparable = {name: -100.0 if math.isnan(value) else value for name, value in found.items()}
    assert comparable == pytest.approx(expected, abs=1e-6)


def write_set(folder, images: dict[int, tuple[int, int]], truth: list[tuple[int, int, int, np.ndarray]]):
    """truth: image id, category id, iscrowd, mask. Category ids have holes."""
    annotations = [
        {"id": number, "image_id": image_id, "category_id": category, "iscrowd": crowd, "area": float(mask.sum()),
         "segmentation": encode_masks(mask[None])[0], "bbox": rle_codec.toBbox(encode_masks(mask[None])[0]).tolist()}
        for number, (image_id, category, crowd, mask) in enumerate(truth, start=1)
    ]  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in images.items()],
        "annotations": annotations,
        "categories": [{"id": id_, "name": str(id_)} for id_ in (1, 3, 90)],
    }
    path = folder / "instances_val.json"
    path.write_text(json.dumps(content))
    categories = [SimpleNamespace(id=c["id"], name=c["name"], is_thing=True) for c in content["categories"]]
    return SimpleNamespace(task="instance", images=content["images"], categories=categories, annotation_file=path)


def entry(image_id: int, category: int, score: float, mask: np.ndarray) -> dict:
    return {"image_id": image_id, "category_id": category, "segmentation": encode_masks(mask[None])[0], "score": score}


def shifted_truth(path, seed: int) -> list[dict]:
    """Two shifted copies of every instance, crowds included, a tenth with another class."""
    rng, reference = np.random.default_rng(seed), None
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(path))
    detections = []
    for annotation in reference.dataset["annotations"]:
        mask = reference.annToMask(annotation).astype(bool)
        for _ in range(2):
            moved = np.roll(mask, rng.integers(-6, 7, 2), (0, 1))
            category = annotation["category_id"] if rng.random() < 0.9 else 1
            if moved.any():
                detections.append(entry(annotation["image_id"], category, round(rng.random(), 2), moved))
    return detections


def test_real_coco_is_as_the_official_evaluations_have_it(shared):
    """Twelve photos: two with crowd regions, one without objects; equal scores too."""
    dataset = open_split("coco_instance", "val", shared / "data" / "coco")
    detections = shifted_truth(dataset.annotation_file, 0)
    found = evaluate(dataset, detections)
    agree(found, official(dataset.annotation_file, detections))
    assert all(1 < found[name] < 99 for name in METRICS) and found["AP_boundary"] < found["AP"] - 1
    assert evaluate(dataset, detections, reverse=True) == found


def test_nuclei_have_more_than_100_of_a_class(shared):
    """COCO counts the best 100 of an image."""
    path = shared / "data" / "nuclei" / "annotations" / "instances_val.json"
    content = json.loads(path.read_bytes())
    counts = np.bincount([annotation["image_id"] for annotation in content["annotations"]])
    kept = {int(counts.argmax()), *[image["id"] for image in content["images"][:3]]}
    assert counts.max() > 100
    images = [image for image in content["images"] if image["id"] in kept]
    categories = [SimpleNamespace(id=c["id"], name="", is_thing=True) for c in content["categories"]]
    dataset = SimpleNamespace(images=images, categories=categories, annotation_file=path)
    detections = [entry for entry in shifted_truth(path, 1) if entry["image_id"] in kept]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(path))
        evaluation = COCOeval(reference, reference.loadRes(json.loads(json.dumps(detections))), "segm")
        evaluation.params.imgIds = sorted(kept)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluate(dataset, detections)["AP"] == pytest.approx(100 * evaluation.stats[0], abs=1e-6)


boxes = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 40), st.integers(1, 40))
things = st.lists(st.tuples(st.sampled_from([1, 3, 90]), st.sampled_from([0, 0, 0, 1]), boxes), max_size=5)
detected = st.lists(st.tuples(st.sampled_from([1, 3, 90]), st.integers(1, 9), boxes), max_size=6)


def box_mask(box, size) -> np.ndarray:
    mask = np.zeros(size, bool)
    top, left, height, width = box
    mask[top : top + height, left : left + width] = True
    return mask


@given(st.lists(st.tuples(things, detected), min_size=1, max_size=3))
def test_any_instances(tmp_path_factory, scenes):
    """Overlapping boxes, crowds, images without objects or without detections, equal scores."""
    size = (48, 52)
    truth = [(i, c, crowd, box_mask(b, size)) for i, (t, _) in enumerate(scenes, 1) for c, crowd, b in t]
    found = [entry(i, c, s / 10, box_mask(b, size)) for i, (_, d) in enumerate(scenes, 1) for c, s, b in d]
    dataset = write_set(tmp_path_factory.mktemp("any"), {i: size for i, _ in enumerate(scenes, 1)}, truth)
    values = evaluate(dataset, found)
    assert evaluate(dataset, found, reverse=True) == pytest.approx(values, nan_ok=True, abs=0)
    if found:  # pycocotools cannot read an empty list of results
        agree(values, official(dataset.annotation_file, found))
    elif any(not crowd for _, _, crowd, _ in truth):
        assert values["AP"] == values["AP_boundary"] == 0
    else:
        assert all(math.isnan(value) for value in values.values())


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask nearer than d to its contour, that of the image included; d = 2 % of the diagonal."""
    d = max(1, round(0.02 * math.hypot(*mask.shape)))
    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=d, border_value=0)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


def test_boundaries_by_a_second_definition(tmp_path):
    """One instance an image: AP is the mean over the thresholds that mask IoU and boundary IoU reach."""
    size = (150, 210)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(8):
        y, x, r = rng.integers(20, 130), rng.integers(20, 190), rng.integers(15, 60)
        true = (rows - y) ** 2 + (columns - x) ** 2 < r**2
        predicted = (rows - y - number) ** 2 + (columns - x) ** 2 < (r + number % 3) ** 2
        (tmp_path / str(number)).mkdir()
        dataset = write_set(tmp_path / str(number), {1: size}, [(1, 3, 0, true)])
        value = min(iou(true, predicted), iou(boundary(true), boundary(predicted)))
        expected = 100 * np.mean([value >= threshold for threshold in np.linspace(0.5, 0.95, 10)])
        found = evaluate(dataset, [entry(1, 3, 0.5, predicted)])
        assert found["AP_boundary"] == pytest.approx(expected, abs=1e-6)


def test_by_hand_from_logits(tmp_path):
    """One of two instances found: precision 1 up to recall 1/2, 51 of 101 points; the other class is missed."""
    left, right, other = (np.zeros((20, 30), bool) for _ in range(3))
    left[:, :8], right[:, 12:20], other[:, 22:] = True, True, True
    dataset = write_set(tmp_path, {7: (20, 30)}, [(7, 1, 0, left), (7, 1, 0, right), (7, 90, 0, other)])
    evaluator = make_evaluator(dataset)
    assert isinstance(evaluator, InstanceEvaluator)
    evaluator.take(evaluator.measure(results_from(dataset, 7, class_logits([(0, 0.9)], 3), mask_logits([left]))))
    assert evaluator.compute()["AP"] == pytest.approx(100 * (51 / 101 + 0) / 2)
    assert math.isnan(evaluator.compute()["AP_L"])


def test_mistakes_are_said_in_one_line(tmp_path):
    mask = np.ones((4, 6), bool)
    dataset, classes = write_set(tmp_path, {1: (4, 6)}, [(1, 1, 0, mask)]), class_logits([(0, 0.9)], 3)
    with pytest.raises(BenchError, match=r"^(?!.*\n).*resize the masks"):
        InstanceEvaluator(dataset).measure(results_from(dataset, 1, classes, mask_logits([np.ones((6, 4), bool)])))
    content = json.loads(dataset.annotation_file.read_text())
    content["annotations"][0]["segmentation"]["counts"] = "1234"
    dataset.annotation_file.write_text(json.dumps(content))
    with pytest.raises(BenchError, match=r"^(?!.*\n).*instances_val.json: annotation 1 of image 1 .*download"):
        InstanceEvaluator(dataset)
    for broken in ("{", "[]", '{"images": [{"id": 1}], "annotations": [{}]}'):
        dataset.annotation_file.write_text(broken)
        with pytest.raises(BenchError, match=r"^(?!.*\n).*instances_val.json.*(download)"):
            InstanceEvaluator(dataset)
