"""Class lists against the official files, and as the readers and writers of this program need them."""

import csv
import json

import pytest
from cityscapesscripts.helpers.labels import labels

from bench.data.classes import classes_of
from bench.data.coco import CocoPanoptic
from bench.data.registry import open_split
from bench.data.synthesis import synthetic
from bench.errors import BenchError
from bench.experiments.datasets import DATASETS


def test_coco_is_the_official_file(shared):
    official = json.loads((shared / "reference" / "coco_panoptic_categories.json").read_bytes())
    expected = [(c["id"], c["name"], bool(c["isthing"]), tuple(c["color"])) for c in official]
    assert [(c.id, c.name, c.is_thing, c.colour) for c in classes_of("coco_panoptic")] == expected


def test_coco_has_the_order_of_the_reader(shared):
    read = CocoPanoptic(shared / "data" / "coco", "val2017").categories
    assert [(c.id, c.name, c.is_thing) for c in classes_of("coco_panoptic")] == [
        (c.id, c.name, c.is_thing) for c in read
    ]


def test_coco_instance_has_the_categories_of_the_instance_file(shared):
    content = json.loads((shared / "data" / "coco" / "annotations" / "instances_val2017.json").read_bytes())
    official = sorted((c["id"], c["name"]) for c in content["categories"])
    assert [(c.id, c.name) for c in classes_of("coco_instance")] == official
    assert classes_of("coco_instance") == classes_of("coco_panoptic")[:80]


def test_ade20k_is_the_official_list(shared):
    with open(shared / "reference" / "ade20k_classes.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = classes_of("ade20k")
    assert [(c.id, c.is_thing) for c in classes] == [(int(row["Idx"]), row["Stuff"] == "0") for row in rows]
    for info, row in zip(classes, rows, strict=True):
        assert row["Name"].replace(";", " ").startswith(info.name)


def test_cityscapes_label_table():
    """Ids in the order of the train ids, and colours, as cityscapesScripts' table prints them."""
    table = {c.id: c for c in classes_of("cityscapes")}
    assert list(table) == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [c.id for c in table.values() if c.is_thing] == [24, 25, 26, 27, 28, 31, 32, 33]
    assert (table[7].name, table[7].colour) == ("road", (128, 64, 128))
    assert (table[19].name, table[19].colour) == ("traffic light", (250, 170, 30))
    assert (table[33].name, table[33].colour) == ("bicycle", (119, 11, 32))


def test_cityscapes_is_the_official_table():
    official = sorted((label for label in labels if 0 <= label.trainId < 255), key=lambda label: label.trainId)
    expected = [(label.id, label.name, label.hasInstances, label.color) for label in official]
    assert [(c.id, c.name, c.is_thing, c.colour) for c in classes_of("cityscapes")] == expected


def test_camvid_has_the_order_of_its_file(shared):
    names = json.loads((shared / "data" / "camvid" / "classes.json").read_bytes())["classes"]
    assert [(c.id, c.name) for c in classes_of("camvid")] == list(enumerate(names, start=1))


def test_nuclei_are_those_of_the_category_file(shared):
    content = json.loads((shared / "data" / "nuclei" / "annotations" / "panoptic_val.json").read_bytes())
    expected = [(c["id"], c["name"], bool(c["isthing"]), tuple(c["color"])) for c in content["categories"]]
    assert [(c.id, c.name, c.is_thing, c.colour) for c in classes_of("nuclei")] == expected


def test_synthetic_has_the_order_of_the_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "SPLITS", {"train": 1, "val": 1})
    read = open_split("synthetic_panoptic", "val", tmp_path).categories
    assert [(c.id, c.name, c.is_thing) for c in classes_of("synthetic_panoptic")] == [
        (c.id, c.name, c.is_thing) for c in read
    ]


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_data_set_has_its_classes(dataset):
    classes = classes_of(dataset)
    assert len(classes) == DATASETS[dataset].num_classes
    assert all(0 < c.id < 256 for c in classes), "ids go into 8-bit PNGs, where 0 is void"
    for values in ([c.id for c in classes], [c.name for c in classes], [c.colour for c in classes]):
        assert len(set(values)) == len(values)
    assert all(0 <= value <= 255 for c in classes for value in c.colour)


def test_unknown_data_set():
    with pytest.raises(BenchError, match="did you mean 'ade20k'"):
        classes_of("ade20")
