"""The semantic readers against the official label tables and hand-made files in the official layouts."""

import json

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import labels as official_labels
from cityscapesscripts.preparation.json2labelImg import json2labelImg
from PIL import Image

from bench.data.registry import open_split, split_fingerprint
from bench.errors import BenchError
from bench.experiments.datasets import DATASETS

PLACES = {  # split, image, label image, the class that a value stands for
    "ade20k": ("validation", "images/validation/ADE_val_00000001.jpg", "annotations/validation/ADE_val_00000001.png"),
    "camvid": ("test", "images/test/x.jpg", "annotations/test/x.png"),
    "cityscapes": ("val", "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png",
                   "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png"),
}  # fmt: skip
VALUES = {
    "ade20k": {0: 255} | {value: value - 1 for value in range(1, 151)},
    "camvid": dict(enumerate([*range(11), 255])),
    "cityscapes": {label.id: label.trainId for label in official_labels if label.id >= 0},
}
UNKNOWN = {"ade20k": 151, "camvid": 12, "cityscapes": 34}


@pytest.fixture
def place(tmp_path):
    """place(name, label values [H, W], image) -> path of the label image in a data set of this one pair."""

    def write(name, values, image=None):
        _, photo, labels = PLACES[name]
        for path in (photo, labels):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        values = np.asarray(values)
        image = image or Image.new("RGB", values.shape[::-1], (10, 20, 30))
        image.save(tmp_path / photo, quality=95)
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / labels)
        return tmp_path / labels

    return write


def open_only(name, root):
    return open_split(name, PLACES[name][0], root)


@pytest.mark.parametrize("name", PLACES)
def test_every_label_has_the_class_of_the_official_table(place, tmp_path, name):
    values = np.array([list(VALUES[name])] * 2)
    place(name, values)
    dataset = open_only(name, tmp_path)
    assert len(dataset.categories) == DATASETS[name].num_classes and dataset.task == "semantic"
    expected = np.vectorize(VALUES[name].get)(values)
    assert np.array_equal(dataset.label_map(0), expected) and dataset.label_map(0).dtype == np.uint8
    sample = dataset[0]
    assert sample.labels.tolist() == list(range(len(dataset.categories))) and sample.labels.dtype == torch.int64
    assert np.array_equal(sample.masks.numpy(), expected == np.arange(len(dataset.categories))[:, None, None])
    assert sample.image[:, 0, 0].tolist() == pytest.approx([10, 20, 30], abs=2)
    assert dataset.images == [{"id": 1, "file_name": dataset.images[0]["file_name"]}]
    assert dataset.image_dir / dataset.images[0]["file_name"] == tmp_path / PLACES[name][1] == dataset.files(0)[0]


@pytest.mark.parametrize("name", PLACES)
def test_image_of_which_all_is_ignored(place, tmp_path, name):
    ignored = next(value for value, label in VALUES[name].items() if label == 255)
    place(name, np.full((2, 3), ignored))
    sample = open_only(name, tmp_path)[0]
    assert sample.labels.shape == (0,) and sample.masks.shape == (0, 2, 3)
    assert (open_only(name, tmp_path).label_map(0) == 255).all()


@pytest.mark.parametrize("name", PLACES)
def test_label_that_the_data_set_does_not_have(place, tmp_path, name):
    path = place(name, [[1, UNKNOWN[name]]])
    with pytest.raises(BenchError, match=rf"{path.name} has label {UNKNOWN[name]}"):
        open_only(name, tmp_path)[0]


@pytest.mark.parametrize("kind", ["palette", "16 bits"])
def test_palette_and_16_bits(place, tmp_path, kind):
    path, values = place("ade20k", [[0]]), np.array([[0, 1, 150]])
    Image.new("L", (3, 1)).save(tmp_path / PLACES["ade20k"][1])
    image = Image.fromarray(values.astype(np.uint16 if kind == "16 bits" else np.uint8))
    if kind == "palette":
        image.putpalette([255 - value % 256 for value in range(768)])
    image.save(path)
    assert open_only("ade20k", tmp_path).label_map(0).tolist() == [[255, 0, 149]]
    assert open_only("ade20k", tmp_path)[0].labels.tolist() == [0, 149]


def test_values_beyond_8_bits_do_not_wrap_around(place, tmp_path):
    path = place("ade20k", [[1]])
    Image.fromarray(np.array([[257]], np.uint16)).save(path)
    with pytest.raises(BenchError, match="values from 257 to 257"):
        open_only("ade20k", tmp_path).label_map(0)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P"])
def test_photographs_become_rgb(place, tmp_path, mode):
    image = Image.new("RGB", (3, 2), (204, 204, 204)).convert(mode)
    place("ade20k", np.ones((2, 3)), image.convert("RGB") if mode == "P" else image)
    if mode == "P":
        image.save(tmp_path / PLACES["ade20k"][1], "PNG")
    assert open_only("ade20k", tmp_path)[0].image.float().sub(204).abs().max() <= 3


