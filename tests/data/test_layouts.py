"""Generated scenes in the official layouts: read by the official tools, with what is awkward in the real files."""

import contextlib
import copy
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as cityscapes_evaluation
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.csHelpers import getCsFileInfo
from cityscapesscripts.helpers.labels import id2label
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from cityscapesscripts.preparation.json2labelImg import createLabelImage
from hotcoco.panoptic import pq_compute
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from panopticapi.evaluation import pq_compute_single_core
from panopticapi.utils import rgb2id
from PIL import Image, ImageDraw, ImageOps
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from bench.data.classes import classes_of
from bench.data.registry import open_split
from bench.data.synthesis import layouts
from bench.data.synthesis.layout_files import _CLASSES, _border_pixels, outlines
from bench.data.synthesis.layouts import CASES, draw_picture, images_per_split, synthesize
from bench.errors import BenchError

IMAGES = len(CASES)
SPLITS = {
    "coco_panoptic": ("train2017", "val2017"),
    "coco_instance": ("train2017", "val2017"),
    "ade20k": ("training", "validation"),
    "cityscapes": ("train", "val"),
}
# sha256 of the label maps of the second split. If they change, raise layouts.VERSION and pin the new ones.
PINNED = {
    "coco_panoptic": "57ab3849ca4c482141db1c08c5b97105691729fa5e0db9aee68d30480ad509f6",
    "ade20k": "217587fc866c7331fd5982b0b3d12f0f4c68ee5658beb36ddef81aaedbe85382",
    "cityscapes": "041961f2037f47d9cedd42850fe8aeb6fa206f0197b948ea834408c2f5f73e95",
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    for name in ("coco_panoptic", "ade20k", "cityscapes"):
        synthesize(name, folder / name)
    return {name: folder / name.replace("instance", "panoptic") for name in SPLITS}


@pytest.fixture(scope="module", params=SPLITS["coco_panoptic"])
def instances(roots, request) -> tuple[Path, COCO]:
    """Image folder and pycocotools' view of a split."""
    with contextlib.redirect_stdout(io.StringIO()):
        root = roots["coco_instance"]
        return root / request.param, COCO(root / "annotations" / f"instances_{request.param}.json")


def label_maps(name: str, root: Path) -> list[Path]:
    split = SPLITS[name][1]
    folder = {
        "coco": f"annotations/panoptic_{split}",
        "ade20k": f"annotations/{split}",
        "cityscapes": f"gtFine/{split}",
    }
    return sorted((root / folder[name.split("_")[0]]).rglob("*.png"))


def panoptic_file(roots, split: str) -> tuple[Path, dict]:
    path = roots["coco_panoptic"] / "annotations" / f"panoptic_{split}.json"
    return path, json.loads(path.read_text())


# COCO


def test_instances_as_pycocotools_reads_them(instances):
    _, coco = instances
    assert [info["id"] for info in coco.dataset["categories"]] == [
        number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
    ]
    assert len(coco.dataset["images"]) == IMAGES and len(coco.anns) == len(coco.dataset["annotations"])
    kinds = set()
    for annotation in coco.dataset["annotations"]:
        mask = coco.annToMask(annotation)
        assert annotation["area"] == mask.sum() > 0
        assert annotation["bbox"] == list(rle.toBbox(coco.annToRLE(annotation)))
        kinds.add((type(annotation["segmentation"]), annotation["iscrowd"]))
    assert kinds == {(list, 0), (dict, 1)}
    ids = [image["id"] for image in coco.dataset["images"]]
    assert ids != sorted(ids) and np.diff(sorted(ids)).min() > 1
    without = [number for number in ids if not coco.getAnnIds(imgIds=number)]
    assert len(without) == CASES.count("empty") + CASES.count("void")


def test_pycocotools_scores_the_instances_against_themselves(instances, capsys):
    _, coco = instances
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 1.0, "segmentation": coco.annToRLE(a)}
        for a in coco.dataset["annotations"]
        if not a["iscrowd"]
    ]
    evaluation = COCOeval(coco, coco.loadRes(found), "segm")
    evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    assert evaluation.stats[:6].tolist() == pytest.approx([1.0] * 6)  # AP, AP50, AP75; objects of every size occur


def test_instances_are_the_panoptic_things_with_their_holes_filled(roots, instances):
    folder, coco = instances
    _, content = panoptic_file(roots, folder.name)
    overlaps = 0
    for entry in content["annotations"]:
        ids = rgb2id(
            np.asarray(Image.open(folder.parent / "annotations" / f"panoptic_{folder.name}" / entry["file_name"]))
        )
        things = [info for info in entry["segments_info"] if info["category_id"] <= 90]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=entry["image_id"]))
        assert [(a["category_id"], a["iscrowd"]) for a in annotations] == [
            (i["category_id"], i["iscrowd"]) for i in things
        ]
        for annotation, info in zip(annotations, things, strict=True):
            mask, visible = coco.annToMask(annotation).astype(bool), ids == info["id"]
            filled = visible if info["iscrowd"] else ndimage.binary_fill_holes(visible, np.ones((3, 3)))
            assert np.array_equal(mask, filled)
            overlaps += int(mask.sum() > visible.sum())
    assert overlaps > 0


