"""Point sampling of masks (PointRend), used by the matcher's costs and by the mask losses."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.experiments.fixed_values import IMPORTANCE_RATIO, OVERSAMPLE_RATIO


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps [N, C, H, W] at points [N, P, 2], (x, y) in 0..1 over the whole map: [N, C, P]."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False).squeeze(3)


@dataclass(frozen=True)
class PointDraws:
    """Random points of one training step, for D predictions of B images with N targets in total.

    matching [D, B, P, 2]; candidates [D, N, 3P, 2], of which the most uncertain are kept; uniform [D, N, P', 2].
    """

    matching: Tensor
    candidates: Tensor
    uniform: Tensor


def draw_points(
    predictions: int, images: int, targets: int, num_points: int, device: torch.device,
    own_images: slice = slice(None), own_targets: slice = slice(None),
) -> PointDraws:  # fmt: skip
    """Draw in the reference's order (a prediction after the other, in each first every image's matching points), so
    that a fixed seed gives the reference's losses although all predictions are then treated at once.

    images, targets: of the whole batch. Points of the others than the own ones are drawn and dropped, so that every
    process has those that one process would have. Of these, those of one prediction are in memory at a time.
    """
    candidates, uniform = OVERSAMPLE_RATIO * num_points, num_points - int(IMPORTANCE_RATIO * num_points)
    shapes = [(range(images)[own_images], num_points), (range(targets)[own_targets], candidates),
              (range(targets)[own_targets], uniform)]  # fmt: skip
    kept = [torch.empty(predictions, len(own), points, 2, device=device) for own, points in shapes]
    for matching, important, further in zip(*kept, strict=True):
        drawn = [torch.rand(1, num_points, 2, device=device) for _ in range(images)]
        matching.copy_(torch.cat(drawn)[own_images])
        important.copy_(torch.rand(targets, candidates, 2, device=device)[own_targets])
        further.copy_(torch.rand(targets, uniform, 2, device=device)[own_targets])
    return PointDraws(*kept)


@torch.no_grad()
def uncertain_points(masks: Tensor, candidates: Tensor, uniform: Tensor) -> Tensor:
    """Importance sampling: the candidates whose logits are nearest to 0, and the uniform points.

    masks [M, h, w] logits; candidates [M, 3P, 2]; uniform [M, P - int(0.75 P), 2]. Returns [M, P, 2].
    """
    kept = int(IMPORTANCE_RATIO * candidates.shape[1] // OVERSAMPLE_RATIO)
    uncertainty = -sample_points(masks[:, None], candidates)[:, 0].abs()
    index = uncertainty.topk(kept, dim=1).indices
    important = candidates.gather(1, index[..., None].expand(-1, -1, 2))
    return torch.cat((important, uniform), 1)
