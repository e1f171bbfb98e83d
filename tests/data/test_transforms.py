"""Preprocessing against numbers by hand; augmentation against torchvision's transforms on tv_tensors."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from bench.data import transforms
from bench.data.coco import CocoPanoptic, Sample
from bench.data.transforms import augment, preprocess, resize_image, resized_size
from bench.experiments import RECIPES

SMALL = RECIPES["synthetic_panoptic", "small"]
MEAN_COLOUR = (124, 116, 104)


def _random(height: int, width: int, disjoint: bool = True, segments: int = 5) -> Sample:
    """Noise, and masks of rectangles of random size: disjoint ones (void in between) or overlapping ones."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    masks = torch.zeros(segments, height, width, dtype=torch.bool)
    for mask in masks:
        ends = torch.rand(4, generator=generator) * torch.tensor([height, height, width, width])
        top, bottom, left, right = ends.int().tolist()
        mask[min(top, bottom) : max(top, bottom) + 1, min(left, right) : max(left, right) + 1] = True
    if disjoint:
        masks &= masks.cumsum(0) == 1
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return Sample(1, image, torch.arange(segments), masks)


def _recipe(**changes):
    return replace(SMALL, **({"scale_range": (0.5, 2.0)} | changes))


def _expected(sample: Sample, draws: list[float], recipe) -> Sample:
    """Resized, mirrored, cropped, padded in turn by torchvision, on whole images."""
    mirrored, factor, top, left = draws
    low, high = recipe.scale_range
    size = resized_size(*sample.image.shape[1:], low + (high - low) * factor, recipe.crop_size, recipe.resize_mode)
    image = F.resize(tv_tensors.Image(sample.image), list(size), InterpolationMode.BILINEAR, antialias=True)
    masks = tv_tensors.Mask(F.resize(sample.masks.byte(), list(size), InterpolationMode.NEAREST_EXACT))
    height, width = (min(pair) for pair in zip(size, recipe.crop_size, strict=True))
    window = (int(top * (size[0] - height + 1)), int(left * (size[1] - width + 1)), height, width)
    edges = [0, 0, recipe.crop_size[1] - width, recipe.crop_size[0] - height]
    if mirrored < 0.5:
        image, masks = F.horizontal_flip(image), F.horizontal_flip(masks)
    image, masks = F.crop(image, *window), F.crop(masks, *window)
    image, masks = F.pad(image, edges, fill=list(MEAN_COLOUR)), F.pad(masks, edges).bool()
    kept = masks.flatten(1).any(1)
    return Sample(sample.image_id, torch.as_tensor(image), sample.labels[kept], torch.as_tensor(masks[kept]))


def _assert_same(one: Sample, two: Sample) -> None:
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.labels, two.labels) and torch.equal(one.masks, two.masks)


def test_preprocess_by_hand():
    image = torch.zeros(3, 2, 3, dtype=torch.uint8)
    image[:, 0, 0] = torch.tensor([255, 128, 0])
    batch = preprocess([image])
    assert batch.shape == (1, 3, 32, 32) and batch.dtype == torch.float32
    expected = [(255 - 123.675) / 58.395, (128 - 116.28) / 57.12, -103.53 / 57.375]
    torch.testing.assert_close(batch[0, :, 0, 0], torch.tensor(expected))
    assert (batch[:, :, 2:] == 0).all() and (batch[:, :, :, 3:] == 0).all()
    assert (batch[:, :, :2, :3] != 0).all()


def test_preprocess_pads_to_the_batch_maximum():
    images = [torch.full((3, 40, 20), 255.0), torch.full((3, 10, 64), 255.0)]
    batch = preprocess(images)
    assert batch.shape == (2, 3, 64, 64)
    assert preprocess(images, divisor=1).shape == (2, 3, 40, 64)
    torch.testing.assert_close(batch[1:, :, :32], preprocess(images[1:]), rtol=0, atol=0)


def test_preprocess_batched_equals_single():
    images = [torch.randint(0, 256, (3, 48, 33), dtype=torch.uint8) for _ in range(3)]
    singles = torch.cat([preprocess([image]) for image in images])
    torch.testing.assert_close(preprocess(images), singles, rtol=0, atol=0)


@pytest.mark.parametrize("images", [[], [torch.zeros(1, 4, 4)], [torch.zeros(1, 3, 4, 4)]])
def test_preprocess_rejects_other_shapes(images):
    with pytest.raises(ValueError, match="expected images"):
        preprocess(images)


SIDES = st.integers(1, 90)
MODES = st.sampled_from(["scale", "shorter_side"])


