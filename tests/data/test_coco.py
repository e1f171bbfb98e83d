"""The reader: official files, odd but legal input, and a clear line for everything that is wrong."""

import io
import json
import random
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data.coco import CocoPanoptic, fingerprint, read_rgb
from bench.errors import BenchError
from tests.data.conftest import TinyCoco


def test_real_coco_labels(shared):
    root = shared / "data" / "coco"
    dataset = CocoPanoptic(root, "val2017")
    assert len(dataset) == 4 and len(dataset.categories) == 133
    assert sum(category.is_thing for category in dataset.categories) == 80
    assert dataset.instance_file == root / "annotations" / "instances_val2017.json"
    sample = dataset[3]  # the photo of two cats, two remotes and a couch: its labels are the official ones
    names = sorted(dataset.categories[label].name for label in sample.labels)
    assert (sample.image_id, names.count("cat"), names.count("remote"), names.count("couch")) == (39769, 2, 2, 1)
    content = json.loads(dataset.annotation_file.read_bytes())
    (infos,) = (entry["segments_info"] for entry in content["annotations"] if entry["image_id"] == 39769)
    infos = {tuple(info["bbox"]): info for info in infos}
    for label, mask in zip(sample.labels, sample.masks, strict=True):
        rows, columns = torch.where(mask)
        box = (columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1)
        info = infos[tuple(int(value) for value in box)]
        assert info["area"] == mask.sum() and info["category_id"] == dataset.categories[label].id
    assert (sample.masks.sum(0) <= 1).all() and sample.image.shape[1:] == sample.masks.shape[1:] == (480, 640)


def test_nuclei_has_two_classes(shared):
    dataset = CocoPanoptic(shared / "data" / "nuclei", "val")
    assert [category.is_thing for category in dataset.categories].count(True) == 1
    assert len(dataset) == 88 and len(dataset[0].labels) > 1


def test_tiny_sample_by_hand(tiny):
    dataset = CocoPanoptic(tiny.root, "val")
    assert [category.id for category in dataset.categories] == [3, 17, 90]
    assert dataset.instance_file is None
    sample = dataset[0]
    assert sample.image_id == 7 and sample.labels.tolist() == [1, 2]  # cat, wall; the crowd of cars is no target
    assert sample.labels.dtype == torch.int64 and sample.masks.dtype == torch.bool
    assert sample.masks[0].tolist() == [[False, False, True, True, False, False]] * 4
    assert sample.masks[1].tolist() == [[True, True, False, False, False, False]] * 4
    assert sample.image.dtype == torch.uint8 and sample.image[:, 1, 0].tolist() == [18, 19, 20]


def test_cached_samples_are_equal_and_not_shared(tiny):
    plain, cached = CocoPanoptic(tiny.root, "val")[0], CocoPanoptic(tiny.root, "val", cache=True)
    for _ in range(2):
        sample = cached[0]
        for field in ("image", "labels", "masks"):
            assert torch.equal(getattr(sample, field), getattr(plain, field))
            getattr(sample, field).zero_()  # a careless user does not spoil the next epoch


def test_label_map_by_hand(tiny):
    """The crowd of cars has its class, as in the semantic labels that detectron2 makes of panoptic ones."""
    dataset = CocoPanoptic(tiny.root, "val")
    assert dataset.label_map(0).tolist() == [[2, 2, 1, 1, 0, 255]] * 4
    assert dataset.files(0) == [tiny.image, tiny.png] and dataset.task == "panoptic"
    tiny.content["annotations"] = []
    tiny.save_json()
    dataset = CocoPanoptic(tiny.root, "val")
    assert (dataset.label_map(0) == 255).all() and dataset.label_map(0).shape == (4, 6)
    assert dataset.files(0) == [tiny.image]


