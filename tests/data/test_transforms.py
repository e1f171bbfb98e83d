"""Preprocessing against numbers by hand; augmentation keeps image, masks and labels together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import transforms
from bench.data.coco import CocoPanoptic, Sample
from bench.data.transforms import augment, crop_or_pad, flip, preprocess, resize, resize_image


def _coded(height: int, width: int, cell: int = 8) -> Sample:
    """Stripes of grey 20, 60, 100, ...: the grey of a pixel tells which mask it must belong to."""
    count = -(-width // cell)
    position = torch.arange(width) // cell
    masks = (position[None, None] == torch.arange(count)[:, None, None]).expand(-1, height, -1)
    image = (20 + 40 * (position % 6)).to(torch.uint8)[None, None].expand(3, height, width)
    return Sample(1, image.contiguous(), torch.arange(count), masks.contiguous())


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


def test_flip_twice_is_the_identity():
    sample = _coded(16, 44)
    once, twice = flip(sample), flip(flip(sample))
    assert torch.equal(twice.image, sample.image) and torch.equal(twice.masks, sample.masks)
    assert torch.equal(once.image[:, :, 0], sample.image[:, :, -1])
    assert torch.equal(once.masks[:, :, 0], sample.masks[:, :, -1])


def test_resize_to_the_same_size_is_the_identity():
    sample = _coded(24, 40)
    same = resize(sample, 40)
    assert torch.equal(same.image, sample.image) and torch.equal(same.masks, sample.masks)
    assert resize(sample, 20).image.shape == (3, 12, 20)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(5, 90), width=st.integers(5, 90), seed=st.integers(0, 2**31), scale=st.floats(0.5, 2.0))
def test_augmented_masks_follow_the_image(height, width, seed, scale):
    sample = _coded(height, width)
    result = augment(sample, torch.Generator().manual_seed(seed), size=64, scale=(scale, scale))
    assert result.image.shape == (3, 64, 64) and result.masks.shape[1:] == (64, 64)
    assert len(result.labels) == len(result.masks) and result.masks.flatten(1).any(1).all()
    assert (result.masks.sum(0) <= 1).all()
    outside = ~result.masks.any(0)
    mean_colour = torch.tensor([124, 116, 104], dtype=torch.uint8)
    assert (result.image[:, outside] == mean_colour[:, None]).all()
    # Away from the edges of a stripe the grey is the stripe's own.
    for label, mask in zip(result.labels.tolist(), result.masks, strict=True):
        core = mask & mask.roll(2, 1) & mask.roll(-2, 1) & mask.roll(4, 1) & mask.roll(-4, 1)
        grey = result.image[0][core].float()
        assert grey.numel() == 0 or (grey - (20 + 40 * (label % 6))).abs().median() <= 2


def test_augmentation_depends_only_on_its_generator(synthetic_root):
    sample = CocoPanoptic(synthetic_root, "val")[0]
    first, second = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    one = [augment(sample, first) for _ in range(3)]
    torch.manual_seed(1)
    two = [augment(sample, second) for _ in range(3)]
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.masks, b.masks) and torch.equal(a.labels, b.labels)
    assert not torch.equal(one[0].image, one[1].image)
    flips = {bool((augment(sample, first, scale=(1.0, 1.0)).image == sample.image).all()) for _ in range(20)}
    assert flips == {True, False}  # at scale 1 only the flip is left


def test_segments_that_are_cut_off_are_dropped():
    result = crop_or_pad(_coded(64, 64), 16, top=0.5, left=0.0)
    assert result.labels.tolist() == [0, 1] and result.image.shape == (3, 16, 16)


def test_sample_without_segments():
    empty = Sample(
        1, torch.zeros(3, 20, 30, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 20, 30).bool()
    )
    result = augment(empty, torch.Generator().manual_seed(0))
    assert result.labels.shape == (0,) and result.masks.shape == (0, 128, 128) and result.masks.dtype == torch.bool


def test_extreme_shapes_keep_a_pixel():
    assert transforms.test_size(1, 5000, 800, 1333) == (1, 1333)
    assert tuple(resize_image(torch.zeros(3, 5000, 1, dtype=torch.uint8), 800, 1333).shape) == (3, 1333, 1)
