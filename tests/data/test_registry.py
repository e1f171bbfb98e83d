"""Data sets by name, their roots, and the errors a user meets first."""

from pathlib import Path

import pytest

from bench.data.check import check
from bench.data.coco import fingerprint
from bench.data.registry import dataset_root, default_cache, open_split, split_fingerprint
from bench.errors import BenchError
from bench.experiments.datasets import DATASETS, get_dataset


def test_class_counts():
    coco, synthetic = DATASETS["coco_panoptic"], DATASETS["synthetic_panoptic"]
    assert (coco.num_things, coco.num_stuff, coco.num_classes) == (80, 53, 133)
    assert (synthetic.num_things, synthetic.num_stuff, synthetic.num_classes) == (6, 4, 10)
    assert all(name == info.name for name, info in DATASETS.items())


def test_unknown_name_names_the_nearest():
    with pytest.raises(BenchError, match="did you mean 'coco_panoptic'"):
        get_dataset("coco-panoptic")


def test_open_synthetic_by_role_and_by_name(synthetic_root):
    dataset = open_split("synthetic_panoptic", "val", synthetic_root.parent)
    assert len(dataset) == 100 and dataset[0] is not dataset[0]
    with pytest.raises(BenchError, match="panoptic_test.json"):
        open_split("synthetic_panoptic", "test", synthetic_root.parent)


def test_open_real_coco_by_role(shared):
    dataset = open_split("coco_panoptic", "val", shared / "data" / "coco")
    assert dataset.split == "val2017" and len(dataset) == 4


@pytest.mark.parametrize("name", ["coco_panoptic", "coco_instance", "ade20k", "cityscapes"])
def test_official_layouts_open_by_role(generated_once, name):
    root = generated_once(name)
    for role, split in zip(("train", "val"), DATASETS[name].splits, strict=True):
        dataset = open_split(name, role, root)
        assert (dataset.split, dataset.root, dataset.task, len(dataset)) == (split, root, DATASETS[name].task, 8)
        assert len(dataset.categories) == DATASETS[name].num_classes
        assert split_fingerprint(name, role, root) == split_fingerprint(name, split, root)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("coco_panoptic", "coco"), ("coco_instance", "coco"), ("ade20k", "ade20k"), ("ade20k", "ADEChallengeData2016"),
     ("cityscapes", "cityscapes"), ("camvid", "camvid"), ("nuclei", "nuclei")],
)  # fmt: skip
def test_folder_of_several_data_sets(tmp_path, name, folder):
    info, root = DATASETS[name], tmp_path / folder
    assert dataset_root(name, tmp_path) == tmp_path, "nothing there: the reader names what it looked for"
    (root / info.marker.format(info.val_split)).mkdir(parents=True)
    (tmp_path / "images").mkdir()
    assert dataset_root(name, tmp_path) == root == dataset_root(name, root)
    (tmp_path / info.marker.format(info.train_split)).mkdir(parents=True)
    assert dataset_root(name, tmp_path) == tmp_path, "it is a data set itself"


def test_splits_that_are_evaluated():
    camvid, ade20k = DATASETS["camvid"], DATASETS["ade20k"]
    assert (camvid.val_split, camvid.eval_split, camvid.splits) == ("val", "test", ("train", "val", "test"))
    assert (ade20k.eval_split, ade20k.splits) == ("validation", ("training", "validation"))
    assert ade20k.images["validation"] == 2000 and not DATASETS["synthetic_panoptic"].images
    assert all(set(info.images) in (set(info.splits), set()) for info in DATASETS.values())


def test_official_number_of_coco_images(shared):
    sizes = (shared / "reference" / "coco_val2017_sizes.csv").read_text().splitlines()
    assert {DATASETS[name].images["val2017"] for name in ("coco_panoptic", "coco_instance")} == {len(sizes) - 1}


def test_fingerprint_of_panoptic_data_is_that_of_the_records(synthetic_root):
    for split in ("train", "val"):
        expected = fingerprint(synthetic_root, split)
        assert split_fingerprint("synthetic_panoptic", split, synthetic_root.parent) == expected


def test_fingerprints_of_panoptic_and_instance_labels_differ(generated_once):
    root = generated_once("coco_panoptic")
    assert split_fingerprint("coco_panoptic", "val", root) == fingerprint(root, "val2017")
    assert split_fingerprint("coco_instance", "val", root) == fingerprint(root, "val2017", "instances")
    assert fingerprint(root, "val2017") != fingerprint(root, "val2017", "instances")


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


def nuclei_of(tiny, *categories):
    """The tiny set in the layout of nuclei, with those categories and no segments."""
    tiny.content["categories"] = [
        {"id": id_, "name": name, "isthing": thing} for id_, name, thing in categories
    ]  # fmt: skip
    tiny.content["annotations"][0]["segments_info"] = []
    tiny.save_ids(0 * tiny.ids)
    tiny.save_json()
    return tiny.root


@pytest.mark.parametrize(
    ("categories", "found"),
    [(((1, "cell", 1), (2, "background", 0)), "id 1 'cell' (thing)"),
     (((1, "Nucleus", 1), (2, "background", 0)), "id 1 'Nucleus' (thing)"),
     (((7, "nucleus", 1), (2, "background", 0)), "id 7 'nucleus' (thing)"),
     (((1, "nucleus", 0), (2, "background", 1)), "id 1 'nucleus' (stuff)")],
)  # fmt: skip
def test_data_set_with_other_names_or_ids_is_refused(tiny, categories, found):
    """As many classes as the list has do not make it the same data set."""
    root = nuclei_of(tiny, *categories)
    with pytest.raises(BenchError) as error:
        open_split("nuclei", "val", root)
    assert str(tiny.annotation_file) in str(error.value)
    assert f"{found} in 'categories' where nuclei has id 1 'nucleus' (thing)" in str(error.value)
    assert check("nuclei", root)[1].problems == [str(error.value)]


def test_data_set_with_the_names_of_its_class_list_is_opened(tiny):
    assert len(open_split("nuclei", "val", nuclei_of(tiny, (1, "nucleus", 1), (2, "background", 0)))) == 1


def test_cache_that_cannot_be_made_names_the_variable(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(BenchError, match="set XDG_CACHE_HOME"):
        default_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    with pytest.raises(BenchError, match="set XDG_CACHE_HOME"):
        default_cache()


def test_default_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "hcformer-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "hcformer-bench"
