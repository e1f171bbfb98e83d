"""Run lengths and label maps against pycocotools and plain comparisons, and what foreign files may hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as rle_codec

from bench.data.run_lengths import encode_masks, encode_segments, segment_annotations, to_rle
from bench.evaluation.panoptic import VOID, label_map

IDS = np.array([0, 1, 7, 300, 70_000], dtype=np.int32)
maps = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: arrays(np.int8, shape, elements=st.integers(0, len(IDS) - 1)).map(lambda index: IDS[index])
)


def by_pycocotools(mask: np.ndarray) -> dict:
    rle = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


@given(maps)
def test_segments_are_encoded_as_pycocotools_does(ids):
    wanted = [*IDS.tolist(), 5]
    assert encode_segments(ids, wanted) == [by_pycocotools(ids == id_) for id_ in wanted]
    assert encode_segments(ids, wanted) == encode_masks(ids[None] == np.array(wanted)[:, None, None])
    assert encode_segments(ids, []) == encode_masks(np.zeros((0, 3, 3), bool)) == []


@given(maps)
def test_labels_and_annotations_of_a_map(ids):
    segments = [{"id": 7, "category_id": 90}, {"id": 70_000, "category_id": 2, "iscrowd": 1}]
    labels = label_map(ids, segments, {2: 0, 90: 1})
    assert labels.shape == ids.shape
    assert np.array_equal(labels, np.where(ids == 7, 1, np.where(ids == 70_000, 0, VOID)))
    for segment, annotation in zip(segments, segment_annotations(3, ids, segments), strict=True):
        mask = ids == segment["id"]
        assert np.array_equal(rle_codec.decode(annotation["segmentation"]), mask)
        assert annotation["area"] == mask.sum() and annotation["iscrowd"] == segment.get("iscrowd", 0)


@given(maps)
def test_every_form_of_a_segmentation(ids):
    mask = ids == 7
    rle = by_pycocotools(mask)
    assert to_rle(rle, mask.shape) == rle
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], [0] if flat[0] else [], edges, [flat.size]])).astype(int).tolist()
    assert to_rle({"size": list(mask.shape), "counts": counts}, mask.shape) == rle


def test_polygons_as_pycocotools_does():
    polygons = [[1.0, 1.0, 8.0, 1.5, 6.0, 9.0], [10.0, 2.0, 14.0, 2.0, 14.0, 8.0, 10.0, 8.0]]
    expected = rle_codec.merge(rle_codec.frPyObjects(polygons, 12, 20))
    assert to_rle(polygons, (12, 20)) == {"size": [12, 20], "counts": expected["counts"].decode()}


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
def test_any_text_is_refused_or_fills_the_image(counts):
    """Decoders write as many pixels as the text says, wherever they end."""
    try:
        rle = to_rle({"size": [4, 5], "counts": counts}, (4, 5))
    except ValueError:
        return
    assert rle_codec.decode(rle).shape == (4, 5)
    assert by_pycocotools(rle_codec.decode(rle))["size"] == [4, 5]


HUGE = rle_codec.frPyObjects({"size": [1000, 1000], "counts": [10, 999_990]}, 1000, 1000)["counts"].decode()


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 5], "counts": HUGE}, {"size": [4, 5], "counts": ""}, {"size": [4, 5], "counts": "é"},
        {"size": [5, 4], "counts": by_pycocotools(np.ones((4, 5)))["counts"]}, {"size": [4, 5], "counts": [21]},
        {"size": [4, 5], "counts": [25, -5]}, {"size": [4, 5], "counts": [2.5, 17.5]}, {"size": [4, 5]}, {}, None, "P8",
        [], [[1.0, 2.0]], [[1.0, 2.0, 3.0, 4.0, 5.0, float("nan")]], [["a"] * 6], {"size": 7, "counts": "P8"},
        {"size": [4, 5], "counts": "o" * 30}, {"size": [4, 5], "counts": None},
    ],
)  # fmt: skip
def test_segmentations_that_would_mislead_a_decoder(segmentation):
    with pytest.raises((ValueError, TypeError)):
        to_rle(segmentation, (4, 5))
