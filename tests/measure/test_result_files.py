"""Results in official formats, by hand, and read back by panopticapi and pycocotools."""

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_codec
from scipy import ndimage

from bench.data.classes import ClassInfo, classes_of
from bench.data.coco import id_colours
from bench.evaluation import overlay
from bench.evaluation.image_results import ImageResults, image_results
from bench.evaluation.overlay import draw_overlay, label_segments
from bench.evaluation.postprocess import resize_masks
from bench.measure.result_files import instance_map, result_files
from models.outputs import MaskPrediction
from tests.evaluation.panoptic_folder import class_logits, mask_logits

# Ids with holes, a thing after a stuff class.
CLASSES = (
    ClassInfo(3, "car", True, (200, 0, 0)),
    ClassInfo(90, "wall-other-merged", False, (0, 0, 100)),
    ClassInfo(200, "cat", True, (0, 200, 0)),
)


def masks_of(*texts: str) -> list[np.ndarray]:
    """Masks from drawings, rows separated by blanks."""
    return [np.array([[char == "x" for char in row] for row in text.split()]) for text in texts]


def files_of(task, class_logits, mask_logits, classes=CLASSES, sizes=None):
    prediction = MaskPrediction(class_logits[None], mask_logits[None])
    sizes = sizes or (tuple(mask_logits.shape[1:]),) * 3
    return result_files(image_results(7, prediction, task, sizes, classes), classes, "a")


def predict(task, queries, masks, classes=CLASSES, strength=20.0):
    return files_of(task, class_logits(queries, len(classes)), mask_logits(masks, strength), classes)


CAR, WALL, CAT = masks_of("xx... xx... .....", "..... ..... xxxxx", "...xx ...xx .....")
QUERIES = [(2, 0.9), (0, 0.95), (1, 0.85)]


def test_panoptic_data_set_by_hand():
    results = predict("panoptic", QUERIES, [CAT, CAR, WALL])
    assert set(results.pngs) == {"a_semantic.png", "a_panoptic.png"}
    assert results.segment_ids.tolist() == [[2, 2, 0, 1, 1], [2, 2, 0, 1, 1], [3] * 5]
    assert results.pngs["a_panoptic.png"].tolist() == [[[i, 0, 0] for i in row] for row in results.segment_ids.tolist()]
    infos = results.entry["panoptic"]["segments_info"]
    assert [info.pop("score", None) for info in infos] == [pytest.approx(0.9), pytest.approx(0.95), pytest.approx(0.85)]
    assert results.entry["panoptic"] == {
        "file_name": "a_panoptic.png",
        "segments_info": [
            {"id": 1, "category_id": 200, "area": 4, "bbox": [3, 0, 2, 2], "isthing": 1, "iscrowd": 0},
            {"id": 2, "category_id": 3, "area": 4, "bbox": [0, 0, 2, 2], "isthing": 1, "iscrowd": 0},
            {"id": 3, "category_id": 90, "area": 5, "bbox": [0, 2, 5, 1], "isthing": 0, "iscrowd": 0},
        ],
    }
    semantic = results.pngs["a_semantic.png"]
    assert semantic.dtype == np.uint8 and results.entry["semantic"]["file_name"] == "a_semantic.png"
    assert semantic[:2, [0, 1, 3, 4]].tolist() == [[3, 3, 200, 200]] * 2 and semantic[2].tolist() == [90] * 5


def test_segment_score_is_that_of_its_own_query():
    """Two cars; a third query of the class covers both but is too unsure to take part."""
    masks = masks_of("xx... xx...", "...xx ...xx", "xxxxx xxxxx")
    queries = [(0, 0.81), (0, 0.97), (0, 0.79)]
    for order in ([0, 1, 2], [2, 1, 0]):
        logits = class_logits([queries[i] for i in order], 3), mask_logits([masks[i] for i in order])
        logits[1][order.index(0)].clamp_(max=0.2)  # its own mask is faint: probability 0.55
        found = files_of("panoptic", *logits)
        ids, infos = found.segment_ids, found.entry["panoptic"]["segments_info"]
        scores = {ids_: info["score"] for info in infos for ids_ in np.argwhere(ids == info["id"])[:1, 1].tolist()}
        assert scores == {0: pytest.approx(0.81), 3: pytest.approx(0.97)}


