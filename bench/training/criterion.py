"""The one training criterion of all mask-classification methods (section 3.1 of the paper, after Mask2Former)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.training.matcher import assign, matching_costs
from bench.training.points import draw_points, sample_points, uncertain_points
from models.outputs import MaskPrediction


@dataclass(frozen=True)
class Target:
    """Ground truth of one image: labels [N] int64 class indices, masks [N, H, W] bool, one size for a batch."""

    labels: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Part:
    """Which images of a batch these are, where several processes or passes share it.

    counts: number of targets of every image of the batch (`count` of the criterion). images: slice of those that are
    here.
    """

    counts: tuple[int, ...]
    images: slice

    @property
    def is_whole(self) -> bool:
        return len(self.counts[self.images]) == len(self.counts)

    def matched(self, queries: int) -> tuple[int, slice]:
        """Matched targets of the batch, whatever the predictions are, and which of them are here."""
        matched = [min(count, queries) for count in self.counts]
        before = sum(matched[: self.images.start])
        return sum(matched), slice(before, before + sum(matched[self.images]))

    def class_divisors(self, queries: int, no_object_weight: float, group: int | None) -> list[float]:
        """What the class losses of the images here are divided by: the weights of all queries of an image's group,
        times the number of groups. group: so many images that follow each other in the batch; None: all."""
        matched = [min(count, queries) for count in self.counts]
        weights = [found + (queries - found) * no_object_weight for found in matched]
        size = group or len(weights)
        groups = [sum(weights[i : i + size]) for i in range(0, len(weights), size)]
        return [groups[i // size] * len(groups) for i in range(len(weights))[self.images]]


@dataclass(frozen=True)
class _Matches:
    """Matched pairs of all predictions, in order of prediction, image, query: index tensors of equal length."""

    problem: Tensor  # prediction * B + image
    query: Tensor
    image: Tensor
    target: Tensor


class SetCriterion(nn.Module):
    """Classification, mask and dice losses of every prediction (deep supervision), and the L1 term on the scales.

    num_classes: K without "no object". Weights: lambda_cls 2, lambda_ce 5, lambda_dice 5, lambda_reg 0.1; "no object"
    counts 0.1 in the classification loss. The scale term is |sum s|, as in the reference implementation (the paper
    writes the sum of |s|; the two agree while all scales have one sign, as they do from the common start at 0.1).
    class_loss_images: images of which the weighted mean of the classification loss is taken, one GPU's in the
    reference; the batch has the mean of these means. None: the batch has one. It is a multiple of them.
    """

    def __init__(
        self,
        num_classes: int,
        num_points: int = 12544,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        scale_weight: float = 0.1,
        class_loss_images: int | None = None,
    ):
        super().__init__()
        self.num_points = num_points
        self.weights = (class_weight, mask_weight, dice_weight)
        self.scale_weight, self.class_loss_images = scale_weight, class_loss_images
        weight = torch.ones(num_classes + 1)
        weight[-1] = no_object_weight
        self.register_buffer("class_weights", weight, persistent=False)

    @staticmethod
    def count(labels: Tensor, masks: Tensor) -> int:
        """Targets of an image."""
        return len(labels)

    def forward(
        self, prediction: MaskPrediction, targets: Sequence[Target], part: Part | None = None
    ) -> dict[str, Tensor]:
        """Weighted losses, to be summed: loss_class, loss_mask, loss_dice of the final prediction, the same with
        suffix _i for intermediate prediction i, and loss_scale for models with clustering.

        part: of which batch these images are a part (default: they are all of it). The losses of the parts, each
        computed after the same torch.manual_seed, sum to those of the whole batch, and so do their gradients.
        """
        pairs = [(prediction.class_logits, prediction.mask_logits), *prediction.intermediate]
        class_logits = torch.stack([c for c, _ in pairs])  # [D, B, Q, K+1]
        mask_logits = torch.stack([m for _, m in pairs])
        depth, batch = class_logits.shape[:2]
        labels, masks, counts = _pad(targets)
        part = part or Part(tuple(counts), slice(0, batch))
        images, total = len(part.counts), sum(part.counts)
        own = part.images, part.matched(class_logits.shape[2])[1]
        draws = draw_points(depth, images, total, self.num_points, class_logits.device, *own)
        matches = self._match(class_logits, mask_logits, labels, masks, counts, draws)
        losses = zip(
            self._class_losses(class_logits, labels, matches, part),
            *self._mask_losses(mask_logits, masks, matches, draws, max(total, 1)),
            strict=True,
        )
        result = {}
        for i, values in enumerate(losses):
            suffix = f"_{i - 1}" if i else ""
            for name, value, weight in zip(("class", "mask", "dice"), values, self.weights, strict=True):
                result[f"loss_{name}{suffix}"] = weight * value
        if prediction.scales is not None:
            result["loss_scale"] = self.scale_weight * prediction.scales.sum().abs() * (batch / images)
        return result

    @staticmethod
    @torch.no_grad()
    def _match(class_logits, mask_logits, labels: Tensor, masks: Tensor, counts: list[int], draws) -> "_Matches":
        depth, batch = class_logits.shape[:2]
        points = draws.matching.transpose(0, 1).flatten(1, 2)  # [B, D*P, 2]: every target mask is read once
        wanted = sample_points(masks, points).unflatten(2, (depth, -1)).permute(2, 0, 1, 3).flatten(0, 1)
        logits = sample_points(mask_logits.flatten(0, 1).float(), draws.matching.flatten(0, 1))
        costs = matching_costs(class_logits.flatten(0, 1), logits, labels.repeat(depth, 1), wanted)
        return _collect(assign(costs, counts * depth), batch, labels.device)

    def _class_losses(self, class_logits: Tensor, labels: Tensor, matches: _Matches, part: Part) -> Tensor:
        """[D] cross-entropies; unmatched queries are "no object"."""
        depth, batch, queries, classes = class_logits.shape
        wanted = torch.full((depth * batch, queries), classes - 1, device=class_logits.device)
        wanted[matches.problem, matches.query] = labels[matches.image, matches.target]
        wanted = wanted.view(depth, -1)
        loss = F.cross_entropy(class_logits.float().flatten(1, 2).mT, wanted, self.class_weights, reduction="none")
        if part.is_whole and not self.class_loss_images:
            return loss.sum(1) / self.class_weights[wanted].sum(1)
        divisors = part.class_divisors(queries, self.class_weights[-1].item(), self.class_loss_images)
        return (loss.view(depth, batch, queries).sum(2) / loss.new_tensor(divisors)).sum(1)

    def _mask_losses(self, mask_logits, masks, matches: _Matches, draws, num_masks: int) -> tuple[Tensor, Tensor]:
        """[D] point-sampled binary cross-entropies and [D] dice losses, each summed over masks / num_masks."""
        depth, batch = mask_logits.shape[:2]
        if not len(matches.query):
            zero = mask_logits.float().flatten(1).sum(1) * 0  # keeps the graph whole when a batch has no object
            return zero, zero
        predicted = mask_logits.flatten(0, 1)[matches.problem, matches.query].float()
        drawn = len(matches.query) // depth  # fewer than targets only where an image has more targets than queries
        candidates, uniform = draws.candidates[:, :drawn].flatten(0, 1), draws.uniform[:, :drawn].flatten(0, 1)
        points = uncertain_points(predicted, candidates, uniform)
        logits = sample_points(predicted[:, None], points)[:, 0]
        wanted = _sample_targets(masks, matches, points, depth)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)
        probability = logits.sigmoid()
        dice = 1 - (2 * (probability * wanted).sum(1) + 1) / (probability.sum(1) + wanted.sum(1) + 1)
        return cross_entropy.view(depth, -1).sum(1) / num_masks, dice.view(depth, -1).sum(1) / num_masks


@torch.no_grad()
def _sample_targets(masks: Tensor, matches: _Matches, points: Tensor, depth: int) -> Tensor:
    """Values [M, P] of each match's target at its points [M, P, 2]; every target mask is read once, not D times."""
    batch, most = masks.shape[:2]
    flat, level = matches.image * most + matches.target, matches.problem // batch
    scattered = points.new_zeros(batch * most, depth, *points.shape[1:])
    scattered[flat, level] = points
    values = sample_points(masks.flatten(0, 1)[:, None], scattered.flatten(1, 2))[:, 0]
    return values.unflatten(1, (depth, -1))[flat, level]


def _pad(targets: Sequence[Target]) -> tuple[Tensor, Tensor, list[int]]:
    """Targets of all images as labels [B, N], masks [B, N, H, W] float (N: the largest count, at least one)."""
    counts = [len(target.labels) for target in targets]
    most = max(1, *counts)
    labels = targets[0].labels.new_zeros(len(targets), most)
    masks = targets[0].masks.new_zeros(len(targets), most, *targets[0].masks.shape[-2:], dtype=torch.float32)
    for i, target in enumerate(targets):
        labels[i, : counts[i]] = target.labels
        masks[i, : counts[i]] = target.masks
    return labels, masks, counts


def _collect(assignments: list[tuple[Tensor, Tensor]], batch: int, device: torch.device) -> _Matches:
    problem = torch.cat([torch.full_like(query, i) for i, (query, _) in enumerate(assignments)]).to(device)
    query = torch.cat([query for query, _ in assignments]).to(device)
    target = torch.cat([target for _, target in assignments]).to(device)
    return _Matches(problem, query, problem % batch, target)
