"""What `bench data prepare` writes against the official tools; resumption; broken sources."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.preparation.json2labelImg import json2labelImg
from PIL import Image

from bench.data import parallel
from bench.data.prepare import prepare
from bench.data.registry import open_split, split_fingerprint
from bench.errors import BenchError

TARGETS = {
    "cityscapes": ("gtFine/{}", "*/*_labelTrainIds.png", ("train", "val")),
    "ade20k": ("annotations_detectron2/{}", "*.png", ("training", "validation")),
    "coco_panoptic": ("panoptic_semseg_{}", "*.png", ("train2017", "val2017")),
}


@pytest.fixture(params=TARGETS)
def name(request):
    return request.param


@pytest.fixture
def root(generated, name):
    return generated(name)


def targets(name, root):
    folder, pattern, splits = TARGETS[name]
    return [sorted((root / folder.format(split)).glob(pattern)) for split in splits]


def pixels(path):
    image = Image.open(path)
    assert image.mode == "L"
    return np.asarray(image)


def official(name, label: Path, annotations: dict, order: list[int], scratch: Path) -> np.ndarray:
    """The label image by the official tool (Cityscapes) or by the definition."""
    if name == "cityscapes":
        json2labelImg(str(label).replace("_labelIds.png", "_polygons.json"), str(scratch), "trainIds")
        return np.asarray(Image.open(scratch))
    values = np.asarray(Image.open(label)).astype(int)
    if name == "ade20k":
        return np.where(values == 0, 255, values - 1)
    ids, expected = values @ [1, 256, 65536], np.full(values.shape[:2], 255)
    for segment in annotations[label.name]:
        expected[ids == segment["id"]] = order.index(segment["category_id"])
    return expected


def test_label_images_are_the_official_ones(name, root, tmp_path):
    found = prepare(name, root)
    assert [(split.split, split.made, split.kept, split.problems) for split in found] == [
        (split, 8, 0, []) for split in TARGETS[name][2]
    ]
    annotations, order = {}, []
    if name == "coco_panoptic":
        content = json.loads((root / "annotations" / "panoptic_val2017.json").read_bytes())
        annotations = {entry["file_name"]: entry["segments_info"] for entry in content["annotations"]}
        order = sorted(category["id"] for category in content["categories"])
        assert any(segment["iscrowd"] for segments in annotations.values() for segment in segments)
    dataset, written = open_split(name, "val", root), targets(name, root)[1]
    assert len(written) == 8
    for index in range(8):
        label = dataset.files(index)[1]
        (path,) = (path for path in written if path.name.replace("TrainIds", "Ids") == label.name)
        assert np.array_equal(pixels(path), official(name, label, annotations, order, tmp_path / "drawn.png"))


def test_what_is_there_is_kept_and_what_lacks_is_made(name, root):
    prepare(name, root)
    train, val = targets(name, root)
    before = {path: path.stat().st_mtime_ns for path in (*train, *val)}
    content = val[3].read_bytes()
    val[3].unlink()
    assert [(split.made, split.kept) for split in prepare(name, root)] == [(0, 8), (1, 7)]
    assert val[3].read_bytes() == content
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items() if path != val[3])


def test_the_data_set_itself_stays_what_it_was(name, root):
    before = split_fingerprint(name, "val", root)
    prepare(name, root)
    assert split_fingerprint(name, "val", root) == before


def test_a_broken_source_is_one_line_and_the_rest_is_made(name, root):
    broken = open_split(name, "val", root).files(2)[1]
    broken.write_bytes(broken.read_bytes()[:50])
    train, val = prepare(name, root)
    assert (train.made, train.problems, val.made) == (8, [], 7)
    (problem,) = val.problems
    assert str(broken) in problem and "\n" not in problem
    assert len(targets(name, root)[1]) == 7 and not list(root.rglob("*.tmp"))


def test_photographs_are_not_needed_and_one_split_is_enough(name, root):
    for path in [path for path in root.rglob("*") if path.suffix == ".jpg" or path.name.endswith("_leftImg8bit.png")]:
        path.unlink()
    for path in [path for path in root.rglob("*") if path.is_file() and "train" in str(path.relative_to(root))]:
        path.unlink()
    assert [(split.split, split.made) for split in prepare(name, root)] == [(TARGETS[name][2][1], 8)]


def test_nothing_to_prepare(tmp_path):
    assert prepare("camvid", tmp_path) == []
    for name in TARGETS:
        with pytest.raises(BenchError, match=str(tmp_path)):
            prepare(name, tmp_path)
    with pytest.raises(BenchError, match="did you mean 'cityscapes'"):
        prepare("citiscapes", tmp_path)


@pytest.fixture
def cityscapes(generated):
    return generated("cityscapes")


def test_missing_label_ids_are_drawn_from_the_polygons(cityscapes):
    originals = {path: path.read_bytes() for path in sorted(cityscapes.glob("gtFine/*/*/*_labelIds.png"))}
    prepare("cityscapes", cityscapes)
    train_ids = {path: pixels(path) for split in targets("cityscapes", cityscapes) for path in split}
    for path in (*list(originals)[1:], *train_ids):
        path.unlink()
    prepare("cityscapes", cityscapes)
    for path in originals:
        drawn, path_back = np.asarray(Image.open(path)), path.with_name("official.png")
        path_back.write_bytes(originals[path])
        assert np.array_equal(drawn, np.asarray(Image.open(path_back)))
        path_back.unlink()
    assert all(np.array_equal(pixels(path), expected) for path, expected in train_ids.items())
    assert len(open_split("cityscapes", "val", cityscapes)) == 8


BROKEN_POLYGONS = {
    "no json": b"{",
    "list": b"[]",
    "unknown label": b'{"imgHeight": 4, "imgWidth": 6, "objects": [{"label": "cat", "polygon": [[0,0],[3,0],[3,3]]}]}',
    "words": b'{"imgHeight": 4, "imgWidth": 6, "objects": [{"label": "car", "polygon": [["a",0],[3,0],[3,3]]}]}',
    "endless": b'{"imgHeight": 1000000, "imgWidth": 1000000, "objects": []}',
    "no size": b'{"objects": []}',
}


@pytest.mark.parametrize("case", BROKEN_POLYGONS)
def test_broken_polygons(cityscapes, case, capfd):
    label = sorted(cityscapes.glob("gtFine/val/*/*_labelIds.png"))[1]
    polygons = label.with_name(label.name.replace("labelIds.png", "polygons.json"))
    label.unlink()
    polygons.write_bytes(BROKEN_POLYGONS[case])
    train, val = prepare("cityscapes", cityscapes)
    (problem,) = val.problems
    assert problem.startswith(f"{polygons} cannot be drawn") and "\n" not in problem
    assert (train.made, val.made) == (8, 7) and capfd.readouterr() == ("", "")
    assert case != "unknown label" or "'cat' not known" in problem


def test_names_in_the_annotation_file_do_not_lead_out_of_the_folder(generated, tmp_path):
    root = generated("coco_panoptic")
    file = root / "annotations" / "panoptic_val2017.json"
    content = json.loads(file.read_bytes())
    outside = tmp_path / "outside.png"
    outside.write_bytes((file.with_suffix("") / content["annotations"][0]["file_name"]).read_bytes())
    before = outside.read_bytes()
    content["annotations"][0]["file_name"] = "../../../outside.png"
    file.write_text(json.dumps(content))
    prepare("coco_panoptic", root)
    assert outside.read_bytes() == before


def test_folder_that_cannot_be_written(generated):
    root = generated("ade20k")
    (root / "annotations_detectron2").write_text("mine")
    with pytest.raises(BenchError, match=r"^(?!.*\n).*cannot write .*annotations_detectron2"):
        prepare("ade20k", root)


@pytest.fixture
def many(generated):
    """ADE20K with every generated image five times."""
    root = generated("ade20k")
    for path in [path for path in root.rglob("ADE_*") if path.is_file()]:
        for copy in range(1, 5):
            path.with_name(path.name.replace("_0000", f"_{copy}000")).write_bytes(path.read_bytes())
    return root


def test_killed_and_run_again(many):
    """Killed in the middle it leaves whole files alone, no process, and the next run makes the rest."""
    code = (
        "import sys, time; from pathlib import Path; from bench.data import prepare as p\n"
        "save = p._save; p._save = lambda *a: (time.sleep(0.1), save(*a))\n"
        "p.prepare('ade20k', Path(sys.argv[1]))"
    )
    checkout = Path(__file__).resolve().parents[2]
    run = subprocess.Popen([sys.executable, "-c", code, str(many)], cwd=checkout, start_new_session=True)
    limit = time.monotonic() + 60
    while sum(map(len, targets("ade20k", many))) < 6 and time.monotonic() < limit:
        time.sleep(0.02)
    run.kill()
    run.wait()
    while any(_is_alive(many, int(pid)) for pid in os.listdir("/proc") if pid.isdigit()) and time.monotonic() < limit:
        time.sleep(0.2)
    assert time.monotonic() < limit
    made = [path for split in targets("ade20k", many) for path in split]
    assert 6 <= len(made) < 80 and all(pixels(path).size > 0 for path in made)
    assert [split.made + split.kept for split in prepare("ade20k", many)] == [40, 40]
    assert sum(split.kept for split in prepare("ade20k", many)) == 80


def _is_alive(root, pid):
    try:
        return str(root).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_many_images_are_made_by_several_processes(many, monkeypatch):
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    calls = []
    found = prepare("ade20k", many, lambda *call: calls.append(call))
    assert calls == [(done, 40, split) for split in TARGETS["ade20k"][2] for done in range(1, 41)]
    assert [split.made for split in found] == [40, 40]


def test_broken_split_is_a_problem_and_a_missing_one_is_left_out(generated):
    root = generated("coco_panoptic")
    train_file, file = (root / "annotations" / f"panoptic_{split}2017.json" for split in ("train", "val"))
    whole = file.read_text()
    file.write_text("{")
    train, val = prepare("coco_panoptic", root)
    assert (train.split, train.made, train.problems) == ("train2017", 8, [])
    assert (val.split, val.made, len(val.problems)) == ("val2017", 0, 1) and str(file) in val.problems[0]
    train_file.unlink()
    with pytest.raises(BenchError, match=r"panoptic_val2017\.json is not readable"):
        prepare("coco_panoptic", root)
    file.write_text(whole)
    assert [split.split for split in prepare("coco_panoptic", root)] == ["val2017"]