def test_instances_by_hand():
    results = predict("instance", [(2, 0.6), (0, 0.95)], [CAT, CAR])
    found = [entry for entry in results.entry["instances"] if entry["score"] > 0.1]
    assert [(e["image_id"], e["category_id"], e["bbox"]) for e in found] == [
        (7, 3, [0.0, 0.0, 2.0, 2.0]),
        (7, 200, [3.0, 0.0, 2.0, 2.0]),
    ]
    assert [e["score"] for e in found] == [pytest.approx(0.95, abs=1e-5), pytest.approx(0.6, abs=1e-5)]
    assert np.array_equal(rle_codec.decode(found[0]["segmentation"]), CAR)
    assert set(results.pngs) == {"a_instances.png"} and set(results.entry) == {"instances"}
    assert results.pngs["a_instances.png"].tolist() == [[1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [0] * 5]
    assert [segment["id"] for segment in results.segments] == [1, 2]


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_masks_at_the_model_s_size_give_the_results_of_resized_ones(task):
    masks = torch.nn.functional.interpolate(mask_logits([CAT, CAR, WALL])[None], (6, 10))[0]
    classes, sizes = class_logits(QUERIES, 3), ((24, 40), (22, 33), (80, 90))
    results = files_of(task, classes, masks, sizes=sizes)
    expected = files_of(task, classes, resize_masks(masks, *sizes))
    assert results.entry == expected.entry and results.segments == expected.segments
    assert results.segment_ids.shape == (80, 90) and len(results.segments) >= 2
    assert results.pngs.keys() == expected.pngs.keys()
    assert all(np.array_equal(results.pngs[name], expected.pngs[name]) for name in results.pngs)


def test_instance_map_shows_the_better_score_on_top_and_no_weak_one():
    masks = masks_of("xxx..", ".xxx.", "..xxx")
    found = predict("instance", [(0, 0.6), (0, 0.9), (0, 0.4)], masks).entry["instances"]
    assert instance_map(found, (1, 5)).tolist() == [[2, 1, 1, 1, 0]]


def test_every_instance_of_many_shows():
    classes = classes_of("coco_instance")
    masks = [np.arange(200)[None] == 2 * column for column in range(100)]
    results = predict("instance", [(column % 80, 0.99) for column in range(100)], masks, classes)
    assert sorted(results.segment_ids[0, ::2].tolist()) == list(range(1, 101))


def labels_file(labels, dataset):
    return result_files(ImageResults(7, (1, len(labels)), labels=np.array([labels])), classes_of(dataset), "a")


def test_semantic_data_set_has_official_ids():
    results = labels_file([0, 0, 18, 13, 13], "cityscapes")
    assert results.pngs["a_semantic.png"].tolist() == [[7, 7, 33, 26, 26]]  # road, bicycle, car: ids, not train ids
    assert results.entry == {"semantic": {"file_name": "a_semantic.png", "category_ids": [7, 26, 33]}}
    assert results.segment_ids.tolist() == [[7, 7, 33, 26, 26]] and len(results.segments) == 3
    last = labels_file([149], "ade20k")
    assert last.pngs["a_semantic.png"].tolist() == [[150]]


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_nothing_confident(task):
    logits = torch.zeros(3, 4), torch.full((3, 2, 5), -1.0)
    results = files_of(task, *logits)
    assert results.entry["instances"] == [] and results.segments == [] and not results.segment_ids.any()
    assert results.entry.get("panoptic", {"segments_info": []})["segments_info"] == []


def test_segment_ids_as_colours():
    assert id_colours(np.array([[0, 1, 300, 70_000]])).tolist() == [[[0, 0, 0], [1, 0, 0], [44, 1, 0], [112, 17, 1]]]


# The picture


def test_overlay_blends_and_outlines():
    image = np.full((600, 800, 3), 100, np.uint8)
    ids = np.zeros((600, 800), np.int32)
    ids[:, :400], ids[:, 700:] = 2, 9
    labels = label_segments([{"id": 2, "category_id": 3}], CLASSES)
    picture = np.asarray(draw_overlay(image, ids, labels))
    assert picture.shape == image.shape
    assert picture[10, 10].tolist() == [150, 50, 50]  # halfway to (200, 0, 0)
    assert picture[10, 500].tolist() == picture[10, 750].tolist() == [100] * 3, "no segment, no label: the image"
    assert picture[10, 399].min() > 180 and picture[10, 401].tolist() == [100] * 3, "a thin light line between"


def test_names_lie_on_their_segments_and_not_on_each_other(monkeypatch):
    ids = np.ones((480, 640), np.int32)
    ids[100:124, 100:172], ids[130:148, 100:172] = 2, 2
    ids[100:124, 124:148] = 3  # its name is wider than it, and covers the middle of the deepest parts of 2
    ids[300:304, 300:304] = 4  # too small
    segments = [{"id": 1, "category_id": 90}] + [{"id": i, "category_id": 3, "score": 0.5} for i in (2, 3, 4)]
    labels = label_segments(segments, CLASSES)
    image = np.full((480, 640, 3), 255, np.uint8)
    named = np.asarray(draw_overlay(image, ids, labels))
    monkeypatch.setattr(overlay, "_write_names", lambda *_: None)
    plates = (named != np.asarray(draw_overlay(image, ids, labels))).any(-1)
    regions, count = ndimage.label(plates)
    assert count == 3 and not plates[300:304, 300:304].any()
    for id_ in (1, 2, 3):
        assert any(int(ids[round(y), round(x)]) == id_ for y, x in ndimage.center_of_mass(plates, regions, (1, 2, 3)))


def test_label_texts_and_shades():
    segments = [{"id": i, "category_id": c} for i, c in enumerate((3, 3, 90))] + [
        {"id": 5, "category_id": 200, "score": 0.996}
    ]
    labels = label_segments(segments, CLASSES)
    assert [labels[i].text for i in (0, 1, 2, 5)] == ["car", "car", "wall", "cat 99%"]
    assert labels[0].colour == (200, 0, 0) != labels[1].colour
    many = label_segments([{"id": i, "category_id": 3} for i in range(300)], CLASSES)
    assert all(0 <= value <= 255 for label in many.values() for value in label.colour)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (500, 1), (1, 2000), (33, 70)])
def test_overlay_of_any_size(size):
    labels = label_segments([{"id": 1, "category_id": 90}], CLASSES)
    picture = draw_overlay(np.zeros((*size, 3), np.uint8), np.ones(size, np.int32), labels)
    factor = picture.width / size[1]
    assert factor == picture.height / size[0] == int(factor) and max(picture.size) >= 480
    assert factor == 1 or max(size) < 480
