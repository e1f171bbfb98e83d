"""From a set of masks with classes to semantic, panoptic and instance results.

The rules are those of the mask-classification papers that the HCFormer paper follows (MaskFormer, section 3.4, and
Mask2Former, appendix): masks come back to the image's original size before anything is decided. All functions take
tensors of any device and float type; `resize_masks` and `semantic_scores` also run on `meta` tensors and can be
traced, because FLOPs are counted on them.

A mask at full size is some megabytes, and most queries take no part in panoptic and instance results: those functions
take the masks at the model's own size, with `sizes`, and resize the few that they need, a few at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]  # height, width
Sizes = tuple[Size, Size, Size]  # padded, image, original, as `resize_masks` takes them

OBJECT_THRESHOLD = 0.8  # what the class probability of a panoptic segment is above

# Elements of a temporary: about what a core's cache holds, and on a GPU enough to keep it busy.
_CPU_CHUNK = 2**19
_GPU_CHUNK = 2**26


@dataclass(frozen=True)
class PanopticResult:
    """segmentation: int32 [H, W], 0 is void. segments: {"id" (from 1), "category" (contiguous), "is_thing"} each.

    scores: class probability of the (first) query of each segment.
    """

    segmentation: Tensor
    segments: list[dict]
    scores: list[float]


@dataclass(frozen=True)
class InstanceResult:
    """scores: [N] in [0, 1], not sorted; labels: int64 [N], contiguous; masks: bool [N, H, W]."""

    scores: Tensor
    labels: Tensor
    masks: Tensor


def resize_masks(mask_logits: Tensor, padded_size: Size, image_size: Size, original_size: Size) -> Tensor:
    """Mask logits [Q, h, w] of the padded input -> [Q, *original_size].

    padded_size: (H, W) of the model's input; image_size: its part that holds the image, at the top left;
    original_size: the image before it was resized for the model. Both resizings are bilinear with
    align_corners=False and are done even where the size stays, so that FLOPs do not depend on the image. The masks
    of the padded size are held a few at a time; each comes out the same, whichever others are resized with it.
    """
    masks, sizes = mask_logits.contiguous(), (padded_size, image_size, original_size)
    at_once = max(1, _budget(masks) // (padded_size[0] * padded_size[1]))
    if torch.jit.is_tracing() or masks.is_meta or len(masks) <= at_once:
        return _resize(masks, *sizes)
    resized = masks.new_empty(len(masks), *original_size)
    for first in range(0, len(masks), at_once):
        resized[first : first + at_once] = _resize(masks[first : first + at_once], *sizes)
    return resized


def _resize(masks: Tensor, padded_size: Size, image_size: Size, original_size: Size) -> Tensor:
    # Masks as images of one channel: with several, rounding depends on how many there are (small images on a CPU).
    masks = F.interpolate(masks[:, None], size=padded_size, mode="bilinear", align_corners=False)
    masks = masks[..., : image_size[0], : image_size[1]]
    return F.interpolate(masks, size=original_size, mode="bilinear", align_corners=False)[:, 0]


def semantic_scores(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Per-class scores [K, H, W], not normalised, of class logits [Q, K+1] and mask logits [Q, H, W]."""
    return torch.einsum("qc,qhw->chw", class_logits.softmax(-1)[..., :-1], mask_logits.sigmoid())


