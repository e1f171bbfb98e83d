"""The generated data set: the same bytes everywhere, COCO's formats as other programs read them, useful content."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from panopticapi.evaluation import pq_compute_single_core
from panopticapi.utils import rgb2id
from PIL import Image
from pycocotools.coco import COCO

from bench.data.coco import CocoPanoptic, fingerprint
from bench.data.synthesis import synthetic
from bench.data.synthesis.scenes import CLASSES, MIN_AREA, THINGS, draw_scene
from bench.errors import BenchError

# (split, index): sha256 of image and segment arrays. If they change, raise synthetic.VERSION and pin the new ones:
# accuracy records of the old version are of another data set.
PINNED_VERSION = 1
PINNED = {
    (0, 0): "22b9d113ffc6cb98e291f81e1888c6e624e503df4be7642571d9704ff3b099f1",
    (0, 399): "4956adfcf9e4d39c719287ab87d36d8b0424d163810ab9ec180c71c5634b51b0",
    (1, 0): "cc53b778421c53896f2fae70e2a4638269df149b4bbe3320660d22bb019bbc8c",
}
PINNED_FINGERPRINT = {
    "train": "b5a0bfd5788e39f19898073f61f3ffe7c3e660681086ea6c08ee8cb7e27bff9f",
    "val": "cb3f0cc556e6df579c314b433c4fe6e6e73944f5a342c5d57052810e2d7a9abe",
}


@pytest.mark.parametrize("key", PINNED)
def test_scene_bytes_are_pinned(key):
    scene, again = draw_scene(*key, synthetic.VERSION), draw_scene(*key, synthetic.VERSION)
    assert scene.image.tobytes() == again.image.tobytes() and scene.classes == again.classes
    found = hashlib.sha256(scene.image.tobytes() + scene.segments.tobytes() + bytes(scene.classes)).hexdigest()
    assert (synthetic.VERSION, found) == (PINNED_VERSION, PINNED[key])


@pytest.mark.parametrize("split", PINNED_FINGERPRINT)
def test_fingerprint_is_pinned(synthetic_root, split):
    assert fingerprint(synthetic_root, split) == PINNED_FINGERPRINT[split]


def test_image_hashes_belong_to_the_images(synthetic_root):
    content = json.loads((synthetic_root / "annotations" / "panoptic_val.json").read_text())
    for image in content["images"][:10]:
        pixels = np.asarray(Image.open(synthetic_root / "val" / image["file_name"]))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == image["sha256"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_pixel_has_one_segment_and_every_class_occurs(synthetic_root, split):
    dataset = CocoPanoptic(synthetic_root, split)
    assert len(dataset) == synthetic.SPLITS[split]
    assert [category.name for category in dataset.categories] == list(CLASSES)
    assert [category.id for category in dataset.categories] == [1, 2, 3, 5, 7, 11, 21, 22, 25, 30]
    images_with, things_a_scene, sizes = Counter(), [], Counter()
    for sample in dataset:
        assert sample.image.shape == (3, 128, 128)
        assert (sample.masks.sum(0) == 1).all()
        areas = sample.masks.sum((1, 2))
        assert areas.min() >= MIN_AREA
        labels = sample.labels.tolist()
        stuff = [label for label in labels if label >= len(THINGS)]
        assert len(stuff) == len(set(stuff)) >= 1  # one segment a stuff class, as in COCO
        images_with.update(set(labels))
        things_a_scene.append(len(labels) - len(stuff))
        for area in areas[sample.labels < len(THINGS)].tolist():
            sizes["small" if area < 150 else "large" if area > 1000 else "medium"] += 1
    assert min(images_with[label] for label in range(len(CLASSES))) > 0.3 * len(dataset)
    assert max(images_with[label] for label in range(len(THINGS), len(CLASSES))) < len(dataset)  # can be absent
    assert 1 <= min(things_a_scene) and max(things_a_scene) == 8 and 4 < np.mean(things_a_scene) < 6
    assert min(sizes.values()) > 0.1 * sum(sizes.values())


def test_things_are_visible_against_what_lies_around(synthetic_root):
    """Mean colour of a thing differs from that of the pixels around it by more than the noise, for nearly all."""
    distances = []
    for sample in CocoPanoptic(synthetic_root, "val"):
        image = sample.image.float()
        for label, mask in zip(sample.labels.tolist(), sample.masks, strict=True):
            if label < len(THINGS):
                near = torch.nn.functional.max_pool2d(mask[None].float(), 9, 1, 4)[0].bool() & ~mask
                distances.append(float((image[:, mask].mean(1) - image[:, near].mean(1)).norm()))
    assert np.mean(np.array(distances) > 25) > 0.95


def test_occlusion_occurs(synthetic_root):
    """Discs are convex and fill their box to pi/4; a disc that does so much less is covered in part."""
    annotations = json.loads((synthetic_root / "annotations" / "panoptic_train.json").read_text())["annotations"]
    segments = [segment for annotation in annotations for segment in annotation["segments_info"]]
    fill = np.array([s["area"] / (s["bbox"][2] * s["bbox"][3]) for s in segments if s["category_id"] == 1])
    assert 0.05 < np.mean(fill < 0.7) < 0.5


def test_instances_as_pycocotools_reads_them(synthetic_root, capsys):
    coco = COCO(synthetic_root / "annotations" / "instances_val.json")
    dataset = CocoPanoptic(synthetic_root, "val")
    assert dataset.instance_file is not None
    assert coco.getCatIds() == list(synthetic.CATEGORY_IDS[: len(THINGS)])
    assert sorted(coco.getImgIds()) == [image["id"] for image in dataset.images]
    for sample in dataset:
        things = sample.labels < len(THINGS)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=sample.image_id))
        assert [a["category_id"] for a in annotations] == [synthetic.CATEGORY_IDS[k] for k in sample.labels[things]]
        for annotation, mask in zip(annotations, sample.masks[things].numpy(), strict=True):
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum()
            x, y, width, height = annotation["bbox"]
            assert mask[y : y + height, x : x + width].sum() == mask.sum()
            assert mask[y].any() and mask[y + height - 1].any() and mask[:, x].any() and mask[:, x + width - 1].any()


def test_panoptic_files_as_panopticapi_reads_them(synthetic_root, capsys):
    folder = synthetic_root / "annotations" / "panoptic_val"
    content = json.loads(folder.with_suffix(".json").read_text())
    annotation = content["annotations"][0]
    ids = rgb2id(np.asarray(Image.open(folder / annotation["file_name"])))
    assert {int(i): int(n) for i, n in zip(*np.unique(ids, return_counts=True), strict=True)} == {
        segment["id"]: segment["area"] for segment in annotation["segments_info"]
    }
    assert ids.max() > 65536  # all three channels are used
    pairs = [(entry, entry) for entry in content["annotations"]]
    categories = {category["id"]: category for category in content["categories"]}
    result = pq_compute_single_core(0, pairs, str(folder), str(folder), categories)
    quality, _ = result.pq_average(categories, isthing=None)
    assert quality["pq"] == 1.0 and quality["n"] == 10


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(synthetic, "SPLITS", {"train": 3, "val": 2})


def _left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_generate_is_idempotent_and_reports_progress(few, tmp_path):
    calls = []
    root = synthetic.ensure(tmp_path / "new" / "cache", lambda done, total: calls.append((done, total)))
    assert calls == [(n, 5) for n in range(1, 6)] and _left_over(root.parent) == [root.name]
    before = (root / "train" / "000001.png").stat().st_mtime_ns
    synthetic.generate(root, lambda done, total: calls.append((done, total)))
    assert len(calls) == 5 and (root / "train" / "000001.png").stat().st_mtime_ns == before


def test_another_version_is_replaced(few, tmp_path, monkeypatch):
    root = synthetic.ensure(tmp_path)
    old = (root / "train" / "000001.png").read_bytes()
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    synthetic.generate(root)
    assert (root / "train" / "000001.png").read_bytes() != old and _left_over(tmp_path) == [root.name]


def test_a_broken_marker_is_replaced(few, tmp_path):
    """As after a crash of the machine, which loses what was not yet on the disk."""
    root = synthetic.ensure(tmp_path)
    (root / "synthetic_panoptic.json").write_text("")
    synthetic.generate(root)
    assert (root / "synthetic_panoptic.json").read_text() and _left_over(tmp_path) == [root.name]


def test_interrupted_run_leaves_nothing(few, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.ensure(tmp_path, stop)
    assert _left_over(tmp_path) == []


def test_other_files_are_never_replaced(few, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(BenchError, match="not an empty folder"):
        synthetic.generate(tmp_path)
    with pytest.raises(BenchError, match="cannot write"):
        synthetic.ensure(tmp_path / "mine.txt" / "below")
    assert _left_over(tmp_path) == ["mine.txt"]


def test_slower_of_two_runs_keeps_the_faster_ones_result(few, tmp_path):
    root, inode = tmp_path / "data", []

    def overtake(done, total):
        if done == total and not inode:
            inode.append(None)
            synthetic.generate(root)
            inode[0] = os.stat(root).st_ino

    synthetic.generate(root, overtake)
    assert os.stat(root).st_ino == inode[0] and _left_over(tmp_path) == ["data"]


def test_processes_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from bench.data.synthesis import synthetic\n"
        "synthetic.SPLITS = {'train': 6, 'val': 4}; synthetic.ensure(Path(sys.argv[1]))"
    )
    repository = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(run.communicate()[1], run.returncode) for run in runs] == [(b"", 0)] * 3
    assert _left_over(tmp_path) == ["synthetic_panoptic"]
    assert len(CocoPanoptic(tmp_path / "synthetic_panoptic", "train")) == 6
