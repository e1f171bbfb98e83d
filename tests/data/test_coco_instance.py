"""The instance reader against pycocotools, on official files, made-up polygons and broken ones."""

import json
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from bench.data.coco_files import Packed, fingerprint
from bench.data.coco_instance import CocoInstance
from bench.data.registry import open_split
from bench.errors import BenchError

SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]


class Tiny:
    """Two images of 6 x 4 pixels, of which number 9 has a square, a crowd and a line, and number 2 nothing."""

    def __init__(self, root):
        self.root = root
        self.file = root / "annotations" / "instances_val.json"
        self.file.parent.mkdir(parents=True)
        (root / "val").mkdir()
        self.images = [{"id": 9, "file_name": "b.png", "width": 6, "height": 4},
                       {"id": 2, "file_name": "a.png", "width": 6, "height": 4}]  # fmt: skip
        self.categories = [{"id": 90, "name": "cat"}, {"id": 3, "name": "car"}]
        self.annotations = []
        self.add(90, SQUARE)
        self.add(3, {"size": [4, 6], "counts": [0, 8, 16]}, crowd=1)
        self.add(3, [[1, 1, 5, 1, 1, 1]])
        for image in self.images:
            Image.new("RGB", (6, 4)).save(root / "val" / image["file_name"])
        self.save()

    def add(self, category_id, segmentation, image_id=9, crowd=0):
        common = {"id": 50 + len(self.annotations), "image_id": image_id, "bbox": [0, 0, 1, 1], "area": 1}
        self.annotations.append({**common, "category_id": category_id, "segmentation": segmentation, "iscrowd": crowd})

    def save(self):
        content = {name: getattr(self, name) for name in ("images", "annotations", "categories")}
        self.file.write_text(json.dumps(content))

    def open(self):
        self.save()
        return CocoInstance(self.root, "val")


@pytest.fixture
def tiny(tmp_path):
    return Tiny(tmp_path / "tiny")


def expected_masks(coco, image_id):
    """(category id, mask) of every annotation that is no crowd and covers a pixel, in the file's order."""
    annotations = [a for a in coco.loadAnns(coco.getAnnIds([image_id])) if not a["iscrowd"]]
    pairs = [(a["category_id"], coco.annToMask(a).astype(bool)) for a in annotations]
    return [(category_id, mask) for category_id, mask in pairs if mask.any()]


def assert_equals_pycocotools(dataset):
    coco = COCO(str(dataset.annotation_file))
    assert [category.id for category in dataset.categories] == sorted(coco.getCatIds())
    assert [image["id"] for image in dataset.images] == sorted(coco.getImgIds())
    for sample, image in zip(dataset, dataset.images, strict=True):
        expected = expected_masks(coco, image["id"])
        assert [dataset.categories[label].id for label in sample.labels] == [category_id for category_id, _ in expected]
        assert sample.masks.shape == (len(expected), image["height"], image["width"])
        assert sample.image.shape[1:] == sample.masks.shape[1:] and sample.image_id == image["id"]
        assert all(np.array_equal(mask, other) for mask, (_, other) in zip(sample.masks.numpy(), expected, strict=True))
        assert (sample.image.dtype, sample.labels.dtype, sample.masks.dtype) == (torch.uint8, torch.int64, torch.bool)


def test_official_files(shared):
    dataset = open_split("coco_instance", "val", shared / "data" / "coco")
    assert (dataset.task, dataset.split, len(dataset), len(dataset.categories)) == ("instance", "val2017", 12, 80)
    content = json.loads(dataset.annotation_file.read_bytes())
    assert sum(a["iscrowd"] for a in content["annotations"]) > 0
    assert min(len(sample.labels) for sample in dataset) == 0
    assert_equals_pycocotools(dataset)


def test_compressed_run_lengths_of_the_nuclei(shared):
    assert_equals_pycocotools(CocoInstance(shared / "data" / "nuclei", "val"))


def test_by_hand(tiny):
    dataset = tiny.open()
    assert [(c.id, c.name, c.is_thing) for c in dataset.categories] == [(3, "car", True), (90, "cat", True)]
    empty, sample = dataset
    assert (empty.image_id, empty.labels.shape, empty.masks.shape) == (2, (0,), (0, 4, 6))
    assert sample.labels.tolist() == [1] and sample.masks.sum() == 6 and sample.masks[0, 1:3, 1:4].all()
    assert_equals_pycocotools(dataset)


def test_two_corners_are_no_polygon(tiny):
    """As in detectron2, which leaves them out; pycocotools takes four numbers for a box or fails."""
    tiny.add(3, [[1, 1, 5, 3]])
    tiny.add(3, [[1, 1, 5, 3], *SQUARE])
    assert tiny.open()[1].masks.sum((1, 2)).tolist() == [6, 6]


def test_overlapping_masks_stay_whole(tiny):
    tiny.add(3, {"size": [4, 6], "counts": [0, 12, 12]})
    masks = tiny.open()[1].masks
    assert masks.sum((1, 2)).tolist() == [6, 12] and (masks[0] & masks[1]).sum() == 4


