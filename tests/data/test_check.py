"""`check` finds what is wrong with a data set, and nothing in one that is whole."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from bench.data import check as module
from bench.data.check import check
from bench.data.registry import split_fingerprint
from bench.errors import BenchError
from bench.experiments.datasets import DATASETS

FACTS = {  # name: pattern of the validation images, of their labels
    "coco_panoptic": ("val2017/*.jpg", "annotations/panoptic_val2017/*.png"),
    "coco_instance": ("val2017/*.jpg", None),
    "ade20k": ("images/validation/*.jpg", "annotations/validation/*.png"),
    "cityscapes": ("leftImg8bit/val/*/*.png", "gtFine/val/*/*_labelIds.png"),
}
OF_LABELS = [name for name, (_, labels) in FACTS.items() if labels]


def found(name, root, **options):
    """The problems of the validation split; those of the training split are none."""
    train, val = check(name, root, **options)
    assert train.problems == [] and train.images == 8
    assert all("\n" not in problem for problem in val.problems)
    return val.problems


@pytest.mark.parametrize("name", FACTS)
def test_a_whole_data_set(generated_once, name):
    root = generated_once(name)
    for everything in (False, True):
        reports = check(name, root, everything)
        assert [(r.split, r.images, r.decoded, r.problems) for r in reports] == [
            (split, 8, 8, []) for split in DATASETS[name].splits
        ]
        assert [r.fingerprint for r in reports] == [split_fingerprint(name, r.split, root) for r in reports]


@pytest.mark.parametrize("name", ["camvid", "nuclei"])
def test_small_real_sets_are_complete(shared, name):
    assert [(r.split, r.images, r.problems) for r in check(name, shared / "data")] == [
        (split, count, []) for split, count in DATASETS[name].images.items()
    ]


def test_a_subset_says_so(shared):
    train, val = check("coco_panoptic", shared / "data")
    assert len(train.problems) == 1 and "panoptic_train2017.json" in train.problems[0] and train.fingerprint is None
    assert val.problems == ["val2017 has 4 images, the official coco_panoptic 5000: a subset"]


def test_more_than_there_should_be(generated):
    root = generated("ade20k")
    for folder, suffix in (("images", "jpg"), ("annotations", "png")):
        source = root / folder / "validation" / f"ADE_val_00000001.{suffix}"
        source.with_name(f"copy.{suffix}").write_bytes(source.read_bytes())
    assert found("ade20k", root) == [
        "validation has 9 images, the generated data set 8: more than there should be"
    ]  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_every_missing_file_is_named_and_the_rest_looked_at(generated, name):
    root = generated(name)
    gone = [sorted(root.glob(pattern))[place] for place, pattern in enumerate(FACTS[name]) if pattern]
    broken = sorted(root.glob(FACTS[name][0]))[4]
    for path in gone:
        path.unlink()
    broken.write_bytes(broken.read_bytes()[:-100])
    *missing, last = found(name, root)
    assert sorted(missing) == sorted(f"{path} is missing" for path in gone)
    assert str(broken) in last


@pytest.mark.parametrize("name", FACTS)
def test_missing_folder(generated, name):
    root = generated(name)
    folder = (root / FACTS[name][0]).parent
    folder = folder.parent if name == "cityscapes" else folder
    folder.rename(root / "elsewhere")
    problems = found(name, root)
    assert str(folder) in problems[0] and len(problems) in (1, 8)


@pytest.mark.parametrize("name", FACTS)
def test_photograph_of_another_size_is_found_in_its_header(generated, name, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 1)
    root = generated(name)
    path = sorted(root.glob(FACTS[name][0]))[3]
    Image.new("RGB", (31, 17)).save(path)
    (problem,) = found(name, root)
    assert str(path) in problem and "31x17" in problem


@pytest.mark.parametrize("name", OF_LABELS)
def test_label_image_that_is_broken_behind_its_header(generated, name, monkeypatch):
    root = generated(name)
    path = sorted(root.glob(FACTS[name][1]))[3]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (problem,) = found(name, root)
    assert str(path) in problem
    monkeypatch.setattr(module, "SAMPLE", 1)
    assert found(name, root) == []  # decodes the first image alone
    assert found(name, root, everything=True) == [problem]


@pytest.mark.parametrize(("name", "value"), [("ade20k", 151), ("cityscapes", 200)])
def test_label_out_of_range(generated, name, value):
    root = generated(name)
    path = sorted(root.glob(FACTS[name][1]))[0]
    values = np.array(Image.open(path))
    values[0, 0] = value
    Image.fromarray(values).save(path)
    assert found(name, root) == [f"{path} has label {value}, which the data set does not have: "
                                 "download the file again or correct it"]  # fmt: skip


@pytest.mark.parametrize("name", ["coco_panoptic", "coco_instance"])
def test_category_that_is_not_listed(generated, name):
    root = generated(name)
    file = root / DATASETS[name].marker.format("val2017")
    content = json.loads(file.read_bytes())
    content["categories"].pop()
    file.write_text(json.dumps(content))
    (problem,) = found(name, root)
    assert str(file) in problem


def test_progress_counts_every_image_of_every_split(generated_once):
    calls = []
    check("ade20k", generated_once("ade20k"), progress=lambda *call: calls.append(call))
    assert calls == [(done, 8, split) for split in ("training", "validation") for done in range(1, 9)]


def test_nothing_to_look_at(tmp_path):
    with pytest.raises(BenchError, match="--data-root"):
        check("ade20k", None)
    with pytest.raises(BenchError, match="did you mean 'ade20k'"):
        check("ade20", tmp_path)
    assert [len(report.problems) for report in check("ade20k", tmp_path)] == [1, 1]


def test_link_to_nowhere_and_name_that_is_no_text_are_problems(generated):
    root = generated("ade20k")
    path = sorted(root.glob(FACTS["ade20k"][0]))[1]
    path.rename(root / "elsewhere")
    path.symlink_to("nowhere")
    assert found("ade20k", root) == [f"image {path} is missing: check the name"]
    path.unlink()
    (root / "elsewhere").rename(os.fsdecode(os.fsencode(path.parent) + b"/\xff.jpg"))
    label = root / "annotations" / "validation" / f"{path.stem}.png"
    label.rename(os.fsdecode(os.fsencode(label.parent) + b"/\xff.png"))
    (problem,) = found("ade20k", root)
    assert "rename it" in problem


@pytest.mark.parametrize("content", ['{"images": "x"}', '{"images": null}', "[1]", "{"])
def test_damaged_note_of_the_generator(generated, content):
    root = generated("ade20k")
    (root / "synthesized.json").write_text(content)
    assert [report.problems for report in check("ade20k", root)] == [
        ["training has 8 images, the official ade20k 20210: a subset"],
        ["validation has 8 images, the official ade20k 2000: a subset"],
    ]


@pytest.mark.parametrize("name", ["coco_panoptic", "coco_instance"])
def test_what_only_the_evaluation_would_find(generated, name):
    root = generated(name)
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_bytes())
    del content["annotations"][0]["area"]
    file.write_text(json.dumps(content))
    (problem,) = found(name, root)
    assert str(file) in problem


def test_panoptic_split_without_any_annotation(generated):
    root = generated("coco_panoptic")
    file = root / "annotations" / "panoptic_val2017.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "annotations": []}))
    (problem,) = found("coco_panoptic", root)
    assert str(file) in problem and "of no image" in problem


def test_instances_of_which_none_can_be_learnt(generated):
    """What training would refuse."""
    root = generated("coco_instance")
    file = root / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "annotations": []}))
    (problem,) = check("coco_instance", root)[0].problems
    assert str(file) in problem and "no objects" in problem
