"""PanopticEvaluator against hand-computed numbers, panopticapi and pycocotools."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
from panopticapi.evaluation import pq_compute_single_core
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench.data.coco import CocoPanoptic
from bench.errors import BenchError
from bench.evaluation.panoptic import PanopticEvaluator
from bench.evaluation.postprocess import instance_predictions, panoptic_segments, semantic_scores
from tests.evaluation.noisy import results_from
from tests.evaluation.panoptic_folder import (
    CATEGORIES,
    IS_THING,
    class_logits,
    mask_logits,
    perfect_prediction,
    save_ids,
    write_dataset,
)


def segment(id_: int, category_id: int, iscrowd: int = 0) -> dict:
    return {"id": id_, "category_id": category_id, "iscrowd": iscrowd}


def columns(*widths_and_ids: tuple[int, int], height: int = 10) -> np.ndarray:
    """Segment ids [height, W]: upright stripes of (width, id)."""
    return np.tile(np.concatenate([np.full(width, id_) for width, id_ in widths_and_ids]), (height, 1))


def blocks(generator: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    ids = np.zeros((height, width), dtype=np.int64)
    for value in range(1, count + 1):
        top, left = generator.integers(0, height - 4), generator.integers(0, width - 4)
        ids[top : top + generator.integers(3, height), left : left + generator.integers(3, width)] = value
    return ids


def random_case(seed: int) -> tuple[dict, dict]:
    """Ground truth with void and crowds, and predictions {image id: logits} that are partly right."""
    generator = np.random.default_rng(seed)
    truth, predictions = {}, {}
    for image_id in (11, 12, 15):
        height, width = 21 + image_id, 45
        ids = blocks(generator, height, width, 7) * 1001  # ids above 255 use all colour channels
        names = [int(value) for value in np.unique(ids) if value]
        kinds = {name: int(generator.integers(0, len(CATEGORIES))) for name in names}
        crowds = {name: int(IS_THING[kinds[name]] and generator.random() < 0.25) for name in names}
        # One crowd a class and image, as in COCO (panopticapi knows no more).
        seen: set[int] = set()
        for name in names:
            if crowds[name] and kinds[name] in seen:
                crowds[name] = 0
            seen |= {kinds[name]} if crowds[name] else set()
        truth[image_id] = ids, [segment(name, CATEGORIES[kinds[name]][0], crowds[name]) for name in names]
        queries, masks = [], []
        for name in names:
            kind = kinds[name] if generator.random() < 0.8 else int(generator.integers(0, len(CATEGORIES)))
            queries.append((kind, generator.uniform(0.75, 1.0)))
            masks.append(np.roll(ids == name, generator.integers(-2, 3), axis=1))
        for _ in range(3):
            queries.append((int(generator.integers(0, len(CATEGORIES))), generator.uniform(0.5, 1.0)))
            masks.append(blocks(generator, height, width, 1) > 0)
        noise = torch.from_numpy(generator.normal(0, 0.5, (len(masks), height, width))).float()
        predictions[image_id] = class_logits(queries), mask_logits(masks, 3.0) + noise
    return truth, predictions


def evaluate(dataset: CocoPanoptic, predictions: dict) -> dict[str, float]:
    evaluator = PanopticEvaluator(dataset)
    for image_id, (classes, masks) in predictions.items():
        evaluator.take(evaluator.measure(results_from(dataset, image_id, classes, masks)))
    assert evaluator.num_images == len(predictions)
    return evaluator.compute()


def test_perfect_prediction_is_100(tmp_path, capfd):
    ids = columns((4, 5), (3, 70000), (2, 9), (3, 0), (5, 300))
    segments = [segment(5, 1), segment(70000, 1), segment(9, 8), segment(300, 200)]
    truth = {1: (ids, segments), 7: (ids[:, ::-1], segments)}
    dataset = write_dataset(tmp_path, truth)
    metrics = evaluate(dataset, {id_: perfect_prediction(*truth[id_]) for id_ in truth})
    expected = dict.fromkeys(["PQ", "PQ_th", "PQ_st", "AP_pan_th", "mIoU_pan"], 100.0)
    assert metrics == pytest.approx(expected, abs=1e-6)
    assert capfd.readouterr() == ("", "")  # neither package may write to the user's terminal


def test_pq_ap_and_miou_by_hand(tmp_path):
    # Ten rows high. Truth: thing 1 (4 columns), thing 1 (4), thing 3 (4), stuff 92 (6), void (2).
    ids = columns((4, 1), (4, 2), (4, 3), (6, 4), (2, 0))
    dataset = write_dataset(tmp_path, {1: (ids, [segment(1, 1), segment(2, 1), segment(3, 3), segment(4, 92)])})
    x = np.tile(np.arange(20), (10, 1))
    queries = [
        (0, 0.95, x < 3),  # on the first thing: IoU 3/4, a match
        (0, 0.90, (x >= 4) & (x < 6)),  # half of the second: IoU 1/2 is no match -> FP and FN
        (3, 0.99, (x >= 11) & (x < 20)),  # stuff: intersection 6, union 9 - 2 void = 7 -> IoU 6/7
        (2, 0.85, x == 8),  # wrong class: FP of 8, FN of 3
    ]
    classes = class_logits([(label, score) for label, score, _ in queries])
    metrics = evaluate(dataset, {1: (classes, mask_logits([mask for *_, mask in queries]))})
    pq = {1: 0.75 / (1 + 0.5 + 0.5), 3: 0.0, 8: 0.0, 92: 6 / 7}
    assert metrics["PQ"] == pytest.approx(100 * sum(pq.values()) / 4)
    assert metrics["PQ_th"] == pytest.approx(100 * 0.375 / 3)
    assert metrics["PQ_st"] == pytest.approx(100 * 6 / 7)
    # Columns that no mask covers (3, 6, 7, 9, 10) go to class 1, which two queries vote for: it holds 0..7 and 9, 10.
    # Union of class 1: 10 columns. Class 3: none found. Stuff: 11..17 of 12..17, void not counted.
    assert metrics["mIoU_pan"] == pytest.approx(100 * (8 / 10 + 0 + 6 / 7) / 3)
    # AP of class 1, best first: IoU 0.75 matches at 0.50..0.75 (6 of 10 thresholds), IoU 0.5 at 0.50 only. Recall 1
    # at 0.50: AP 1; at the other five: precision 1 up to recall 1/2: 51 of 101 points. Class 3 has AP 0.
    assert metrics["AP_pan_th"] == pytest.approx(100 * (1 + 5 * 51 / 101) / 10 / 2)


@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_panopticapi_and_pycocotools(tmp_path, seed):
    truth, predictions = random_case(seed)
    dataset = write_dataset(tmp_path, truth)
    metrics = evaluate(dataset, predictions)

    pairs, confusion = [], np.zeros((5, 6))
    (tmp_path / "predicted").mkdir()
    true_instances, found = [], []
    index = {id_: position for position, (id_, _) in enumerate(CATEGORIES)}
    for image_id, (classes, masks) in predictions.items():
        ids, segments = truth[image_id]
        panoptic = panoptic_segments(classes, masks, IS_THING)
        save_ids(tmp_path / "predicted" / f"{image_id}.png", panoptic.segmentation.numpy())
        info = [{"id": s["id"], "category_id": CATEGORIES[s["category"]][0]} for s in panoptic.segments]
        true_info = [{**s, "area": int((ids == s["id"]).sum())} for s in segments]
        pairs.append(
            tuple({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": x} for x in (true_info, info))
        )
        for s in segments:
            predicted = semantic_scores(classes, masks).argmax(0).numpy()[ids == s["id"]]
            np.add.at(confusion, (index[s["category_id"]], predicted), 1)
            if IS_THING[index[s["category_id"]]]:
                true_instances.append((image_id, ids == s["id"], s["category_id"], s["iscrowd"]))
        instances = instance_predictions(classes, masks, IS_THING)
        for score, label, mask in zip(instances.scores, instances.labels, instances.masks, strict=True):
            found.append((image_id, mask.numpy(), CATEGORIES[label][0], float(score)))

    categories = {id_: {"id": id_, "isthing": int(thing)} for id_, thing in CATEGORIES}
    folder = str(dataset.panoptic_dir)
    counts = pq_compute_single_core(0, pairs, folder, str(tmp_path / "predicted"), categories)
    for name, isthing in (("PQ", None), ("PQ_th", True), ("PQ_st", False)):
        expected = 100 * counts.pq_average(categories, isthing)[0]["pq"]
        assert metrics[name] == pytest.approx(expected, abs=1e-6), name
    assert sum(counts[id_].tp for id_ in categories) > 2  # the case is not trivial

    sizes = {image_id: ids.shape for image_id, (ids, _) in truth.items()}
    assert metrics["AP_pan_th"] == pytest.approx(by_pycocotools(tmp_path, sizes, true_instances, found), abs=1e-6)

    ious = [confusion[k, k] / (confusion[k].sum() + confusion[:, k].sum() - confusion[k, k]) for k in range(5)]
    present = [iou for iou, row in zip(ious, confusion, strict=True) if row.sum()]
    assert metrics["mIoU_pan"] == pytest.approx(100 * np.mean(present), abs=1e-6)


def by_pycocotools(folder, sizes, truth, found) -> float:
    """AP in percent from files, with masks encoded one at a time."""

    def entry(image_id, mask, category_id):
        rle = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
        rle = {"size": rle["size"], "counts": rle["counts"].decode()}
        return {"image_id": image_id, "category_id": category_id, "segmentation": rle}

    annotations = [
        {**entry(*values), "id": 500 + i, "iscrowd": crowd, "area": int(values[1].sum()), "bbox": [0, 0, 1, 1]}
        for i, (*values, crowd) in enumerate(truth)
    ]
    images = [{"id": id_, "height": height, "width": width} for id_, (height, width) in sizes.items()]
    things = [{"id": id_, "name": str(id_)} for id_, thing in CATEGORIES if thing]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": things}))
    results = folder / "results.json"
    results.write_text(json.dumps([{**entry(*values), "score": score} for *values, score in found]))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(path)
        evaluation = COCOeval(reference, reference.loadRes(str(results)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0]


def test_order_of_images_does_not_matter(tmp_path):
    truth, predictions = random_case(3)
    dataset = write_dataset(tmp_path, truth)
    forward = evaluate(dataset, predictions)
    assert evaluate(dataset, dict(reversed(predictions.items()))) == pytest.approx(forward, abs=1e-9)
    assert 0 < forward["PQ"] < 100


def test_no_object_anywhere_scores_zero(tmp_path):
    truth, predictions = random_case(0)
    empty = {
        id_: (class_logits([(0, 0.0)] * 4), torch.full((4, *masks.shape[1:]), -9.0))
        for id_, (_, masks) in predictions.items()
    }
    metrics = evaluate(write_dataset(tmp_path, truth), empty)
    assert [metrics[name] for name in ("PQ", "PQ_th", "PQ_st", "AP_pan_th")] == [0, 0, 0, 0]
    assert 0 <= metrics["mIoU_pan"] <= 100


def test_void_image_counts_for_nothing(tmp_path):
    """Predictions on void are neither right nor wrong; the same without an annotation at all."""
    ids, segments = columns((4, 1), (6, 2)), [segment(1, 1), segment(2, 92)]
    dataset = write_dataset(tmp_path, {1: (ids, segments), 2: (np.zeros_like(ids), []), 3: (ids * 0, [])})
    content = json.loads(dataset.annotation_file.read_text())
    content["annotations"] = content["annotations"][:2]
    dataset.annotation_file.write_text(json.dumps(content))
    prediction = perfect_prediction(ids, segments)
    metrics = evaluate(CocoPanoptic(tmp_path, "val"), dict.fromkeys([1, 2, 3], prediction))
    assert (metrics["PQ"], metrics["mIoU_pan"]) == pytest.approx((100, 100))
    alone = evaluate(dataset, {2: prediction})
    assert all(math.isnan(value) for value in alone.values())  # no class to average over


def test_instance_file_is_the_ground_truth_of_ap_where_it_lists_all_images(tmp_path):
    ids, segments = columns((4, 1), (6, 2)), [segment(1, 1), segment(2, 92)]
    dataset = write_dataset(tmp_path, {1: (ids, segments)})
    prediction = {1: perfect_prediction(ids, segments)}
    assert evaluate(dataset, prediction)["AP_pan_th"] == pytest.approx(100)
    # In the file the instance is half as wide: IoU 1/2 counts at the threshold 0.50 alone, 1 of 10.
    polygon = [[0.0, 0.0, 2.0, 0.0, 2.0, 10.0, 0.0, 10.0]]
    annotation = {"id": 0, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": polygon}
    annotation |= {"area": 20.0, "bbox": [0, 0, 2, 10]}
    image = {"file_name": "1.png", "height": 10, "width": 10}
    things = [{"id": id_, "name": f"class {id_}"} for id_, is_thing in CATEGORIES if is_thing]
    content = {"images": [{"id": 1, **image}], "annotations": [annotation], "categories": things}
    path = tmp_path / "annotations" / "instances_val.json"
    path.write_text(json.dumps(content))
    assert evaluate(CocoPanoptic(tmp_path, "val"), prediction)["AP_pan_th"] == pytest.approx(10)
    path.write_text(json.dumps({**content, "images": [{"id": 2, **image}], "annotations": []}))
    assert evaluate(CocoPanoptic(tmp_path, "val"), prediction)["AP_pan_th"] == pytest.approx(100)
    path.write_text('{"images": [')
    with pytest.raises(BenchError, match="instances_val.json is not readable JSON"):
        PanopticEvaluator(CocoPanoptic(tmp_path, "val"))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_measured_of_an_image_survives_json_exactly(tmp_path, seed):
    truth, predictions = random_case(seed)
    dataset = write_dataset(tmp_path, truth)
    evaluator = PanopticEvaluator(dataset)
    for image_id, (classes, masks) in predictions.items():
        measured = evaluator.measure(results_from(dataset, image_id, classes, masks))
        assert not evaluator.has(image_id), "measuring counts nothing"
        evaluator.take(json.loads(json.dumps(measured)))
        assert evaluator.has(image_id)
        with pytest.raises(BenchError, match="already evaluated"):
            evaluator.take(measured)
    assert evaluator.compute() == evaluate(dataset, predictions)


def test_mistakes_are_said_in_one_line(tmp_path):
    ids, segments = columns((4, 1), (6, 2)), [segment(1, 1), segment(2, 92)]
    dataset = write_dataset(tmp_path, {1: (ids, segments)})
    evaluator = PanopticEvaluator(dataset)
    classes, masks = perfect_prediction(ids, segments)

    def add(image_id, masks):
        evaluator.take(evaluator.measure(results_from(dataset, image_id, classes, masks)))

    with pytest.raises(BenchError, match="no image was added"):
        evaluator.compute()
    with pytest.raises(BenchError, match="image 2 is not in the data set"):
        add(2, masks)
    with pytest.raises(BenchError, match="resize the masks"):
        add(1, masks[:, :5])
    add(1, masks)
    with pytest.raises(BenchError, match="already evaluated"):
        add(1, masks)
    assert evaluator.compute() == evaluator.compute()


def test_real_coco_against_itself(shared):
    """Every segment of the ground truth as one query; crowds are left out, as a model would never match them."""
    dataset = CocoPanoptic(shared / "data" / "coco", "val2017")
    evaluator = PanopticEvaluator(dataset)
    for sample in dataset:
        classes = class_logits([(label, 0.99) for label in sample.labels.tolist()], len(dataset.categories))
        found = results_from(dataset, sample.image_id, classes, mask_logits(list(sample.masks.numpy())))
        evaluator.take(evaluator.measure(found))
    metrics = evaluator.compute()
    assert [metrics[name] for name in ("PQ", "PQ_th", "PQ_st")] == pytest.approx([100, 100, 100])
    assert metrics["AP_pan_th"] == pytest.approx(100) and metrics["mIoU_pan"] > 99