@given(
    ids=st.lists(st.sampled_from([0, 1, 255, 256, 70_000, 2**24 - 1]), min_size=24, max_size=24),
    listed=st.permutations([1, 255, 256, 70_000, 2**24 - 1, 5, 7]),
    crowds=st.lists(st.booleans(), min_size=7, max_size=7),
)
def test_masks_are_the_pixels_of_each_listed_segment(tmp_path_factory, ids, listed, crowds):
    tiny, ids = TinyCoco(tmp_path_factory.mktemp("random") / "tiny"), np.array(ids).reshape(4, 6)
    tiny.content["annotations"][0]["segments_info"] = [
        {"id": id_, "category_id": (3, 17, 90)[position % 3], "iscrowd": int(crowd)}
        for position, (id_, crowd) in enumerate(zip(listed, crowds, strict=True))
    ]
    tiny.save_json()
    tiny.save_ids(ids)
    sample = CocoPanoptic(tiny.root, "val")[0]
    expected = [
        (position % 3, (ids == id_).tolist())
        for position, (id_, crowd) in enumerate(zip(listed, crowds, strict=True))
        if not crowd and id_ in ids
    ]
    assert [(int(k), mask.tolist()) for k, mask in zip(sample.labels, sample.masks, strict=True)] == expected


def test_incomplete_data_set_opens_where_it_may(tiny):
    tiny.image.unlink()
    dataset = CocoPanoptic(tiny.root, "val", complete=False)
    assert dataset.missing() == [tiny.image] and dataset.label_map(0).shape == (4, 6)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1"])
def test_colour_modes_become_rgb(tiny, mode):
    suffix = "JPEG" if mode == "CMYK" else "PNG"
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(tiny.image, suffix)
    image = CocoPanoptic(tiny.root, "val")[0].image
    assert image.shape == (3, 4, 6) and image.min() >= 250


def test_exif_rotation_turns_the_image_upright(tiny):
    upright = Image.fromarray(np.repeat(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6, 1), 3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(tiny.image, exif=exif)
    assert np.array_equal(CocoPanoptic(tiny.root, "val")[0].image[0].numpy(), np.asarray(upright)[..., 0])


@pytest.mark.parametrize("annotated", [True, False])
def test_image_without_segments(tiny, annotated):
    tiny.save_ids(np.zeros((4, 6), int))
    tiny.content["annotations"][0]["segments_info"] = []
    if not annotated:
        tiny.content["annotations"] = []
    tiny.save_json()
    sample = CocoPanoptic(tiny.root, "val")[0]
    assert sample.labels.shape == (0,) and sample.masks.shape == (0, 4, 6)


def test_listed_segment_without_pixels_is_dropped(tiny):
    tiny.save_ids(np.where(tiny.ids == 300, 0, tiny.ids))
    assert CocoPanoptic(tiny.root, "val")[0].labels.tolist() == [1]


def _drop(key):
    return lambda tiny: tiny.content.pop(key)


def _set_category(tiny):
    tiny.content["annotations"][0]["segments_info"][0]["category_id"] = 4


def _categories_with(change):
    def damage(tiny):
        known = tiny.content["categories"]
        tiny.content["categories"] = [*known, known[0] | change]

    return damage


BROKEN_ANNOTATIONS = {
    "images": (_drop("images"), "no list 'images'"),
    "annotations": (_drop("annotations"), "no list 'annotations'"),
    "categories": (_drop("categories"), "no list 'categories'"),
    "instance file": (lambda t: t.content["annotations"][0].pop("segments_info"), "'segments_info'"),
    "isthing": (lambda t: t.content.update(categories=[{"id": 1, "name": "x"}]), "'isthing'"),
    "no images": (lambda t: t.content.update(images=[]), "lists no images"),
    "wrong type": (lambda t: t.content["images"][0].update(id="7"), "'id'"),
    "entry": (lambda t: t.content.update(images=[3]), "'id'"),
    "category": (_set_category, "category id 4"),
    "twice": (lambda t: t.content["images"].append(t.content["images"][0]), "image 7 twice"),
    "annotated twice": (lambda t: t.content["annotations"].append(t.content["annotations"][0]), "image 7 twice"),
    "label of 8 bits": (_categories_with({"id": 256}), "from 1 to 255"),
    "one id": (_categories_with({}), "must be different"),
    "image id": (lambda t: t.content["annotations"][0].update(image_id=8), "image 8"),
}


def _check_error(error: pytest.ExceptionInfo, *words: object) -> None:
    message = str(error.value)
    assert "\n" not in message and all(str(word) in message for word in words), message


@pytest.mark.parametrize("case", BROKEN_ANNOTATIONS)
def test_annotation_file_with_missing_keys(tiny, case):
    damage, word = BROKEN_ANNOTATIONS[case]
    damage(tiny)
    tiny.save_json()
    with pytest.raises(BenchError) as error:
        CocoPanoptic(tiny.root, "val")
    _check_error(error, tiny.annotation_file, word)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"])
def test_annotation_file_that_is_no_coco_json(tiny, text):
    tiny.annotation_file.write_bytes(text)
    with pytest.raises(BenchError) as error:
        CocoPanoptic(tiny.root, "val")
    _check_error(error, tiny.annotation_file, "download")


@pytest.mark.parametrize("name", ["annotation_file", "image", "png"])
def test_missing_file_is_named_at_once(tiny, name):
    path = getattr(tiny, name)
    path.unlink()
    with pytest.raises(BenchError) as error:
        CocoPanoptic(tiny.root, "val")
    _check_error(error, path)


@pytest.mark.parametrize("name", ["image", "png"])
def test_missing_folder_is_named_at_once(tiny, name):
    folder = getattr(tiny, name).parent
    shutil.rmtree(folder)
    with pytest.raises(BenchError) as error:
        CocoPanoptic(tiny.root, "val")
    _check_error(error, folder)


@pytest.mark.parametrize("name", ["image", "png"])
def test_file_that_vanishes_or_breaks_later(tiny, name):
    dataset, path = CocoPanoptic(tiny.root, "val"), getattr(tiny, name)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BenchError) as error:
        dataset[0]
    _check_error(error, path, "cannot be read")
    path.unlink()
    with pytest.raises(BenchError) as error:
        dataset[0]
    _check_error(error, path, "missing")


