"""Data sets by name, their roots, and the errors a user meets first."""

import pytest

from bench.data.registry import DATASETS, default_cache, get_dataset_info, open_split
from bench.errors import BenchError


def test_class_counts():
    coco, synthetic = DATASETS["coco_panoptic"], DATASETS["synthetic_panoptic"]
    assert (coco.num_things, coco.num_stuff, coco.num_classes) == (80, 53, 133)
    assert (synthetic.num_things, synthetic.num_stuff, synthetic.num_classes) == (6, 4, 10)
    assert all(name == info.name for name, info in DATASETS.items())


def test_unknown_name_names_the_nearest():
    with pytest.raises(BenchError, match="did you mean 'coco_panoptic'"):
        get_dataset_info("coco-panoptic")


def test_open_synthetic_by_role_and_by_name(synthetic_root):
    dataset = open_split("synthetic_panoptic", "val", synthetic_root.parent)
    assert len(dataset) == 100 and dataset[0] is not dataset[0]
    with pytest.raises(BenchError, match="panoptic_test.json"):
        open_split("synthetic_panoptic", "test", synthetic_root.parent)


def test_open_real_coco_by_role(shared):
    dataset = open_split("coco_panoptic", "val", shared / "data" / "coco")
    assert dataset.split == "val2017" and len(dataset) == 4


@pytest.mark.parametrize("given", [None, "missing"])
def test_coco_without_a_root_names_the_option(tmp_path, given):
    with pytest.raises(BenchError, match="--data-root or BENCH_DATA"):
        open_split("coco_panoptic", "val", None if given is None else tmp_path / given)


def test_data_set_with_other_classes_is_refused(tiny):
    for folder, name in ((tiny.image.parent, "val2017"), (tiny.png.parent, "panoptic_val2017")):
        folder.rename(folder.with_name(name))
    tiny.annotation_file.rename(tiny.annotation_file.with_name("panoptic_val2017.json"))
    with pytest.raises(BenchError, match="2 thing classes of 3, coco_panoptic has 80 of 133"):
        open_split("coco_panoptic", "val", tiny.root)


def test_default_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "hcformer-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "hcformer-bench"
