"""Image batches for the models, and the augmentation of training samples."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from bench.data.coco import Outline, Sample
from bench.data.colour import jitter_colours
from bench.experiments.backbones import Normalisation
from bench.experiments.fixed_values import FLIP
from bench.experiments.recipe import Recipe

IMAGENET = Normalisation()


def preprocess(images: Sequence[Tensor], divisor: int = 32, normalisation: Normalisation = IMAGENET) -> Tensor:
    """Normalised batch float32 [B, 3, H, W] of images [3, h, w] in 0..255 (uint8 or float), on their device.

    Images stand at the top left; the rest is zero. H and W are the largest h and w, rounded up to a multiple of
    `divisor`. Raises ValueError without images and for images that are not [3, h, w].
    """
    if not images or any(image.ndim != 3 or image.shape[0] != 3 for image in images):
        raise ValueError(f"expected images [3, h, w], got {[tuple(image.shape) for image in images]}")
    height, width = (-(-max(image.shape[axis] for image in images) // divisor) * divisor for axis in (1, 2))
    batch = torch.zeros(len(images), 3, height, width, device=images[0].device)
    mean = torch.tensor(normalisation.mean, device=batch.device)[:, None, None]
    std = torch.tensor(normalisation.std, device=batch.device)[:, None, None]
    for target, image in zip(batch, images, strict=True):
        target[:, : image.shape[1], : image.shape[2]].copy_(image).sub_(mean).div_(std)
    return batch


def normalisation_of(model: nn.Module) -> Normalisation:
    """What `preprocess` must do to the model's input: that of its backbone, ImageNet's where it says nothing."""
    return getattr(model, "normalisation", IMAGENET)


def augment(
    sample: Sample, generator: torch.Generator, recipe: Recipe, fill: Sequence[float] = IMAGENET.mean
) -> Sample:
    """Resize, crop, flip and colour at random as the recipe says; a sample of exactly recipe.crop_size pixels.

    The image is resized with a factor from recipe.scale_range, and a window of it is kept, placed by two random numbers
    or by one (`diagonal_crop`). An image smaller than the crop stands at its top left on recipe.padding_value or the
    colour `fill`; those pixels are in no mask. Then it is mirrored in half of the cases and, where the recipe says so,
    its colours jittered. Images are interpolated bilinearly (antialiased), masks take the nearest pixel, outlines are
    drawn in the crop. Segments that are left without a pixel are dropped unless recipe.keep_emptied, objects with an
    outline where that leaves the crop. All randomness comes from `generator`, a fixed number of draws a sample.
    """
    flipped, factor, *places = torch.rand(4, generator=generator).tolist()
    old = tuple(sample.image.shape[1:])
    new = _size_in_training(old, factor, recipe)
    kept = [min(pair) for pair in zip(new, recipe.crop_size, strict=True)]
    spare = [n - k for n, k in zip(new, kept, strict=True)]
    if recipe.diagonal_crop:
        top, left = (round(places[0] * n) for n in spare)
    else:
        top, left = (int(place * (n + 1)) for place, n in zip(places, spare, strict=True))
    outlines = [_moved(outline, old, new, (top, left), flipped < FLIP) for outline in sample.outlines]
    if flipped < FLIP:
        left = new[1] - kept[1] - left  # the window's place counts in the mirrored image
    image = _resized(sample.image, new)[:, top : top + kept[0], left : left + kept[1]]
    rows = _source_pixels(old[0], new[0])[top : top + kept[0]]
    columns = _source_pixels(old[1], new[1])[left : left + kept[1]]
    if flipped < FLIP:
        image, columns = F.horizontal_flip(image), columns.flip(0)
    if recipe.colour_jitter:
        image = jitter_colours(image, generator)
    colour = fill if recipe.padding_value is None else [recipe.padding_value] * 3
    image = _padded(image, recipe.crop_size, colour)
    objects, masks = len(outlines), sample.masks
    labels, masks = _sampled(sample.labels[objects:], masks, rows, columns, recipe.crop_size, recipe.keep_emptied)
    if objects:
        present, drawn = _drawn(outlines, kept, recipe.crop_size)
        labels, masks = torch.cat((sample.labels[:objects][present], labels)), torch.cat((drawn, masks))
    return Sample(sample.image_id, image, labels, masks)


def _size_in_training(old: tuple[int, int], draw: float, recipe: Recipe) -> tuple[int, int]:
    """Size (height, width) that an image is resized to, for a random number in 0..1."""
    low, high = recipe.scale_range
    if not recipe.scale_steps:
        return resized_size(*old, low + (high - low) * draw, recipe.crop_size, recipe.resize_mode)
    factor = low + (high - low) * int(draw * recipe.scale_steps) / (recipe.scale_steps - 1)
    side = int(min(recipe.crop_size) * factor + 1e-6)  # whole pixels, as Mask2Former's configuration lists them
    return size_at_test(*old, side, recipe.longest_side or max(old) * side)


def resized_size(
    height: int, width: int, factor: float, crop_size: tuple[int, int], resize_mode: str
) -> tuple[int, int]:
    """Size (height, width) of a training image before it is cropped, rounded to the nearest pixel.

    "scale": `factor` times the size at which the image just fits into the crop (large-scale jitter).
    "shorter_side": the shorter side becomes `factor` times the crop's shorter side. Raises ValueError otherwise.
    """
    if resize_mode == "scale":
        ratio = min(crop_size[0] * factor / height, crop_size[1] * factor / width)
    elif resize_mode == "shorter_side":
        ratio = min(crop_size) * factor / min(height, width)
    else:
        raise ValueError(f"resize_mode '{resize_mode}' is neither 'scale' nor 'shorter_side'")
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The whole image: torch does that in less time than Pillow needs for the window that is kept.

    With the channels of a pixel side by side in memory it takes half the time (and torch 2.11 fails without, where
    one pixel is left).
    """
    image = image[None].contiguous(memory_format=torch.channels_last)[0]
    return F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)