@pytest.mark.parametrize("split", SPLITS["coco_panoptic"])
def test_panoptic_truth_scores_100_with_two_packages(roots, split, capsys):
    path, content = panoptic_file(roots, split)
    categories = {category["id"]: category for category in content["categories"]}
    pairs = [(entry, entry) for entry in content["annotations"]]
    result = pq_compute_single_core(0, pairs, str(path.with_suffix("")), str(path.with_suffix("")), categories)
    assert result.pq_average(categories, isthing=None)[0]["pq"] == 1.0
    assert pq_compute(str(path), str(path))["All"]["pq"] == 1.0
    assert (len(categories), sum(category["isthing"] for category in categories.values())) == (133, 80)


@pytest.mark.parametrize("split", SPLITS["coco_panoptic"])
def test_panoptic_segments_are_those_of_the_png(roots, split):
    path, content = panoptic_file(roots, split)
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    void, crowds, empty, highest = 0, 0, 0, 0
    for entry in content["annotations"]:
        png = np.asarray(Image.open(path.with_suffix("") / entry["file_name"]))
        assert png.shape == (*sizes[entry["image_id"]], 3)
        ids = rgb2id(png)
        areas = {int(i): int(n) for i, n in zip(*np.unique(ids, return_counts=True), strict=True)}
        void += areas.pop(0, 0) > 0
        assert areas == {info["id"]: info["area"] for info in entry["segments_info"]}
        for info in entry["segments_info"]:
            assert info["bbox"] == list(rle.toBbox(rle.encode(np.asfortranarray(ids == info["id"], dtype=np.uint8))))
        stuff = [info["category_id"] for info in entry["segments_info"] if info["category_id"] > 90]
        assert len(stuff) == len(set(stuff))  # one segment a stuff class
        crowds += sum(info["iscrowd"] for info in entry["segments_info"])
        empty += not entry["segments_info"]
        highest = max(highest, ids.max())
    assert (void, crowds, empty) == (2, 1, 1) and highest > 65536
    assert (
        len(set(sizes.values())) >= 6
        and any(h > w for h, w in sizes.values())
        and any(h < w for h, w in sizes.values())
    )


def test_splits_share_no_image(roots):
    train, val = (panoptic_file(roots, split)[1]["images"] for split in SPLITS["coco_panoptic"])
    assert not {image["id"] for image in train} & {image["id"] for image in val}


# photographs


@pytest.mark.parametrize("name", ["coco_panoptic", "ade20k"])
def test_photographs_are_the_pictures_in_every_mode(roots, name):
    folder = roots[name] / ("val2017" if name == "coco_panoptic" else "images/validation")
    modes, turned = [], 0
    for index, path in enumerate(sorted(folder.iterdir())):
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            turned += image.getexif().get(0x0112, 1) != 1 and image.size == upright.size[::-1] != upright.size
            modes.append(image.mode)
            picture = draw_picture(1, index, upright.size)
            expected = Image.fromarray(picture.pixels).convert(image.mode)
            error = np.abs(np.asarray(upright, np.int16) - np.asarray(expected, np.int16))
            assert error.mean() < 12, picture.case  # of JPEG, on noise
    assert turned == 1 and modes == [{"greyscale": "L", "cmyk": "CMYK"}.get(case, "RGB") for case in CASES]


# ADE20K


def test_ade20k_annotations(roots):
    infos, modes, values = classes_of("ade20k"), [], set()
    for path in label_maps("ade20k", roots["ade20k"]):
        photo = roots["ade20k"] / "images" / "validation" / f"{path.stem}.jpg"
        with Image.open(path) as image, Image.open(photo) as photograph:
            assert image.size == ImageOps.exif_transpose(photograph).size
            labels = np.asarray(image)
            modes.append(image.mode)
            values |= set(np.unique(labels).tolist())
            picture = draw_picture(1, len(modes) - 1, image.size)
            assert np.array_equal(labels == 0, ~np.any([np.zeros_like(labels), *(s.mask for s in picture.segments)], 0))
    assert [path.name for path in label_maps("ade20k", roots["ade20k"])][:2] == [
        "ADE_val_00000001.png",
        "ADE_val_00000002.png",
    ]
    assert modes == ["P" if case == "cmyk" else "L" for case in CASES]
    assert {infos[value - 1].name for value in values - {0}} == {
        "ball", "box", "tent", "flag", "clock", "pole", "sky", "grass", "water", "road"
    }  # fmt: skip
    assert {0, 150} <= values and max(values) == 150


