"""Colour jitter of SSD (Liu et al. 2016), as Mask2Former's recipes for semantic segmentation use it."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from bench.experiments.fixed_values import BRIGHTNESS, CONTRAST, HUE, SATURATION


def jitter_colours(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of an image uint8 [3, H, W], each with probability one half.

    Contrast comes before or after saturation and hue, with equal probability. Values are cut at 0 and 255 after every
    change. What SSD calls contrast multiplies all values, which is `adjust_brightness` in torchvision.
    Always nine draws from `generator`.
    """
    *coins, brightness, contrast, saturation, hue = torch.rand(9, generator=generator).tolist()
    brighten, contrasted, contrast_first, saturate, turn = (coin < 0.5 for coin in coins)
    contrast = _between(CONTRAST, contrast)
    values = F.to_dtype(image.contiguous(), torch.float32, scale=True)
    if brighten:
        values.add_(BRIGHTNESS * (2 * brightness - 1)).clamp_(0, 1)
    if contrasted and contrast_first:
        values = F.adjust_brightness(values, contrast)
    if saturate or turn:
        values = shift_hsv(values, _between(SATURATION, saturation) if saturate else 1.0, HUE * turn * (2 * hue - 1))
    if contrasted and not contrast_first:
        values = F.adjust_brightness(values, contrast)
    return F.to_dtype(values.mul_(255).round_(), torch.uint8)


def shift_hsv(values: Tensor, saturation: float, turn: float) -> Tensor:
    """RGB values float [3, H, W] in 0..1 with S of HSV times `saturation`, at most 1, and H moved by `turn` circles.

    The same as torchvision's `adjust_hue` in a fifth of its time, and with it the saturation that SSD means:
    torchvision's `adjust_saturation` blends with grey instead, which changes V.
    """
    red, green, blue = values
    largest, smallest = values.amax(0), values.amin(0)
    spread = largest - smallest
    scale = 1 / spread.clamp_min(1e-6)
    hue = torch.where(  # in sixths of a circle
        largest == red,
        (green - blue) * scale,
        torch.where(largest == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    spread = torch.minimum(spread * saturation, largest)
    shifted = torch.empty_like(values)
    for channel, start in zip(shifted, (5, 3, 1), strict=True):
        place = (hue + (6 * turn + start)).remainder_(6)
        torch.addcmul(largest, spread, torch.minimum(place, 4 - place).clamp_(0, 1), value=-1, out=channel)
    return shifted


def _between(bounds: tuple[float, float], place: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * place