def _source_pixels(old: int, new: int) -> Tensor:
    """int64 [new]: which of `old` pixels in a row is nearest to each of `new`, by torch's own rule."""
    return interpolate(torch.arange(old, dtype=torch.float32)[None, None], new, mode="nearest-exact")[0, 0].long()


def _moved(
    outline: Outline, old: tuple[int, int], new: tuple[int, int], corner: tuple[int, int], mirrored: bool
) -> Outline:
    """Polygons of an image in the window with that top left corner, of the image mirrored, then resized to `new`."""
    scale, offset = np.array(new[::-1]) / old[::-1], np.array(corner[::-1])
    direction, origin = ((-1, 1), (old[1], 0)) if mirrored else ((1, 1), (0, 0))
    return [(origin + polygon * direction) * scale - offset for polygon in outline]


def _drawn(outlines: list[Outline], kept: Sequence[int], size: tuple[int, int]) -> tuple[list[int], Tensor]:
    """Which outlines have a part in the window of `kept` pixels, and masks bool [M, *size] of those; a part may be too
    thin for a pixel, as in Mask2Former, whose targets it leaves empty."""
    from bench.data.run_lengths import area_inside, draw_outline  # needs pycocotools, which not every data set does

    present, masks = [], []
    for number, outline in enumerate(outlines):
        mask = draw_outline(outline, *kept)
        if mask.any() or area_inside(outline, *kept) > 0:
            present.append(number)
            masks.append(mask)
    drawn = torch.zeros(len(masks), *size, dtype=torch.bool)
    for target, mask in zip(drawn, masks, strict=True):
        target[: kept[0], : kept[1]] = torch.from_numpy(mask)
    return present, drawn


def _sampled(
    labels: Tensor, masks: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int], keep_emptied: bool
) -> tuple[Tensor, Tensor]:
    """Labels [M] and masks bool [M, *size] of the pixels at rows [h] and columns [w]; False outside of h x w.

    masks bool [N, H, W]; those without a pixel left are dropped unless they are kept, so M <= N. Eight masks are
    sampled at once, as the bits of a byte, and unpacked by numpy, which compares ten times faster than torch.
    """
    top, left = int(rows.min()), int(columns.min())
    masks = masks[:, top : rows.max() + 1, left : columns.max() + 1]
    packed = torch.zeros(-(-len(masks) // 8), *masks.shape[1:], dtype=torch.uint8)
    for number, mask in enumerate(masks):
        packed[number // 8].add_(mask, alpha=1 << number % 8)
    window = torch.zeros(len(packed), *size, dtype=torch.uint8)
    window[:, : len(rows), : len(columns)] = packed.index_select(2, columns - left).index_select(1, rows - top)
    present = np.bitwise_or.reduce(window.flatten(1).numpy(), axis=1)
    kept = [number for number in range(len(masks)) if keep_emptied or present[number // 8] >> number % 8 & 1]
    sampled = np.empty((len(kept), *size), np.bool_)
    for mask, number in zip(sampled, kept, strict=True):
        np.not_equal(window[number // 8].numpy() & np.uint8(1 << number % 8), 0, out=mask)
    return labels[kept], torch.from_numpy(sampled)


def _padded(image: Tensor, size: tuple[int, int], fill: Sequence[float]) -> Tensor:
    """The image at the top left of uint8 [3, *size]; the rest is `fill`, with the mean colour (nearly) zero when
    normalised."""
    if tuple(image.shape[1:]) == size:
        return image
    padded = torch.tensor([round(value) for value in fill], dtype=torch.uint8)[:, None, None].repeat(1, *size)
    padded[:, : image.shape[1], : image.shape[2]] = image
    return padded


def resize_image(image: Tensor, shorter_side: int | None, longer_side: int | None) -> Tensor:
    """A test image uint8 [3, H, W] resized by `size_at_test`; unchanged where shorter_side is None."""
    if shorter_side is None:
        return image
    new = size_at_test(*image.shape[1:], shorter_side, longer_side)
    return F.resize(image, list(new), InterpolationMode.BILINEAR, antialias=True)


def size_at_test(height: int, width: int, shorter_side: int, longer_side: int) -> tuple[int, int]:
    """Size (height, width) of a test image by the Mask R-CNN rule, rounded to the nearest pixel."""
    factor = min(shorter_side / min(height, width), longer_side / max(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))
