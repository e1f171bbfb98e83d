"""Panoptic quality, added up image by image, against panopticapi on whole sets of files, and hotcoco on all at once."""

import contextlib
import io
import json

import numpy as np
import pytest
from hotcoco.panoptic import PanopticEval
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from panopticapi.evaluation import pq_compute_single_core

from bench.data.coco import read_segment_ids
from bench.data.registry import open_split
from bench.data.run_lengths import segment_annotations
from bench.evaluation.quality import PanopticQuality
from tests.evaluation.panoptic_folder import save_ids

CATEGORIES = [{"id": 1, "isthing": 1}, {"id": 8, "isthing": 1}, {"id": 92, "isthing": 0}, {"id": 200, "isthing": 0}]
CATEGORIES = [{**category, "name": str(category["id"])} for category in CATEGORIES]
SIZE = (6, 8)


def segments_of(ids: np.ndarray, classes: list[int], crowds: list[int]) -> list[dict]:
    """Infos of the segments of a map; segment k is of classes[k] and, for a thing in the truth, may be a crowd."""
    return [
        {"id": int(id_), "category_id": classes[id_ % 6], "iscrowd": crowds[id_ % 6] * (classes[id_ % 6] < 90)}
        for id_ in np.unique(ids)
        if id_
    ]


maps = arrays(np.int32, SIZE, elements=st.integers(0, 5))
blocks = arrays(np.int32, (2, 2), elements=st.integers(0, 5)).map(lambda ids: ids.repeat(3, 0).repeat(4, 1))
classes = st.lists(st.sampled_from([1, 8, 92, 200]), min_size=6, max_size=6)
crowds = st.lists(st.sampled_from([0, 0, 1]), min_size=6, max_size=6)
noise = arrays(bool, SIZE, elements=st.sampled_from([False, False, False, True]))
scenes = st.tuples(blocks, maps, noise, classes, classes, crowds, st.booleans())


def by_image(images: dict[int, tuple], order=None) -> dict[str, float]:
    quality = PanopticQuality(CATEGORIES)
    for image_id in order or images:
        true, predicted = (segment_annotations(image_id, ids, infos) for ids, infos in images[image_id])
        image = {"id": image_id, "height": images[image_id][0][0].shape[0], "width": images[image_id][0][0].shape[1]}
        quality.take(image_id, json.loads(json.dumps(quality.measure(true, predicted, image))))
    return quality.compute()


def by_panopticapi(folder, images: dict[int, tuple], categories=CATEGORIES) -> dict[str, float]:
    pairs = []
    for side in ("true", "predicted"):
        (folder / side).mkdir()
    for image_id, sides in images.items():
        for side, (ids, _) in zip(("true", "predicted"), sides, strict=True):
            save_ids(folder / side / f"{image_id}.png", ids)
        true, predicted = ([{**info, "area": int((ids == info["id"]).sum())} for info in infos] for ids, infos in sides)
        common = {"image_id": image_id, "file_name": f"{image_id}.png"}
        pairs.append(({**common, "segments_info": true}, {**common, "segments_info": predicted}))
    known = {category["id"]: category for category in categories}
    with contextlib.redirect_stdout(io.StringIO()):
        counts = pq_compute_single_core(0, pairs, str(folder / "true"), str(folder / "predicted"), known)
    values = {}
    for name, isthing in (("PQ", None), ("PQ_th", True), ("PQ_st", False)):
        try:
            values[name] = 100 * counts.pq_average(known, isthing)[0]["pq"]
        except ZeroDivisionError:
            values[name] = float("nan")
    return values


@given(st.lists(scenes, min_size=1, max_size=3))
def test_any_label_maps(tmp_path_factory, drawn):
    """Void, crowds, images without segments, empty predictions, segments in pieces, wrong classes."""
    images = {}
    for image_id, (blocky, ragged, noisy, true, other, crowd, same) in enumerate(drawn, start=1):
        predicted = np.where(noisy, ragged, blocky)
        true_infos = segments_of(blocky, true, crowd)
        images[image_id] = ((blocky, true_infos), (predicted, segments_of(predicted, true if same else other, [0] * 6)))
    found = by_image(images)
    folder = tmp_path_factory.mktemp("files")
    assert found == pytest.approx(by_panopticapi(folder, images), abs=1e-6, nan_ok=True)
    assert by_image(images, sorted(images, reverse=True)) == pytest.approx(found, abs=0, nan_ok=True)


def test_real_coco(tmp_path, shared):
    """Official labels against shifted ones, by this, by panopticapi, and by hotcoco on the files at once."""
    dataset = open_split("coco_panoptic", "val", shared / "data" / "coco")
    annotations = json.loads(dataset.annotation_file.read_bytes())["annotations"]
    categories = [{"id": c.id, "name": c.name, "isthing": int(c.is_thing)} for c in dataset.categories]
    images, quality = {}, PanopticQuality(categories)
    for shift, annotation in enumerate(annotations, start=2):
        ids = read_segment_ids(dataset.panoptic_dir / annotation["file_name"])
        moved, infos = np.roll(ids, 3 * shift, (0, 1)), annotation["segments_info"]
        lost = infos[0]["id"]
        moved[moved == lost] = 0
        found = [{**info, "iscrowd": 0} for info in infos if info["id"] != lost]
        images[annotation["image_id"]] = ((ids, infos), (moved, found))
        image = {"id": annotation["image_id"], "height": ids.shape[0], "width": ids.shape[1]}
        sides = [segment_annotations(image["id"], *side) for side in images[image["id"]]]
        quality.take(image["id"], quality.measure(*sides, image))
    values = quality.compute()
    assert values == pytest.approx(by_panopticapi(tmp_path, images, categories), abs=1e-6)
    assert all(5 < value < 95 for value in values.values())

    listed = [{"image_id": i, "file_name": f"{i}.png", "segments_info": side[1][1]} for i, side in images.items()]
    (tmp_path / "predicted.json").write_text(json.dumps({"annotations": listed, "categories": categories}))
    whole = PanopticEval(
        str(dataset.annotation_file), str(tmp_path / "predicted.json"),
        gt_folder=str(dataset.panoptic_dir), pred_folder=str(tmp_path / "predicted"),
    )  # fmt: skip
    whole.evaluate()
    results = whole.results()
    expected = {
        name: 100 * results[group]["pq"] for name, group in zip(values, ("All", "Things", "Stuff"), strict=True)
    }
    assert values == pytest.approx(expected, abs=1e-6)


def test_nothing_but_void_has_no_quality():
    quality = PanopticQuality(CATEGORIES)
    ids = np.ones(SIZE, np.int32)
    predicted = segment_annotations(1, ids, [{"id": 1, "category_id": 1}])
    quality.take(1, quality.measure([], predicted, {"id": 1, "height": SIZE[0], "width": SIZE[1]}))
    assert all(value != value for value in quality.compute().values())