# Cityscapes


@pytest.mark.parametrize("split", SPLITS["cityscapes"])
def test_cityscapes_tools_make_the_same_images_from_the_polygons(roots, split):
    files = sorted((roots["cityscapes"] / "gtFine" / split).rglob("*_polygons.json"))
    assert len(files) == IMAGES
    for path in files:
        annotation = Annotation()
        annotation.fromJsonFile(path)
        base = str(path).removesuffix("polygons.json")
        with Image.open(f"{base}labelIds.png") as labels, Image.open(f"{base}instanceIds.png") as instances:
            assert (labels.mode, instances.mode, labels.size) == ("L", "I;16", (512, 256))
            assert np.array_equal(createLabelImage(annotation, "ids"), labels)
            assert np.array_equal(createInstanceImage(annotation, "ids"), instances)
        info = getCsFileInfo(f"{base}labelIds.png")
        photo = f"{info.city}_{info.sequenceNb}_{info.frameNb}_leftImg8bit.png"
        with Image.open(roots["cityscapes"] / "leftImg8bit" / split / info.city / photo) as image:
            assert (image.mode, image.size) == ("RGB", (512, 256))


def test_cityscapes_labels_are_the_pictures_and_instances_refine_them(roots):
    kinds = {
        "disc": "car", "box": "bus", "triangle": "person", "star": "bicycle", "ring": "traffic sign",
        "pole": "pole", "sky": "sky", "grass": "vegetation", "water": "parking", "road": "road",
    }  # fmt: skip
    groups, void = 0, []
    for index, case in enumerate(CASES):
        city = ("frankfurt", "lindau")[index % 2]
        base = roots["cityscapes"] / "gtFine" / "val" / city / f"{city}_{index // 2:06d}_000019_gtFine"
        labels, instances = (np.asarray(Image.open(f"{base}_{kind}Ids.png")) for kind in ("label", "instance"))
        names = np.full(labels.shape, "static", object)
        for segment in draw_picture(1, index, (512, 256)).segments:
            names[segment.mask] = kinds[segment.kind]
        assert np.array_equal(np.vectorize(lambda number: id2label[number].name)(labels), names)
        assert np.array_equal(np.where(instances < 1000, instances, instances // 1000), labels)
        has_instances = np.vectorize(lambda number: id2label[number].hasInstances)(labels)
        groups += int((has_instances & (instances < 1000)).any())
        assert not (~has_instances & (instances >= 1000)).any()
        void.append((labels == 4).mean())
        assert case != "crowd" or (has_instances & (instances < 1000)).any()
    assert groups >= 2
    assert [case for case, share in zip(CASES, void, strict=True) if share] == ["empty", "void"]


def test_cityscapes_evaluation_gives_the_truth_100(roots, monkeypatch):
    truth = [str(path) for path in label_maps("cityscapes", roots["cityscapes"]) if "labelIds" in path.name]
    args = copy.copy(cityscapes_evaluation.args)
    args.quiet, args.JSONOutput, args.evalPixelAccuracy = True, False, True
    result = cityscapes_evaluation.evaluateImgLists(truth, truth, args)
    scores = {name: score for name, score in result["classScores"].items() if not np.isnan(score)}
    assert scores.keys() == {"car", "bus", "person", "bicycle", "traffic sign", "pole", "sky", "vegetation", "road"}
    assert set(scores.values()) == {1.0} and result["averageScoreClasses"] == 1.0


# the project's readers


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_readers_give_the_pictures(roots, name, split):
    dataset = open_split(name, split, roots[name])
    names = [category.name for category in dataset.categories]
    assert len(dataset) == IMAGES and names == [info.name for info in classes_of(name)]
    column = {"ade20k": 1, "cityscapes": 2}.get(name, 0)
    order = range(IMAGES)  # ascending id, or names in order: Cityscapes' are city by city
    for index, position in enumerate([*order[::2], *order[1::2]] if name == "cityscapes" else order):
        sample = dataset[index]
        assert sample.image_id == dataset.images[index]["id"]
        height, width = sample.masks.shape[1:]
        assert sample.image.shape == (3, height, width) and len(sample.labels) == len(sample.masks)
        picture = draw_picture(split == "val", position, (width, height))
        grey = picture.case == "greyscale" and name != "cityscapes"
        shown = Image.fromarray(picture.pixels).convert("L" if grey else "RGB").convert("RGB")
        error = np.abs(sample.image.permute(1, 2, 0).numpy().astype(int) - np.asarray(shown, int))
        assert error.mean() < 12, picture.case
        kinds = [(_CLASSES[segment.kind][column], segment) for segment in picture.segments]
        if dataset.task == "semantic":
            expected = np.full((height, width), 255)
            for kind, segment in kinds:
                expected[segment.mask] = names.index(kind) if kind in names else 255
            assert np.array_equal(dataset.label_map(index), expected)
            assert sample.labels.tolist() == sorted(set(np.unique(expected).tolist()) - {255})
            assert all(map(np.array_equal, sample.masks, (expected == label for label in sample.labels.tolist())))
        else:
            kinds = [(kind, segment.mask) for kind, segment in kinds if kind in names and not segment.crowd]
            assert [names[label] for label in sample.labels] == [kind for kind, _ in kinds]
            for mask, (_, visible) in zip(sample.masks.numpy(), kinds, strict=True):
                filled = ndimage.binary_fill_holes(visible, np.ones((3, 3)))
                assert np.array_equal(mask, filled if dataset.task == "instance" else visible)


# outlines


@given(arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_outlines_are_exact_for_pycocotools_and_pillow(mask):
    parts = list(outlines(mask))
    assert len(parts) == ndimage.label(mask)[1]
    height, width = mask.shape
    for part, corners in parts:
        encoded = rle.merge(rle.frPyObjects([corners.astype(float).ravel().tolist()], height, width))
        assert np.array_equal(rle.decode(encoded), part)
        painted = Image.new("L", (width, height))
        ImageDraw.Draw(painted).polygon([tuple(point) for point in _border_pixels(corners)], fill=1)
        assert np.array_equal(painted, part)
    assert not mask.any() or np.array_equal(
        np.any([part for part, _ in parts], 0) | mask, np.any([p for p, _ in parts], 0)
    )


def test_outline_of_a_ring_by_hand():
    ring = np.zeros((4, 5), bool)
    ring[:3, 1:4] = True
    ring[1, 2] = False
    ((part, corners),) = outlines(ring)
    assert part.sum() == 9 and corners.tolist() == [[1, 0], [4, 0], [4, 3], [1, 3]]
    assert _border_pixels(corners) == [[1, 0], [3, 0], [3, 2], [1, 2]]


# the folder


@pytest.mark.parametrize("name", ["coco_panoptic", "ade20k", "cityscapes"])
def test_label_maps_are_pinned(roots, name):
    digest = hashlib.sha256()
    for path in label_maps(name, roots[name]):
        labels = np.asarray(Image.open(path))
        digest.update(f"{path.name} {labels.dtype} {labels.shape}".encode() + labels.tobytes())
    assert (layouts.VERSION, digest.hexdigest()) == (1, PINNED[name])


@pytest.mark.parametrize("name", SPLITS)
def test_same_arguments_same_files_and_progress(tmp_path, name):
    calls = []
    synthesize(name, tmp_path / "a" / "new", 3, lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)] and images_per_split(tmp_path / "a" / "new") == 3
    (tmp_path / "b").mkdir()
    synthesize(name, tmp_path / "b", 3)
    first, second = (
        {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "a" / "new", tmp_path / "b")
    )
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    synthesize(name, tmp_path / "b", 3, lambda done, total: pytest.fail("written twice"))


def test_both_coco_data_sets_are_one_folder(tmp_path):
    synthesize("coco_panoptic", tmp_path / "coco", 1)
    synthesize("coco_instance", tmp_path / "coco", 1, lambda done, total: pytest.fail("written twice"))


def test_other_files_are_never_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    synthesize("ade20k", tmp_path / "ade20k", 1)
    for arguments, words in {
        ("ade20k", tmp_path, 1): "not an empty folder: choose another",
        ("ade20k", tmp_path / "mine.txt", 1): "not an empty folder",
        ("ade20k", tmp_path / "mine.txt" / "below", 1): "cannot write|not an empty folder",
        ("ade20k", tmp_path / "ade20k", 2): "another generated data set: delete it",
        ("coco_panoptic", tmp_path / "ade20k", 1): "another generated data set: delete it",
        ("ade20k", tmp_path / "new", 0): "ask for 1 or more",
        ("ade", tmp_path / "new", 1): "did you mean 'ade20k'",
        ("synthetic_panoptic", tmp_path / "new", 1): "unknown official layout",
    }.items():
        with pytest.raises(BenchError, match=words):
            synthesize(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ade20k", "mine.txt"]
    assert images_per_split(tmp_path) is None and images_per_split(tmp_path / "ade20k") == 1


def test_interrupted_run_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize("ade20k", tmp_path / "data", 1, stop)
    assert list(tmp_path.iterdir()) == []


def test_faster_run_wins(tmp_path):
    root, started = tmp_path / "data", []

    def overtake(done, total):
        if not started:
            started.append(True)
            synthesize("ade20k", root, 1)
            started.append(root.stat().st_ino)

    synthesize("ade20k", root, 1, overtake)
    assert root.stat().st_ino == started[1] and [path.name for path in tmp_path.iterdir()] == ["data"]
