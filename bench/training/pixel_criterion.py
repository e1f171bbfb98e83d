"""The training criterion of per-pixel classification (appendix E.1 of the paper, after PSPNet, [69])."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.coco import IGNORED
from bench.training.criterion import Part, Target
from models.outputs import PixelPrediction


class PixelCriterion(nn.Module):
    """Cross-entropy of the labelled pixels at the input's size, that of the auxiliary head, and the scale term.

    auxiliary_weight: of the auxiliary head's cross-entropy (PSPNet: 0.4). scale_weight: of |sum s|, as in
    `SetCriterion`. Pixels of no mask are ignored.
    """

    def __init__(self, auxiliary_weight: float = 0.4, scale_weight: float = 0.1):
        super().__init__()
        self.auxiliary_weight, self.scale_weight = auxiliary_weight, scale_weight

    @staticmethod
    def count(labels: Tensor, masks: Tensor) -> int:
        """Labelled pixels of an image: what its share of the loss is in proportion to."""
        return int(masks.any(0).sum())

    def forward(
        self, prediction: PixelPrediction, targets: Sequence[Target], part: Part | None = None
    ) -> dict[str, Tensor]:
        """Weighted losses, to be summed: loss_pixel, loss_auxiliary with such a head, loss_scale with clustering.

        The cross-entropies are means over the labelled pixels of the batch. part: of which batch these images are a
        part, with counts of labelled pixels; the losses of the parts sum to those of the whole batch.
        """
        wanted = torch.stack([label_map(target) for target in targets])
        counts = part.counts if part else [self.count(target.labels, target.masks) for target in targets]
        pixels = max(sum(counts), 1)
        losses = {"loss_pixel": _cross_entropy(prediction.logits, wanted) / pixels}
        if prediction.auxiliary is not None:
            losses["loss_auxiliary"] = self.auxiliary_weight * _cross_entropy(prediction.auxiliary, wanted) / pixels
        if prediction.scales is not None:
            share = len(targets) / len(counts)
            losses["loss_scale"] = self.scale_weight * prediction.scales.sum().abs() * share
        return losses


def label_map(target: Target) -> Tensor:
    """Class index int64 [H, W] of every pixel, 255 where no mask is. Masks of semantic targets are disjoint."""
    labels = torch.full(target.masks.shape[-2:], IGNORED, device=target.masks.device)
    for label, mask in zip(target.labels, target.masks, strict=True):
        labels[mask] = label
    return labels


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sum over the labelled pixels, of logits [B, K, h, w] resized to the labels' size [B, H, W].

    Cells are as large as the stride also where they reach beyond the input (90 of 8 pixels for 713), as in tests, where
    inputs are padded to full cells: else logits and labels would drift apart by half a cell.
    """
    height, width = wanted.shape[-2:]
    pairs = zip(logits.shape[-2:], (height, width), strict=True)
    full = [cells * 2 ** math.ceil(math.log2(pixels / cells)) for cells, pixels in pairs]
    logits = F.interpolate(logits.float(), full, mode="bilinear", align_corners=False)[..., :height, :width]
    return F.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
