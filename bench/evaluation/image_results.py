"""The results of one image as they are evaluated, saved and written to files: numpy maps and COCO's entries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.data.run_lengths import encode_masks
from bench.evaluation.postprocess import InstanceResult, Size, Sizes
from bench.evaluation.results import results_of


@dataclass(frozen=True)
class ImageResults:
    """What is evaluated of one image, at its original size (H, W); None where the task has no such result.

    segment_ids: whole numbers [H, W], 0 is void, with `segments`, {"id", "category_id"} each, of panoptic results;
    those that a model has found have a "score", the class probability of their (first) query.
    instances: COCO result entries (image_id, category_id, segmentation as RLE, score), no empty masks.
    labels: class indices [H, W] of semantic results.
    """

    image_id: int
    size: Size
    segment_ids: np.ndarray | None = None
    segments: list[dict] | None = None
    instances: list[dict] | None = None
    labels: np.ndarray | None = None


def image_results(
    image_id: int,
    prediction: object,
    task: str,
    sizes: Sizes,
    categories: Sequence,
    object_threshold: float | None = None,
    cut_to_mask: bool = True,
) -> ImageResults:
    """All that is evaluated of a model's prediction (batch 1), see `results_of`.

    categories: of the K classes in their order, each with `id` and `is_thing`. object_threshold,
    cut_to_mask: see `results_of`.
    """
    is_thing = [category.is_thing for category in categories]
    found = results_of(prediction, task, sizes, is_thing, object_threshold=object_threshold, cut_to_mask=cut_to_mask)
    ids, values = [category.id for category in categories], {}
    if found.panoptic is not None:
        values["segment_ids"] = found.panoptic.segmentation.cpu().numpy()
        values["segments"] = [
            {"id": segment["id"], "category_id": ids[segment["category"]], "score": score}
            for segment, score in zip(found.panoptic.segments, found.panoptic.scores, strict=True)
        ]
    if found.instances is not None:
        values["instances"] = _instance_entries(image_id, found.instances, ids)
    if found.labels is not None:
        values["labels"] = found.labels.cpu().numpy()
    return ImageResults(image_id, tuple(map(int, sizes[-1])), **values)


def _instance_entries(image_id: int, result: InstanceResult, category_ids: Sequence[int]) -> list[dict]:
    """COCO's; those with empty masks, which cannot match, are left out."""
    found = result.masks.flatten(1).any(1)
    masks = encode_masks(result.masks[found].cpu().numpy())
    scores, labels = result.scores[found].tolist(), result.labels[found].tolist()
    return [
        {"image_id": image_id, "category_id": category_ids[label], "segmentation": mask, "score": score}
        for score, label, mask in zip(scores, labels, masks, strict=True)
    ]
