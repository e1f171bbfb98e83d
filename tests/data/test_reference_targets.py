"""What a training sees, by the rules of detectron2 and Mask2Former: crops, sizes, drawn polygons, kept segments."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as codec
from pycocotools.coco import COCO

from bench.data.coco import CocoPanoptic, Sample
from bench.data.coco_instance import CocoInstance
from bench.data.run_lengths import area_inside
from bench.data.transforms import augment
from bench.errors import BenchError
from bench.experiments import RECIPES, experiment, recipe_for
from tests.data.test_coco_instance import Tiny

PANOPTIC, INSTANCE = RECIPES["coco_panoptic", "paper"], RECIPES["coco_instance", "paper"]


def _placed(draws: list[float], old: tuple[int, int], recipe) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size after resizing and top left corner of the crop: ResizeScale, then FixedSizeCrop with one random number."""
    low, high = recipe.scale_range
    wanted = np.multiply(recipe.crop_size, low + (high - low) * draws[1])
    new = np.round(np.multiply(old, np.min(wanted / np.array(old)))).astype(int)
    offset = np.round(np.multiply(np.maximum(new - recipe.crop_size, 0), draws[2])).astype(int)
    return tuple(new.tolist()), tuple(offset.tolist())


@given(st.integers(0, 2**31))
def test_one_number_places_the_crop(seed):
    """An image whose colours are its coordinates shows where it was cut out."""
    columns, rows = np.meshgrid(np.arange(250, dtype=np.uint8), np.arange(200, dtype=np.uint8))
    image = torch.from_numpy(np.stack([rows, columns, columns]))
    sample = Sample(1, image, torch.zeros(0).long(), torch.zeros(0, 200, 250).bool())
    recipe = replace(PANOPTIC, crop_size=(100, 100), scale_range=(2.5, 2.5))
    found = augment(sample, torch.Generator().manual_seed(seed), recipe).image[:, 0, 0].tolist()
    draws = torch.rand(4, generator=torch.Generator().manual_seed(seed)).tolist()
    new, (top, left) = _placed(draws, (200, 250), recipe)
    assert new == (200, 250)
    assert found[:2] == [top, 249 - left if draws[0] < 0.5 else left]


def test_an_image_below_the_crop_stands_on_grey():
    sample = Sample(1, torch.zeros(3, 60, 80, dtype=torch.uint8), torch.tensor([0]), torch.ones(1, 60, 80).bool())
    recipe = replace(PANOPTIC, crop_size=(80, 80), scale_range=(0.5, 0.5))
    result = augment(sample, torch.Generator().manual_seed(0), recipe)
    assert (result.image[:, 30:] == 128).all() and (result.image[:, :30, 40:] == 128).all()
    assert (result.image[:, :30, :40] == 0).all() and result.masks.sum() == 30 * 40


@pytest.mark.parametrize(
    ("dataset", "backbone", "unit", "longest"),
    [("ade20k", "r50", 512, 2048), ("ade20k", "swin_l", 640, 2560), ("cityscapes", "r50", 1024, 4096)],
)
@pytest.mark.parametrize("old", [(512, 683), (333, 500), (1024, 2048), (90, 700), (701, 300)])
def test_sides_are_those_of_the_configuration(monkeypatch, dataset, backbone, unit, longest, old):
    """MIN_SIZE_TRAIN int(0.1 x unit), x = 5..20, chosen evenly; MAX_SIZE_TRAIN; ResizeShortestEdge's rounding."""
    recipe = recipe_for(experiment("hcformer", backbone, dataset, "paper"))
    sample = Sample(1, torch.zeros(3, *old, dtype=torch.uint8), torch.zeros(0).long(), torch.zeros(0, *old).bool())
    seen = []
    monkeypatch.setattr("bench.data.transforms._resized", lambda image, size: seen.append(size) or _blank(size))
    for step in range(16):
        place = torch.tensor([0.9, (step + 0.5) / 16, 0.0, 0.0])
        monkeypatch.setattr(torch, "rand", lambda *_, place=place, **__: place)
        augment(sample, torch.Generator(), replace(recipe, colour_jitter=False))
        side = int((5 + step) * 0.1 * unit)
        scale = side / min(old)
        height, width = (side, scale * old[1]) if old[0] < old[1] else (scale * old[0], side)
        if max(height, width) > longest:
            scale = longest / max(height, width)
            height, width = height * scale, width * scale
        assert seen.pop() == (int(height + 0.5), int(width + 0.5))


def _blank(size: tuple[int, int]) -> torch.Tensor:
    return torch.zeros(3, *size, dtype=torch.uint8)


# Emptied segments


def test_emptied_segments_are_kept_as_empty_targets_where_the_recipe_says_so(synthetic_root):
    sample, generator, emptied = CocoPanoptic(synthetic_root, "val")[0], torch.Generator(), 0
    recipe = replace(PANOPTIC, crop_size=(48, 48), scale_range=(4.0, 4.0))
    for seed in range(10):
        kept = augment(sample, generator.manual_seed(seed), recipe)
        dropped = augment(sample, generator.manual_seed(seed), replace(recipe, keep_emptied=False))
        present = kept.masks.flatten(1).any(1)
        assert torch.equal(kept.labels, sample.labels)
        assert torch.equal(kept.labels[present], dropped.labels) and torch.equal(kept.masks[present], dropped.masks)
        emptied += int((~present).sum())
    assert emptied > 10


# Polygons


