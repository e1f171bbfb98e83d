"""Training, `bench data check` and evaluation agree about every fault: all three refuse it, or none does."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.check import check
from bench.data.coco_instance import CocoInstance
from bench.data.prepare import prepare
from bench.data.registry import open_split
from bench.data.synthesis.layouts import synthesize
from bench.errors import BenchError
from bench.evaluation.evaluate import make_evaluator
from bench.evaluation.saved_predictions import SavedPredictions
from tests.conftest import mistake
from tests.data.faults import (
    HUGE,
    INSTANCES,
    MISSING,
    NAN,
    PANOPTIC,
    Fault,
    accepted,
    edit,
    field,
    fields,
    moved,
    part,
    pixels,
    save_perfect_predictions,
    twice,
    with_file,
)

NO_NUMBERS = ("12", 1.0, 1.5, True, None, [], -1, MISSING)
NO_TEXT = (None, 3, "", "  ", [], MISSING)
NO_NAMES = (*NO_TEXT, "a\0.jpg", "sub/..", "sub\\a.jpg", "a\n.jpg", "\udcff.jpg", "sub/")
FLAGS, NO_FLAGS = (0, 1, False, True, None, MISSING), ("0", "1", "", 2, -1, 0.0, 1.0, [], {})
TRUTH = "annotations/panoptic_val2017/*.png"
PHOTO = "val2017/*.jpg"


def of_both(file: str) -> list[Fault]:
    """Of the images and categories that both kinds of files list."""
    return [
        *fields(file, "", "images", (None, {}, "x", MISSING), file),
        *fields(file, "", "annotations", (None, {}, "x", [3], [None], MISSING), file),
        *fields(file, "", "categories", (None, {}, [3], MISSING), file),
        Fault("no images", field(file, "", "images", []), (file, "lists no images")),
        *fields(file, "images", "id", NO_NUMBERS, file),
        *fields(file, "images", "file_name", NO_NAMES, file),
        Fault("a file that is not there", field(file, "images", "file_name", "none.jpg"), ("none.jpg is missing",)),
        Fault("a file elsewhere", field(file, "images", "file_name", "../none.jpg"), ("../none.jpg is missing",)),
        *fields(file, "images", "width", ("320", 0, -5, 1.5, True, 10**9), file),
        Fault("photographs in folders", moved("val2017", "sub", file)),
        Fault("absolute names", moved("val2017", "sub", file, absolute=True)),
        Fault("photographs beside the folder", moved("val2017", "../mine", file)),
        Fault("another width", field(file, "images", "width", 17), (file, "download")),
        Fault("image twice", twice(file, "images"), (file, "twice")),
        Fault("file of two images", twice(file, "images", id=7), (file, "'file_name'", "twice")),
        *fields(file, "annotations", "image_id", NO_NUMBERS, file),
        Fault("unknown image", field(file, "annotations", "image_id", 10**6), (file, "image 1000000")),
        *fields(file, "categories", "id", (*NO_NUMBERS, 0), file),
        *fields(file, "categories", "name", NO_TEXT, file),
        Fault("another name", field(file, "categories", "name", "human"), (file, "'human'", "'person'")),
        Fault("another id", field(file, "categories", "id", 83), (file, "id 83 'person'", "id 1 'person'", "1 diff")),
        Fault("category twice", twice(file, "categories"), (file, "twice")),
        Fault("category too many", twice(file, "categories", id=250), (file,)),
        Fault("a list at the top", lambda root: (root / file).write_text("[1]"), (file, "no object at the top")),
        Fault("empty file", lambda root: (root / file).write_bytes(b""), (file, "not readable JSON")),
        Fault("latin-1", lambda root: (root / file).write_bytes(b'{"a": "\xe9"}'), (file, "not readable JSON")),
        Fault("byte order mark", lambda root: (root / file).write_bytes(b"\xef\xbb\xbf" + (root / file).read_bytes())),
        Fault("UTF-16", lambda root: (root / file).write_bytes((root / file).read_text().encode("utf-16"))),
    ]


SEGMENTATIONS = [
    None, "x", 3, MISSING, {}, [3], [1, 1, 9, 1, 9, 9], [[[1, 1], [9, 1], [9, 9]]], [["1", 1, 9, 1, 9, 9]],
    [[True] * 6], [[NAN, 1, 9, 1, 9, 9]], [[1, NAN, 9, 1, 9, 9]], [[HUGE, 1, 9, 1, 9, 9]], [[1e7, 1, 9, 1, 9, 9]],
    [[1, 1, 9, 1, 9, 9, 4]], [[1, 1, 9]], [[1, 1, 9, 1, 9, 9], None], {"size": [4, 4], "counts": [16]},
    {"size": None, "counts": [1]}, {"counts": [1]},
]  # fmt: skip
LENGTHS = [None, "", "x", "zzzz", "11", [], [1], [-1, 2], [1.5], ["1"], [True], [NAN], 3, MISSING, "\u20ac"]


def lengths(counts: object, turned: bool = False):
    """Run lengths for the first object, of the right size."""

    def change(content: dict) -> None:
        image = next(i for i in content["images"] if i["id"] == content["annotations"][0]["image_id"])
        size = [image["height"], image["width"]]
        found = {"size": size[::-1] if turned else size}
        found |= {} if counts is MISSING else {"counts": [size[0] * size[1]] if counts is all else counts}
        content["annotations"][0]["segmentation"] = found

    return lambda root: edit(root / INSTANCES, change)


OF_INSTANCES = [
    *of_both(INSTANCES),
    *fields(INSTANCES, "images", "height", (None, MISSING), INSTANCES),
    *fields(INSTANCES, "annotations", "id", NO_NUMBERS, INSTANCES),
    Fault("annotation twice", twice(INSTANCES, "annotations"), (INSTANCES, "'id'", "twice")),
    *fields(INSTANCES, "annotations", "category_id", NO_NUMBERS, INSTANCES, "of image"),
    Fault("unknown category", field(INSTANCES, "annotations", "category_id", 300), (INSTANCES, "category 300")),
    *accepted(INSTANCES, "annotations", "iscrowd", FLAGS),
    *fields(INSTANCES, "annotations", "iscrowd", NO_FLAGS, INSTANCES, "annotation", "of image"),
    *fields(INSTANCES, "annotations", "area", ("12", NAN, -1, HUGE, True, None, MISSING), INSTANCES, "of image"),
    *accepted(INSTANCES, "annotations", "area", (0, 0.5, 10**6)),
    *accepted(INSTANCES, "annotations", "bbox", (None, MISSING, ["a"])),  # which nobody reads
    *[f for s in SEGMENTATIONS for f in fields(INSTANCES, "annotations", "segmentation", (s,), INSTANCES, "of image")],
    *[Fault(f"run lengths {counts!r}", lengths(counts), (INSTANCES, "'segmentation'")) for counts in LENGTHS],
    Fault("run lengths turned", lengths(all, turned=True), (INSTANCES, "'segmentation'")),
    Fault("run lengths of nothing", lengths(all)),
    Fault("no part", field(INSTANCES, "annotations", "segmentation", []), left_out=1),
    Fault("an empty part alone", field(INSTANCES, "annotations", "segmentation", [[]]), left_out=1),
    Fault("two points alone", field(INSTANCES, "annotations", "segmentation", [[1, 1, 4, 4]]), left_out=1),
    Fault("two points more", part(10, 10, 12, 12), left_out=1),
    Fault("an empty part more", part(), left_out=1),
    Fault("a part outside the image", part(-50, -50, -40, -50, -40, -40)),
    Fault("a part on a line", part(1, 1, 5, 1, 9, 1)),
]  # fmt: skip
OF_PANOPTIC = [
    *of_both(PANOPTIC),
    *fields(PANOPTIC, "images", "height", (None, MISSING), PANOPTIC),  # one of two
    *fields(PANOPTIC, "categories", "isthing", (*NO_FLAGS, None, MISSING), PANOPTIC),
    Fault("another kind", field(PANOPTIC, "categories", "isthing", 0), (PANOPTIC,)),
    *fields(PANOPTIC, "annotations", "file_name", NO_NAMES, PANOPTIC, "of image"),
    *fields(PANOPTIC, "annotations", "segments_info", (None, {}, [3], MISSING), PANOPTIC, "of image"),
    Fault("annotated twice", twice(PANOPTIC, "annotations"), (PANOPTIC, "twice")),
    *fields(PANOPTIC, "segments", "id", (*NO_NUMBERS, 0, 2**24), PANOPTIC, "of image"),
    Fault("segment twice", twice(PANOPTIC, "segments"), (PANOPTIC, "of image", "twice")),
    Fault("segment of two categories", twice(PANOPTIC, "segments", category_id=2), (PANOPTIC, "of image", "twice")),
    *fields(PANOPTIC, "segments", "category_id", NO_NUMBERS, PANOPTIC, "of image"),
    Fault("unknown category", field(PANOPTIC, "segments", "category_id", 250), (PANOPTIC, "category id 250")),
    *accepted(PANOPTIC, "segments", "iscrowd", FLAGS),
    *fields(PANOPTIC, "segments", "iscrowd", NO_FLAGS, PANOPTIC, "segment", "of image"),
    Fault("segment without pixels", twice(PANOPTIC, "segments", id=2**24 - 1), left_out=1),
    Fault("pixels without segment", with_file(TRUTH, pixels(lambda ids: ids | 128)), ("does not list",)),
    Fault("grey PNG", with_file(TRUTH, pixels(lambda ids: ids[..., 0])), ("mode L",)),
    Fault("smaller PNG", with_file(TRUTH, pixels(lambda ids: ids[1:])), ("panoptic_val2017",)),
    Fault("no PNG", with_file(TRUTH, Path.unlink), ("is missing",)),
    Fault("PNG cut off", with_file(TRUTH, lambda path: path.write_bytes(path.read_bytes()[:99])), ("cannot be read",)),
    Fault("PNGs in folders", moved("annotations/panoptic_val2017", "sub", PANOPTIC)),
]  # fmt: skip
OF_IMAGES = [
    Fault("smaller photograph", with_file(PHOTO, pixels(lambda image: image[1:])), ("val2017",)),
    Fault("no photograph", with_file(PHOTO, Path.unlink), ("is missing",)),
]


def of_labels(photo: str, label: str, unknown: int) -> list[Fault]:
    def first_pixel(value: int, kind: type = np.uint8):
        return pixels(lambda labels: np.where(np.arange(labels.size).reshape(labels.shape), labels, value).astype(kind))

    return [
        Fault("unknown label", with_file(label, first_pixel(unknown)), (f"has label {unknown}",)),
        Fault("16 bits", with_file(label, first_pixel(1000, np.uint16)), ("to 1000",)),
        Fault("colours", with_file(label, pixels(lambda labels: labels, "RGB")), ("has colours",)),
        Fault("smaller label image", with_file(label, pixels(lambda labels: labels[1:])), ("matching pair",)),
        Fault("no label image", with_file(label, Path.unlink), ("is missing",)),
        Fault("smaller photograph", with_file(photo, pixels(lambda image: image[1:])), ("matching pair",)),
        Fault("no photograph", with_file(photo, Path.unlink), ("is missing",)),
    ]


ADE, ADE_LABEL = "images/validation/*.jpg", "annotations/validation/*.png"
CITY, CITY_LABEL = "leftImg8bit/val/*/*.png", "gtFine/val/*/*_labelIds.png"


def ends_in(ending: str):
    return lambda path: path.rename(path.with_suffix(ending))


NAMES = [
    *[Fault(f"photographs end in {e}", with_file(ADE, ends_in(e))) for e in (".JPG", ".jpeg", ".JPEG", ".png", ".PNG")],
    Fault("label images end in .PNG", with_file(ADE_LABEL, ends_in(".PNG"))),
    Fault("two photographs", with_file(ADE, lambda path: shutil.copy(path, path.with_suffix(".JPG"))), ("remove",)),
]
TABLE = [
    *[("coco_instance", fault) for fault in (*OF_INSTANCES, *OF_IMAGES)],
    *[("coco_panoptic", fault) for fault in (*OF_PANOPTIC, *OF_IMAGES)],
    # The evaluation of panoptic data takes its instances from the instance file.
    *[("coco_panoptic", f) for f in OF_INSTANCES[1::3] if not f.name.startswith(("a file", "photographs", "absolute"))],
    *[("ade20k", fault) for fault in (*of_labels(ADE, ADE_LABEL, 151), *NAMES)],
    *[("cityscapes", fault) for fault in of_labels(CITY, CITY_LABEL, 200)],
]


@pytest.fixture(scope="module")
def pristine(written_once):
    """pristine(name) -> (root, perfect predictions), with one image a split; not to be changed."""

    def get(name: str) -> tuple[Path, Path]:
        root = written_once(f"one-{name}", lambda folder: synthesize(name, folder, images=1))
        return root, written_once(f"perfect-{name}", lambda folder: save_perfect_predictions(name, root, folder))

    return get


def refusals(name: str, root: Path, predictions: Path) -> dict[str, str]:
    """What each door says, empty where it says nothing against the data set."""

    def train() -> None:
        dataset = open_split(name, "val", root)
        for index in range(len(dataset)):
            dataset[index]

    def evaluate() -> dict:
        dataset = open_split(name, "val", root)
        saved, evaluator = SavedPredictions(predictions, dataset), make_evaluator(dataset)
        for image in dataset.images:
            evaluator.take(evaluator.measure(saved.of(image)))
        return evaluator.compute()

    found = {"check": " | ".join(check(name, root)[1].problems)}
    for door, enter in (("train", train), ("evaluate", evaluate)):
        try:
            enter()
            found[door] = ""
        except BenchError as error:
            found[door] = str(error)
    return found


@pytest.mark.parametrize(("name", "fault"), TABLE, ids=[f"{name}: {fault.name}" for name, fault in TABLE])
def test_all_doors_agree(pristine, tmp_path, name, fault):
    original, predictions = pristine(name)
    root = Path(shutil.copytree(original, tmp_path / "root"))
    fault.damage(root)
    found = refusals(name, root, predictions)
    if not fault.words:
        assert set(found.values()) == {""}
        assert check(name, root)[1].left_out == fault.left_out
    for text in found.values() if fault.words else ():
        assert text and "\n" not in text and all(word in text for word in fault.words), found


def test_check_says_what_covers_nothing(pristine, tmp_path, bench):
    original, _ = pristine("coco_instance")
    root = shutil.copytree(original, tmp_path / "root")
    part(1, 1, 2, 2)(root)
    code, out, _ = bench("data", "check", "coco_instance", "--data-root", root)
    assert code == 0 and "val2017: left out 1 listed part(s) or segment(s) that cover nothing" in out.splitlines()


def test_score_refuses_as_typed(pristine, tmp_path, bench):
    original, predictions = pristine("coco_panoptic")
    root = shutil.copytree(original, tmp_path / "root")
    field(PANOPTIC, "segments", "iscrowd", "0")(root)
    words = PANOPTIC, "'iscrowd' '0', not 0, 1, false or true"
    mistake(bench("score", "coco_panoptic", predictions, "--data-root", root), *words)
    code, out, _ = bench("data", "check", "coco_panoptic", "--data-root", root)
    assert code == 1 and all(word in out for word in words)


def test_category_ids_above_255_work_where_there_is_no_class_list(pristine, tmp_path):
    """Instances are not written as PNGs of 8 bits."""
    original, predictions = pristine("coco_instance")
    root, saved = (Path(shutil.copytree(path, tmp_path / path.name)) for path in (original, predictions))

    def renumber(entries: list[dict], name: str) -> None:
        for entry in entries:
            entry[name] += 1000

    edit(root / INSTANCES, lambda c: (renumber(c["categories"], "id"), renumber(c["annotations"], "category_id")))
    edit(saved / "instances.json", lambda entries: renumber(entries, "category_id"))
    dataset = CocoInstance(root, "val2017")
    evaluator = make_evaluator(dataset)
    evaluator.take(evaluator.measure(SavedPredictions(saved, dataset).of(dataset.images[0])))
    assert evaluator.compute()["AP"] == pytest.approx(100)


def test_labels_of_pngs_in_folders_are_prepared_in_folders(pristine, tmp_path):
    """Two PNGs of one name in two folders are two label images."""
    root = Path(shutil.copytree(pristine("coco_panoptic")[0], tmp_path / "root"))
    moved("annotations/panoptic_val2017", "sub", PANOPTIC)(root)
    assert [(report.split, report.made, report.problems) for report in prepare("coco_panoptic", root)] == [
        ("train2017", 1, []),
        ("val2017", 1, []),
    ]
    (label,) = (root / "panoptic_semseg_val2017").rglob("*.png")
    assert label.parent.name == "sub" and np.array_equal(
        np.array(Image.open(label)), open_split("coco_panoptic", "val", root).label_map(0)
    )


REPORTED = {  # kind of make_input.py: whether coco_panoptic and coco_instance refuse it
    "iscrowd_text": (True, True), "iscrowd_missing": (False, False), "id_twice": (True, False),
    "category_300": (True, True), "empty_segmentation": (False, False), "two_point_part": (False, False),
    "subfolder": (True, False),  # the panoptic file of this kind names photographs where they do not lie
}  # fmt: skip


@pytest.mark.parametrize("kind", REPORTED)
def test_reported_inputs(shared, pristine, tmp_path, monkeypatch, kind):
    """The script beside the checkout, with the generated scenes that it starts from."""
    script = shared / "faults" / "make_input.py"
    if not script.is_file():
        pytest.skip("../shared/faults is not beside this checkout")
    root = tmp_path / "root"
    monkeypatch.setattr(sys, "argv", [str(script), str(root), kind])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: shutil.copytree(pristine("coco_panoptic")[0], root))
    runpy.run_path(str(script))
    for name, refused in zip(("coco_panoptic", "coco_instance"), REPORTED[kind], strict=True):
        found = refusals(name, root, pristine(name)[1])
        assert [bool(text) for text in found.values()] == [refused] * 3, found