def semantic_labels(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Argmax of `semantic_scores`, int64 [H, W], without holding the scores of all pixels at once."""
    channels = max(class_logits.shape)
    strips = _row_strips(mask_logits, channels)
    return torch.cat([semantic_scores(class_logits.float(), strip.float()).max(0).indices for strip in strips])


def semantic_labels_of(
    class_logits: Tensor, mask_logits: Tensor, padded_size: Size, image_size: Size, original_size: Size
) -> Tensor:
    """Labels int64 [*original_size] as models for semantic segmentation alone are tested: scores first, then resizing.

    Arguments as `resize_masks`, with class logits [Q, K+1]. Models that give panoptic or instance results too have
    their masks resized first (`semantic_labels`). The scores of the original size are held a few classes at a time.
    """
    masks = F.interpolate(mask_logits[None].float(), size=padded_size, mode="bilinear", align_corners=False)[0]
    scores = semantic_scores(class_logits.float(), masks)[:, : image_size[0], : image_size[1]]
    return _largest(scores, original_size)


def pixel_labels(logits: Tensor, padded_size: Size, image_size: Size, original_size: Size) -> Tensor:
    """Labels int64 [*original_size] of per-pixel class logits [K, h, w], resized as `resize_masks` does."""
    logits = F.interpolate(logits[None].float(), size=padded_size, mode="bilinear", align_corners=False)[0]
    return _largest(logits[:, : image_size[0], : image_size[1]], original_size)


def _largest(scores: Tensor, original_size: Size) -> Tensor:
    """Argmax over classes, int64 [*original_size], of scores [K, H, W] resized, a few classes at a time."""
    scores = scores[None]
    if torch.jit.is_tracing() or scores.is_meta:
        return F.interpolate(scores, size=original_size, mode="bilinear", align_corners=False)[0].argmax(0)
    at_once = max(1, _budget(scores) // (original_size[0] * original_size[1]))
    best, labels = (
        torch.tensor(-torch.inf, device=scores.device),
        torch.zeros((), dtype=torch.int64, device=scores.device),
    )
    for first in range(0, scores.shape[1], at_once):
        some = F.interpolate(
            scores[:, first : first + at_once], size=original_size, mode="bilinear", align_corners=False
        )
        values, places = some[0].max(0)
        better = values > best  # so the first of equal ones wins, as with argmax
        best, labels = torch.where(better, values, best), torch.where(better, places + first, labels)
    return labels


def panoptic_segments(
    class_logits: Tensor,
    mask_logits: Tensor,
    is_thing: Sequence[bool],
    object_threshold: float = OBJECT_THRESHOLD,
    overlap_threshold: float = 0.8,
    sizes: Sizes | None = None,
    cut_to_mask: bool = True,
) -> PanopticResult:
    """Non-overlapping segments of class logits [Q, K+1] and mask logits [Q, H, W].

    The masks are at the output size already, or with `sizes` at the model's own size: only those of queries that take
    part are then resized (`resize_masks`), and the result is the same.

    A query takes part when its best class is not "no object" and has a probability above `object_threshold`. A
    pixel goes to the query with the largest class probability times mask probability, with `cut_to_mask` (Mask2Former,
    not MaskFormer) only if that mask covers it (probability at least 0.5). A query that wins less than
    `overlap_threshold` of the area that its own mask covers, or covers nothing, is dropped and leaves void. Stuff
    segments of one class are merged, in the order of the queries.

    Raises ValueError when `is_thing` does not have K entries.
    """
    _check_classes(class_logits, is_thing)
    scores, labels = class_logits.float().softmax(-1).max(-1)
    keep = (labels != len(is_thing)) & (scores > object_threshold)
    scores, labels = scores[keep], labels[keep].tolist()
    if not labels:
        empty = torch.zeros(_output_size(mask_logits, sizes), dtype=torch.int32, device=mask_logits.device)
        return PanopticResult(empty, [], [])

    winner, covered, mask_areas = _compete(scores, mask_logits, keep.nonzero().flatten().tolist(), sizes)
    if not cut_to_mask:
        covered = torch.ones_like(covered)
    won_areas = winner.flatten().bincount(minlength=len(labels)).tolist()
    visible_areas = winner[covered].bincount(minlength=len(labels)).tolist()

    segments, segment_scores = [], []
    segment_ids = [0] * len(labels)  # of each kept query; 0 where it is dropped
    stuff_ids: dict[int, int] = {}
    for query, label in enumerate(labels):
        if not (visible_areas[query] and mask_areas[query]):
            continue
        if won_areas[query] / mask_areas[query] < overlap_threshold:
            continue
        if not is_thing[label] and label in stuff_ids:
            segment_ids[query] = stuff_ids[label]
            continue
        segment_ids[query] = len(segments) + 1
        segments.append({"id": len(segments) + 1, "category": label, "is_thing": bool(is_thing[label])})
        segment_scores.append(float(scores[query]))
        if not is_thing[label]:
            stuff_ids[label] = segment_ids[query]
    lookup = torch.tensor(segment_ids, dtype=torch.int32, device=winner.device)
    return PanopticResult(lookup[winner] * covered, segments, segment_scores)


def _compete(
    scores: Tensor, mask_logits: Tensor, kept: Sequence[int], sizes: Sizes | None
) -> tuple[Tensor, Tensor, list[int]]:
    """Which kept query (from 0) wins each pixel, whether its mask covers the pixel, and the area of each kept mask."""
    size, device = _output_size(mask_logits, sizes), mask_logits.device
    best = torch.full(size, -1.0, device=device)
    winner = torch.zeros(size, dtype=torch.int64, device=device)
    covered = torch.zeros(size, dtype=torch.bool, device=device)
    areas, number = [], 0
    for masks in _at_output_size(mask_logits, kept, sizes):
        probabilities = masks.float().sigmoid()
        covers = probabilities >= 0.5
        areas.append(covers.flatten(1).sum(1))
        strengths = probabilities * scores[number : number + len(masks), None, None]
        for strength, cover in zip(strengths, covers, strict=True):
            better = strength > best  # so the first of equal ones wins
            winner.masked_fill_(better, number)
            covered = torch.where(better, cover, covered)
            best = torch.maximum(best, strength)
            number += 1
    return winner, covered, torch.cat(areas).tolist()


def instance_predictions(
    class_logits: Tensor,
    mask_logits: Tensor,
    is_thing: Sequence[bool],
    top_k: int = 100,
    sizes: Sizes | None = None,
) -> InstanceResult:
    """The `top_k` (query, class) pairs of class logits [Q, K+1] and mask logits [Q, H, W], things only.

    The masks are at the output size already, or with `sizes` at the model's own size: only the chosen ones are then
    resized (`resize_masks`), and the result is the same.

    The pairs are chosen among all classes but "no object", and those of stuff are then left out, so that fewer
    than `top_k` may remain. The mask is logit > 0; the score is the class probability times the mean mask
    probability inside the mask (0 for an empty mask).

    Raises ValueError when `is_thing` does not have K entries.
    """
    _check_classes(class_logits, is_thing)
    probabilities = class_logits.float().softmax(-1)[:, :-1]
    scores, pairs = probabilities.flatten().topk(min(top_k, probabilities.numel()))
    queries = pairs.div(probabilities.shape[1], rounding_mode="floor")
    labels = pairs % probabilities.shape[1]
    things = torch.as_tensor(list(is_thing), dtype=torch.bool, device=labels.device)[labels]
    scores, labels, queries = scores[things], labels[things], queries[things]

    rows: dict[int, list[int]] = {}  # of the result; a query may be chosen with several classes
    for row, query in enumerate(queries.tolist()):
        rows.setdefault(query, []).append(row)
    masks = torch.empty((len(queries), *_output_size(mask_logits, sizes)), dtype=torch.bool, device=mask_logits.device)
    qualities = torch.empty_like(scores)
    chosen = chain.from_iterable(_at_output_size(mask_logits, list(rows), sizes))
    for rows_of_query, logits in zip(rows.values(), chosen, strict=True):
        inside = logits > 0
        masks[rows_of_query] = inside
        qualities[rows_of_query] = (logits.float().sigmoid() * inside).sum() / (inside.sum() + 1e-6)
    return InstanceResult(scores * qualities, labels, masks)


def _output_size(mask_logits: Tensor, sizes: Sizes | None) -> Size:
    return tuple(mask_logits.shape[1:] if sizes is None else sizes[-1])


def _at_output_size(mask_logits: Tensor, queries: Sequence[int], sizes: Sizes | None) -> Iterator[Tensor]:
    """Masks [n, H, W] of the queries in their order, a few at a time, resized where they have `sizes`.

    On a CPU one at a time, so that equal masks compete as equals: the sigmoid of the last elements of a tensor is
    rounded differently there.
    """
    height, width = _output_size(mask_logits, sizes)
    at_once = 1 if mask_logits.device.type == "cpu" else max(1, _budget(mask_logits) // (height * width))
    for first in range(0, len(queries), at_once):
        masks = mask_logits[queries[first : first + at_once]].contiguous()
        yield masks if sizes is None else resize_masks(masks, *sizes)


def _row_strips(mask_logits: Tensor, channels: int) -> Iterator[Tensor]:
    """Views [Q, rows, W] from top to bottom, such that a [channels, rows, W] temporary stays small."""
    rows = max(1, _budget(mask_logits) // max(1, channels * mask_logits.shape[2]))
    for top in range(0, mask_logits.shape[1], rows):
        yield mask_logits[:, top : top + rows]


def _budget(tensor: Tensor) -> int:
    return _CPU_CHUNK if tensor.device.type == "cpu" else _GPU_CHUNK


def _check_classes(class_logits: Tensor, is_thing: Sequence[bool]) -> None:
    if class_logits.shape[-1] != len(is_thing) + 1:
        raise ValueError(
            f"{class_logits.shape[-1]} class logits for {len(is_thing)} classes: one more than classes is expected"
        )
