"""Image batches for the models, and the augmentation of the small recipe."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from bench.data.coco import Sample

PIXEL_MEAN = (123.675, 116.28, 103.53)  # ImageNet, RGB in 0..255
PIXEL_STD = (58.395, 57.12, 57.375)


def preprocess(images: Sequence[Tensor], divisor: int = 32) -> Tensor:
    """Normalised batch float32 [B, 3, H, W] of images [3, h, w] in 0..255 (uint8 or float), on their device.

    Images stand at the top left; the rest is zero. H and W are the largest h and w, rounded up to a multiple of
    `divisor`. Raises ValueError without images and for images that are not [3, h, w].
    """
    if not images or any(image.ndim != 3 or image.shape[0] != 3 for image in images):
        raise ValueError(f"expected images [3, h, w], got {[tuple(image.shape) for image in images]}")
    height, width = (-(-max(image.shape[axis] for image in images) // divisor) * divisor for axis in (1, 2))
    batch = torch.zeros(len(images), 3, height, width, device=images[0].device)
    mean = torch.tensor(PIXEL_MEAN, device=batch.device)[:, None, None]
    std = torch.tensor(PIXEL_STD, device=batch.device)[:, None, None]
    for target, image in zip(batch, images, strict=True):
        target[:, : image.shape[1], : image.shape[2]].copy_(image).sub_(mean).div_(std)
    return batch


def augment(
    sample: Sample, generator: torch.Generator, size: int = 128, scale: tuple[float, float] = (0.8, 1.25)
) -> Sample:
    """Random horizontal flip and scale jitter; returns a sample of exactly `size` x `size` pixels.

    The image's longer side becomes `size` times a factor uniform in `scale`; then a random window of `size` is cut
    out, and smaller images are put at a random place on the mean colour. Segments that are cut off are dropped.
    All randomness comes from `generator`, a fixed number of draws a sample.
    """
    flipped, factor, top, left = torch.rand(4, generator=generator).tolist()
    if flipped < 0.5:
        sample = flip(sample)
    factor = scale[0] + (scale[1] - scale[0]) * factor
    return crop_or_pad(resize(sample, size * factor), size, top, left)


def flip(sample: Sample) -> Sample:
    """The sample mirrored left to right."""
    return replace(sample, image=F.horizontal_flip(sample.image), masks=F.horizontal_flip(sample.masks))


def resize(sample: Sample, longer_side: float) -> Sample:
    """The sample with its longer side of that many pixels (rounded): image bilinear, masks nearest."""
    height, width = sample.image.shape[1:]
    factor = longer_side / max(height, width)
    new = [max(1, round(height * factor)), max(1, round(width * factor))]
    image = F.resize(sample.image, new, InterpolationMode.BILINEAR, antialias=True)
    masks = F.resize(sample.masks.byte(), new, InterpolationMode.NEAREST_EXACT).bool()
    return replace(sample, image=image, masks=masks)


def resize_image(image: Tensor, shorter_side: int | None, longer_side: int | None) -> Tensor:
    """A test image uint8 [3, H, W] resized by `test_size`; unchanged where shorter_side is None."""
    if shorter_side is None:
        return image
    new = test_size(*image.shape[1:], shorter_side, longer_side)
    return F.resize(image, list(new), InterpolationMode.BILINEAR, antialias=True)


def test_size(height: int, width: int, shorter_side: int, longer_side: int) -> tuple[int, int]:
    """Size (height, width) of a test image by the Mask R-CNN rule, rounded to the nearest pixel."""
    factor = min(shorter_side / min(height, width), longer_side / max(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def crop_or_pad(sample: Sample, size: int, top: float, left: float) -> Sample:
    """A window of `size` x `size`; `top` and `left` in [0, 1) choose its place (or the image's place in it)."""
    image, masks = sample.image, sample.masks
    for axis, place in ((1, top), (2, left)):
        spare = image.shape[axis] - size
        offset = int(place * (abs(spare) + 1))
        if spare > 0:
            image, masks = image.narrow(axis, offset, size), masks.narrow(axis, offset, size)
        elif spare < 0:
            edges = (0, 0, offset, -spare - offset) if axis == 1 else (offset, -spare - offset, 0, 0)
            masks = pad(masks, edges)
            # The mean colour, so that the border is (nearly) zero after normalisation.
            image = torch.stack([pad(c, edges, value=round(m)) for c, m in zip(image, PIXEL_MEAN, strict=True)])
    kept = masks.flatten(1).any(1) if len(masks) else torch.zeros(0, dtype=torch.bool)
    return Sample(sample.image_id, image.contiguous(), sample.labels[kept], masks[kept])