@given(SIDES, SIDES, st.integers(4, 70), st.integers(4, 70), MODES, st.booleans(), st.integers(0, 2**31))
def test_augmentation_is_torchvisions(height, width, crop_height, crop_width, mode, disjoint, seed):
    sample = _random(height, width, disjoint)
    recipe = _recipe(crop_size=(crop_height, crop_width), resize_mode=mode)
    generator = torch.Generator().manual_seed(seed)
    result = augment(sample, generator, recipe)
    again = torch.Generator().manual_seed(seed)
    expected = _expected(sample, torch.rand(4, generator=again).tolist(), recipe)
    _assert_same(result, expected)
    assert torch.equal(generator.get_state(), again.get_state())


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 1)])
def test_down_to_a_pixel(size):
    recipe, generator = _recipe(crop_size=(1, 1)), torch.Generator().manual_seed(0)
    for _ in range(20):  # torch 2.11 cannot resize to one pixel with the channels apart in memory
        assert augment(_random(*size), generator, recipe).image.shape == (3, 1, 1)


@pytest.mark.parametrize("mode", ["scale", "shorter_side"])
def test_masks_follow_the_image(mode):
    """A white square on black is its own mask, wherever and however large it ends up."""
    image, square = torch.zeros(3, 60, 80, dtype=torch.uint8), torch.zeros(1, 60, 80, dtype=torch.bool)
    square[0, 10:44, 30:70] = True
    image[:, square[0]] = 255
    sample = Sample(1, image, torch.tensor([4]), square)
    generator, found = torch.Generator().manual_seed(0), 0
    for _ in range(50):
        result = augment(sample, generator, _recipe(crop_size=(48, 64), resize_mode=mode))
        inside = (result.image == torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None]).all(0)
        bright = (result.image[0] > 127) & ~inside
        mask = result.masks[0] if len(result.masks) else torch.zeros(48, 64, dtype=torch.bool)
        edge = mask.float()[None].sub(F.gaussian_blur(mask.float()[None], 3)).abs()[0] > 1e-6
        assert torch.equal(bright[~edge], mask[~edge])
        found += bool(mask.any())
    assert found > 30


def test_large_scale_jitter_sizes_by_hand():
    assert resized_size(480, 640, 1.0, (1024, 1024), "scale") == (768, 1024)
    assert resized_size(480, 640, 0.1, (1024, 1024), "scale") == (77, 102)
    assert resized_size(640, 480, 2.0, (1024, 1024), "scale") == (2048, 1536)
    assert resized_size(100, 100, 1.0, (512, 1024), "scale") == (512, 512)


def test_shorter_side_sizes_by_hand():
    assert resized_size(512, 683, 0.5, (512, 512), "shorter_side") == (256, 342)
    assert resized_size(683, 512, 2.0, (512, 512), "shorter_side") == (1366, 1024)
    assert resized_size(1024, 2048, 1.0, (512, 1024), "shorter_side") == (512, 1024)  # Cityscapes at half its size
    assert resized_size(1024, 2048, 4.0, (512, 1024), "shorter_side") == (2048, 4096)  # and at twice its size
    assert resized_size(1, 9000, 0.5, (1, 1), "shorter_side") == (1, 4500)
    with pytest.raises(ValueError, match="resize_mode 'longer'"):
        resized_size(1, 1, 1.0, (1, 1), "longer")


def test_scales_cover_the_range_evenly():
    """The mask of a whole image shows how large it was resized to."""
    sample = Sample(1, torch.zeros(3, 50, 50, dtype=torch.uint8), torch.tensor([0]), torch.ones(1, 50, 50).bool())
    recipe, generator = _recipe(crop_size=(100, 100), scale_range=(0.1, 1.0)), torch.Generator().manual_seed(0)
    sides = torch.tensor([augment(sample, generator, recipe).masks[0, 0].sum() for _ in range(600)]).float()
    assert sides.min() <= 12 and sides.max() >= 98
    assert sides.mean() == pytest.approx(55, abs=2.5)


def test_crops_reach_every_place():
    sample = Sample(1, torch.zeros(3, 4, 6, dtype=torch.uint8), torch.arange(24), torch.eye(24).bool().view(24, 4, 6))
    recipe, generator = _recipe(crop_size=(2, 3), scale_range=(2.0, 2.0)), torch.Generator().manual_seed(0)
    corners = [min(augment(sample, generator, recipe).labels.tolist()) for _ in range(300)]
    assert set(corners) == {6 * row + column for row in range(3) for column in range(4)}