def test_photograph_turned_by_its_exif_flag(place, tmp_path):
    path = place("ade20k", np.ones((2, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2, 3)).save(tmp_path / PLACES["ade20k"][1], exif=exif)
    assert open_only("ade20k", tmp_path)[0].image.shape == (3, 2, 3)
    Image.new("RGB", (2, 3)).save(tmp_path / PLACES["ade20k"][1])
    with pytest.raises(BenchError, match=rf"{path.name} is 3x2 but its image .* is 2x3"):
        open_only("ade20k", tmp_path)[0]


def test_cityscapes_label_map_is_what_cityscapesscripts_draws(generated_once, tmp_path):
    dataset, drawn = open_split("cityscapes", "val", generated_once("cityscapes")), tmp_path / "drawn.png"
    for index in range(len(dataset)):
        label = dataset.files(index)[1]
        json2labelImg(str(label).replace("_labelIds.png", "_polygons.json"), str(drawn), "trainIds")
        assert np.array_equal(dataset.label_map(index), np.asarray(Image.open(drawn)))


def test_cityscapes_from_train_ids_alone(place, tmp_path):
    path = place("cityscapes", [[7, 33, 0]])
    label_ids = open_only("cityscapes", tmp_path)[0]
    Image.fromarray(np.array([[0, 18, 255]], np.uint8)).save(str(path).replace("labelIds", "labelTrainIds"))
    assert open_only("cityscapes", tmp_path).files(0)[1] == path  # the official files come first
    path.unlink()
    train_ids = open_only("cityscapes", tmp_path)[0]
    assert torch.equal(label_ids.labels, train_ids.labels) and torch.equal(label_ids.masks, train_ids.masks)


def test_cityscapes_with_polygons_alone_names_the_command(place, tmp_path):
    path = place("cityscapes", [[7]])
    path.with_name(path.name.replace("labelIds.png", "polygons.json")).write_text("{}")
    path.unlink()
    with pytest.raises(BenchError, match="labelIds.png is missing .1 of 1 .*'bench data prepare cityscapes'"):
        open_only("cityscapes", tmp_path)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("part", [1, 2])
def test_missing_file_and_folder_are_named_at_once(place, tmp_path, name, part):
    place(name, [[1]])
    path = tmp_path / PLACES[name][part]
    path.unlink()
    with pytest.raises(BenchError, match=rf"^(?!.*\n).*{path.name} is missing"):
        open_only(name, tmp_path)
    while path.parent != tmp_path:
        path = path.parent
        path.rmdir() if not any(path.iterdir()) else None
    with pytest.raises(BenchError, match="no folder "):
        open_only(name, tmp_path)


@pytest.mark.parametrize("part", [1, 2])
def test_broken_file_is_named_on_access(place, tmp_path, part):
    place("camvid", np.ones((30, 30)))
    path, dataset = tmp_path / PLACES["camvid"][part], open_only("camvid", tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BenchError, match=rf"{path.name} cannot be read"):
        dataset[0]


@pytest.mark.parametrize("part", [1, 2])
def test_fingerprint_follows_names_and_sizes(place, tmp_path, part):
    place("camvid", [[1]])
    first = split_fingerprint("camvid", "test", tmp_path)
    assert first == split_fingerprint("camvid", "test", tmp_path) and len(first) == 64
    path = tmp_path / PLACES["camvid"][part]
    path.write_bytes(path.read_bytes() + b"x")
    assert split_fingerprint("camvid", "test", tmp_path) != first
    path.unlink()
    with pytest.raises(BenchError, match="is missing"):
        split_fingerprint("camvid", "test", tmp_path)


def test_real_camvid(shared):
    root = shared / "data" / "camvid"
    for split, count in DATASETS["camvid"].images.items():
        dataset = open_split("camvid", split, root)
        assert len(dataset) == count
        for index in range(0, count, 40):
            sample, name = dataset[index], dataset.images[index]["file_name"]
            values = np.asarray(Image.open(root / "annotations" / split / f"{name[:-4]}.png"))
            assert sample.labels.tolist() == [value for value in np.unique(values) if value != 11]
            assert sample.masks.sum((1, 2)).tolist() == [(values == label).sum() for label in sample.labels.tolist()]
            assert np.array_equal(sample.image[0], np.asarray(Image.open(root / "images" / split / name))[..., 0])
    classes = json.loads((root / "classes.json").read_bytes())
    assert [category.name for category in dataset.categories] == classes["classes"]


def test_generated_ade20k_is_read_in_order(generated_once):
    dataset = open_split("ade20k", "train", generated_once("ade20k"))
    assert [image["id"] for image in dataset.images] == list(range(1, 9))
    assert [image["file_name"] for image in dataset.images] == sorted(image["file_name"] for image in dataset.images)
    for sample in dataset:
        assert (sample.masks.sum(0) <= 1).all() and sample.masks.flatten(1).any(1).all()
        assert sample.labels.tolist() == sorted(set(sample.labels.tolist()))
