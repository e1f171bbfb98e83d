"""Predictions that know the ground truth, but not exactly: every metric gets a value of its own."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bench.data.coco import Sample
from bench.evaluation.image_results import ImageResults, image_results
from bench.evaluation.postprocess import Sizes
from models.outputs import MaskPrediction


def noisy_logits(sample: Sample, num_classes: int, seed: int, queries: int = 12) -> tuple[Tensor, Tensor, Sizes]:
    """Class logits [Q, K+1], mask logits [Q, h, w] at a quarter of the padded size, and the sizes.

    Up to two thirds of the queries are shifted targets, of which some have a wrong class; the others are noise.
    """
    generator = torch.Generator().manual_seed(seed)
    original = tuple(sample.image.shape[-2:])
    image = tuple(round(side * 0.8) for side in original)
    padded = tuple(-(-side // 32) * 32 for side in image)
    quarter = [side // 4 for side in padded]
    known = min(len(sample.labels), queries * 2 // 3)
    logits = torch.randn(queries, num_classes + 1, generator=generator)
    logits[:, -1] += 3
    masks = interpolate(torch.randn(1, queries, 5, 5, generator=generator) * 4, quarter, mode="bicubic")[0]
    if known:
        chosen = torch.randperm(len(sample.labels), generator=generator)[:known]
        wrong = torch.rand(known, generator=generator) < 0.2
        labels = (sample.labels[chosen] + wrong) % num_classes
        logits[torch.arange(known), labels] = 8 + torch.rand(known, generator=generator)
        targets = interpolate((14.0 * sample.masks[chosen].float() - 7)[None], [s // 4 for s in image])[0]
        masks[:known] = -7
        masks[:known, : targets.shape[1], : targets.shape[2]] = targets.roll(1, -1)
    return logits, masks, (padded, image, original)


def results_from(dataset, image_id: int, classes: Tensor, masks: Tensor, sizes: Sizes | None = None) -> ImageResults:
    """Of class logits [Q, K+1] and mask logits [Q, h, w]; sizes: that of the masks unless given."""
    prediction = MaskPrediction(classes[None], masks[None])
    return image_results(image_id, prediction, dataset.task, sizes or (tuple(masks.shape[1:]),) * 3, dataset.categories)