def test_padding_is_void_and_has_the_mean_colour():
    sample = Sample(1, torch.full((3, 10, 20), 200, dtype=torch.uint8), torch.tensor([0]), torch.ones(1, 10, 20).bool())
    result = augment(sample, torch.Generator().manual_seed(0), _recipe(crop_size=(40, 40), scale_range=(0.5, 0.5)))
    assert result.masks[0, :10, :20].all() and result.masks.sum() == 200
    assert (result.image[:, :10, :20] == 200).all()
    assert (result.image[:, 20:, 20:] == torch.tensor(MEAN_COLOUR)[:, None, None]).all()
    assert preprocess([result.image])[0, :, 20:, 20:].abs().max() < 0.01


def test_augmentation_depends_only_on_its_generator(synthetic_root):
    sample = CocoPanoptic(synthetic_root, "val")[0]
    before = sample.image.clone()
    for recipe in (_recipe(crop_size=(128, 128)), _recipe(colour_jitter=True)):
        first, second = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
        torch.manual_seed(0)
        one = [augment(sample, first, recipe) for _ in range(3)]
        torch.manual_seed(1)
        two = [augment(sample, second, recipe) for _ in range(3)]
        for a, b in zip(one, two, strict=True):
            _assert_same(a, b)
        assert not torch.equal(one[0].image, one[1].image)
    assert torch.equal(sample.image, before)
    whole = _recipe(crop_size=(128, 128), scale_range=(1.0, 1.0))
    flips = {bool((augment(sample, first, whole).image == sample.image).all()) for _ in range(20)}
    assert flips == {True, False}  # at scale 1 only the flip is left


def test_colours_change_the_image_alone(synthetic_root):
    sample = CocoPanoptic(synthetic_root, "val")[0]
    plain = augment(sample, torch.Generator().manual_seed(1), _recipe())
    coloured = augment(sample, torch.Generator().manual_seed(1), _recipe(colour_jitter=True))
    assert torch.equal(plain.masks, coloured.masks) and torch.equal(plain.labels, coloured.labels)
    assert not torch.equal(plain.image, coloured.image)


def test_padding_is_not_coloured():
    recipe = _recipe(crop_size=(40, 40), scale_range=(0.5, 0.5), colour_jitter=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        image = augment(_random(20, 20), generator, recipe).image
        assert (image[:, 20:] == torch.tensor(MEAN_COLOUR)[:, None, None]).all()


def test_small_recipe_of_the_reference_store_is_unchanged(synthetic_root):
    """Committed records were trained with these numbers: flip at 0.25, the window at (20, 7) of an image of 128."""
    sample, place = CocoPanoptic(synthetic_root, "val")[1], torch.tensor([0.25, 0.5, 20.5 / 33, 7.5 / 33])
    mirrored = F.horizontal_flip(sample.image)[:, 20:116, 7:103]
    masks = F.horizontal_flip(sample.masks)[:, 20:116, 7:103]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: place)
        result = augment(sample, torch.Generator(), SMALL)
    kept = masks.flatten(1).any(1)
    _assert_same(result, Sample(sample.image_id, mirrored, sample.labels[kept], masks[kept]))


@pytest.mark.parametrize("colour_jitter", [False, True])
def test_sample_without_segments(colour_jitter):
    empty = Sample(1, torch.zeros(3, 20, 30, dtype=torch.uint8), torch.zeros(0).long(), torch.zeros(0, 20, 30).bool())
    recipe = _recipe(crop_size=(32, 64), colour_jitter=colour_jitter)
    result = augment(empty, torch.Generator().manual_seed(0), recipe)
    assert result.labels.shape == (0,) and result.labels.dtype == torch.int64
    assert result.masks.shape == (0, 32, 64) and result.masks.dtype == torch.bool


@pytest.mark.parametrize("dataset", ["coco_panoptic", "ade20k", "cityscapes", "camvid", "nuclei"])
def test_every_recipe_on_a_photograph(shared, dataset):
    recipe = next(recipe for (name, _), recipe in RECIPES.items() if name == dataset)
    generator = torch.Generator().manual_seed(0)
    for sample in CocoPanoptic(shared / "data" / "coco", "val2017"):
        result = augment(sample, generator, recipe)
        assert result.image.shape == (3, *recipe.crop_size) and result.image.dtype == torch.uint8
        assert result.masks.shape[1:] == recipe.crop_size and len(result.masks) == len(result.labels)
        present = result.masks.flatten(1).any(1)
        assert len(present) == len(sample.labels) if recipe.keep_emptied else present.all()
        assert (result.masks.sum(0) <= 1).all()


def test_extreme_shapes_keep_a_pixel():
    assert transforms.size_at_test(1, 5000, 800, 1333) == (1, 1333)
    assert tuple(resize_image(torch.zeros(3, 5000, 1, dtype=torch.uint8), 800, 1333).shape) == (3, 1333, 1)