@pytest.fixture(scope="module")
def photographs(shared):
    instances = CocoInstance(shared / "data" / "coco", "val2017")
    return instances, instances.for_training(), COCO(str(instances.annotation_file))


def test_polygons_are_drawn_in_the_crop(photographs):
    """pycocotools on the mirrored, scaled and shifted corners, as Mask2Former's mapper of instances does."""
    _, training, coco = photographs
    compared = 0
    for index, sample in enumerate(training):
        for seed in range(3):
            result = augment(sample, torch.Generator().manual_seed(seed), INSTANCE)
            draws = torch.rand(4, generator=torch.Generator().manual_seed(seed)).tolist()
            old = tuple(sample.image.shape[1:])
            new, (top, left) = _placed(draws, old, INSTANCE)
            height, width = min(new[0], 1024), min(new[1], 1024)
            expected = []
            for entry in coco.loadAnns(coco.getAnnIds([training.images[index]["id"]], iscrowd=False)):
                parts = [np.array(part, np.float64).reshape(-1, 2) for part in entry["segmentation"]]
                if draws[0] < 0.5:
                    parts = [np.stack([old[1] - part[:, 0], part[:, 1]], 1) for part in parts]
                parts = [part * (new[1] / old[1], new[0] / old[0]) - (left, top) for part in parts]
                codes = codec.frPyObjects([part.reshape(-1).tolist() for part in parts], height, width)
                expected.append(codec.decode(codes).any(2))
            found = [mask.numpy() for mask in result.masks]
            assert not any(mask[height:].any() or mask[:, width:].any() for mask in found)
            found = [mask[:height, :width] for mask in found if mask.any()]
            expected = [mask for mask in expected if mask.any()]
            assert len(found) == len(expected)
            assert all(np.array_equal(mask, other) for mask, other in zip(found, expected, strict=True))
            compared += len(expected)
    assert compared > 100


def test_images_without_objects_are_not_trained_on(photographs):
    instances, training, coco = photographs
    with_objects = sorted({entry["image_id"] for entry in coco.anns.values() if not entry["iscrowd"]})
    assert [image["id"] for image in training.images] == with_objects
    assert len(training) == len(with_objects) < len(instances)


def test_run_lengths_stay_masks_and_follow_the_outlined(tmp_path):
    tiny = Tiny(tmp_path / "tiny")
    tiny.add(3, {"size": [4, 6], "counts": [0, 12, 12]})
    tiny.add(90, [[0, 0, 6, 0, 6, 4, 0, 4]])
    training = tiny.open().for_training()
    assert [image["id"] for image in training.images] == [9]
    sample = training[0]
    assert len(sample.outlines) == len(sample.labels) - 1 and sample.masks.sum((1, 2)).tolist() == [12]
    recipe = replace(INSTANCE, crop_size=(8, 12), scale_range=(1.0, 1.0))
    result = augment(sample, torch.Generator().manual_seed(0), recipe)
    areas = dict(zip(result.labels.tolist(), result.masks.sum((1, 2)).tolist(), strict=True))
    assert result.labels[-1] == 0 and result.masks[-1].sum() == 48 and areas[1] == 96  # twice as large a side


def test_nothing_to_train_on_is_refused(tmp_path):
    tiny = Tiny(tmp_path / "tiny")
    tiny.annotations = [entry for entry in tiny.annotations if entry["iscrowd"]]
    with pytest.raises(BenchError, match="no objects to train on"):
        tiny.open().for_training()


@pytest.mark.parametrize(
    ("corners", "kept", "pixels"),
    [
        ([2.0, 2, 6, 2, 6, 6, 2, 6], True, 16),
        ([2.0, 2, 2.2, 2, 2.2, 2.2, 2, 2.2], True, 0),  # too thin for a pixel: an empty target
        ([20.0, 2, 26, 2, 26, 6, 20, 6], False, 0),  # beyond the image
        ([-6.0, 2, 0, 2, 0, 6, -6, 6], False, 0),  # touches it
    ],
)
def test_objects_are_kept_where_a_part_is_in_the_crop(corners, kept, pixels):
    outline = [np.array(corners).reshape(-1, 2)]
    image, none = torch.zeros(3, 10, 10, dtype=torch.uint8), torch.zeros(0, 10, 10).bool()
    sample = Sample(1, image, torch.tensor([7]), none, (outline,))
    recipe = replace(INSTANCE, crop_size=(10, 10), scale_range=(1.0, 1.0))
    result = augment(sample, torch.Generator().manual_seed(1), recipe)
    assert result.labels.tolist() == ([7] if kept else []) and result.masks.sum() == pixels


@given(st.lists(st.floats(-20, 30), min_size=4, max_size=4))
def test_area_inside_of_a_rectangle(sides):
    left, right, top, bottom = sides
    inside = [
        max(0.0, min(max(a, b), most) - max(min(a, b), 0)) for a, b, most in ((left, right, 12), (top, bottom, 9))
    ]
    rectangle = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    assert area_inside([rectangle], 9, 12) == pytest.approx(math.prod(inside), abs=1e-9)


def test_area_inside_of_a_hollow_shape():
    """A U whose arms alone reach into the window: what was cut off between them adds nothing."""
    shape = np.array([[1.0, -5], [9, -5], [9, 4], [7, 4], [7, -3], [3, -3], [3, 4], [1, 4]])
    assert area_inside([shape], 10, 10) == pytest.approx(16)