coordinates = st.floats(-3, 15, allow_nan=False).map(lambda value: round(value, 2))
polygon = st.lists(coordinates, min_size=6, max_size=14).map(lambda values: values[: len(values) // 2 * 2])
shapes = st.one_of(
    st.lists(polygon, min_size=1, max_size=3),
    st.lists(st.integers(0, 1), min_size=108, max_size=108).map(
        lambda bits: {"size": [9, 12], "counts": runs(bits)},
    ),
    st.lists(st.integers(0, 1), min_size=108, max_size=108).map(
        lambda bits: {"size": [9, 12], "counts": rle.encode(
            np.asfortranarray(np.array(bits, np.uint8).reshape(9, 12)))["counts"].decode()},
    ),
)  # fmt: skip


def runs(bits):
    edges = np.flatnonzero(np.diff([0, *bits])) if any(bits) else np.array([], int)
    return np.diff([0, *edges, len(bits)]).tolist()


@given(found=st.lists(st.tuples(st.sampled_from([3, 90]), shapes, st.sampled_from([0, 0, 1])), max_size=5))
def test_masks_are_those_of_pycocotools(tmp_path_factory, found):
    tiny = Tiny(tmp_path_factory.mktemp("random") / "tiny")
    tiny.images = [{"id": 1, "file_name": "c.png", "width": 12, "height": 9}]
    Image.new("L", (12, 9)).save(tiny.root / "val" / "c.png")
    tiny.annotations = []
    for category_id, segmentation, crowd in found:
        tiny.add(category_id, segmentation, 1, crowd)
    assert_equals_pycocotools(tiny.open())


BROKEN_MASKS = {
    "too short": {"size": [4, 6], "counts": [1, 2]},
    "too long": {"size": [4, 6], "counts": [10, 2_000_000]},
    "negative": {"size": [4, 6], "counts": [-10, 34]},
    "fractions": {"size": [4, 6], "counts": [0.5, 23.5]},
    "text": {"size": [4, 6], "counts": "zzzzzzzzzzz"},
    "short text": {"size": [4, 6], "counts": "11"},
    "strange text": {"size": [4, 6], "counts": "\u20ac"},
    "another size": {"size": [6, 4], "counts": [24]},
    "no size": {"counts": [24]},
    "number": {"size": [4, 6], "counts": 24},
    "not a number": [[float("nan"), 1, 4, 1, 4, 3]],
    "endless": [[float("inf"), 1, 4, 1, 4, 3]],
    "far": [[1e300, 1, 4, 1, 4, 3]],
    "huge": [[10**400, 1, 4, 1, 4, 3]],
    "words": [["x", 1, 4, 1, 4, 3]],
    "nested": [[[1, 1], [4, 1], [4, 3]]],
    "flat": [1, 1, 4, 1, 4, 3],
}


@pytest.mark.parametrize("case", BROKEN_MASKS)
def test_broken_segmentation_is_one_line(tiny, case):
    tiny.add(3, BROKEN_MASKS[case])
    expected = (
        r"^(?!.*\n).*instances_val\.json: annotation 53 of image 9 has a 'segmentation' that is no mask \(.+download"
    )
    for _ in range(20):  # pycocotools leaves memory as it was: the answer must not depend on it
        with pytest.raises(BenchError, match=expected):
            tiny.open()


def remove(*path):
    def damage(tiny):
        target = getattr(tiny, path[0])
        target.clear() if len(path) == 1 else target[0].pop(path[1])

    return damage


BROKEN_FILES = {
    "no images": (remove("images"), "lists no images"),
    "no size": (remove("images", "height"), "'height'"),
    "no category id": (remove("annotations", "category_id"), "'category_id'"),
    "no mask": (remove("annotations", "segmentation"), "'segmentation'"),
    "unknown category": (lambda t: t.add(4, SQUARE), "category 4, which is not in 'categories'"),
    "unknown image": (lambda t: t.add(3, SQUARE, 8), "image 8, which is not in 'images'"),
    "image twice": (lambda t: t.images.append(t.images[0]), "image 9 twice"),
    "missing image": (lambda t: (t.root / "val" / "b.png").unlink(), "b.png is missing (1 of 2"),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_file_is_refused_at_once(tiny, case):
    damage, words = BROKEN_FILES[case]
    damage(tiny)
    with pytest.raises(BenchError) as error:
        tiny.open()
    assert words in str(error.value) and str(tiny.root) in str(error.value) and "\n" not in str(error.value)


def test_image_of_another_size_than_the_file_says(tiny):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tiny.root / "val" / "b.png", exif=exif)
    with pytest.raises(BenchError, match=r"b\.png is 4x6 but .*instances_val\.json says 6x4"):
        tiny.open()[1]
    Image.new("RGB", (4, 6)).save(tiny.root / "val" / "b.png", exif=exif)  # upright it is as the file says
    assert tiny.open()[1].image.shape == (3, 4, 6)


def test_fingerprint_is_of_the_instance_file_and_the_images(tiny):
    first = fingerprint(tiny.root, "val", "instances")
    (tiny.root / "val" / "a.png").write_bytes(b"x")
    second = fingerprint(tiny.root, "val", "instances")
    tiny.add(3, SQUARE)
    tiny.save()
    assert len({first, second, fingerprint(tiny.root, "val", "instances")}) == 3


def test_many_annotations_open_in_seconds(tiny):
    """Nothing is decoded: 40,000 polygons of 40 corners, a twentieth of COCO's training set."""
    angles = np.linspace(0, 6, 40)
    circle = np.round(np.stack([3 + 2 * np.cos(angles), 2 + np.sin(angles)], 1), 2).ravel().tolist()
    for _ in range(40_000):
        tiny.add(3, [circle])
    tiny.save()
    started = time.process_time()
    dataset = CocoInstance(tiny.root, "val")
    assert time.process_time() - started < 10
    assert len(dataset.annotations.objects(1)) == 40_003


def test_packed_values_come_back():
    values = [[], [(1, [[0.1, 2.0]])], [(2, {"size": [4, 6], "counts": "abc"})], ("name", [(2**40, 3, True)]), None]
    packed = Packed(values)
    assert [packed[index] for index in range(len(packed))] == values