def test_panoptic_png_of_another_size(tiny):
    tiny.save_ids(tiny.ids[:, :5])
    with pytest.raises(BenchError) as error:
        CocoPanoptic(tiny.root, "val")[0]
    _check_error(error, tiny.png, tiny.image, "5x4", "6x4")


def test_segment_id_that_the_annotations_do_not_list(tiny):
    tiny.save_ids(np.where(tiny.ids == 300, 301, tiny.ids))
    with pytest.raises(BenchError) as error:
        CocoPanoptic(tiny.root, "val")[0]
    _check_error(error, tiny.png, "301", tiny.annotation_file)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on damaged EXIF data
def test_damaged_images_raise_nothing_else(tmp_path):
    """Cut and flipped bytes of PNG and JPEG: a picture or a BenchError of one line."""
    rng, files = random.Random(0), []
    picture = Image.fromarray(np.arange(40 * 30 * 3).reshape(30, 40, 3).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG"):
        picture.save(buffer := io.BytesIO(), kind, exif=exif)
        files.append(buffer.getvalue())
    path, errors = tmp_path / "x", 0
    for number in range(300):
        data = bytearray(files[number % 2])
        if number % 3 == 0:
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(rng.choice((1, 3, 20))):
                data[rng.randrange(min(len(data), rng.choice((60, 300, 10**6))))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            assert read_rgb(path).ndim == 3
        except BenchError as error:
            errors += 1
            assert "\n" not in str(error)
    assert errors > 50


def test_fingerprint_follows_annotations_and_images(tiny):
    first = fingerprint(tiny.root, "val")
    assert first == fingerprint(tiny.root, "val") and len(first) == 64
    tiny.image.write_bytes(tiny.image.read_bytes() + b"x")
    second = fingerprint(tiny.root, "val")
    tiny.content["annotations"][0]["segments_info"].pop()
    tiny.save_json()
    assert len({first, second, fingerprint(tiny.root, "val")}) == 3
    tiny.image.unlink()
    with pytest.raises(BenchError, match="missing"):
        fingerprint(tiny.root, "val")
