"""The results of one image in the official formats: COCO's `segments_info` and result entries, label images.

Logits are those of one image, class logits [Q, K+1] and mask logits [Q, H, W] at the image's original size, or with
`sizes` (see `resize_masks`) at the model's own; classes is the data set's list of K. Category ids are the data set's
own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle_codec
from torch import Tensor

from bench.data.classes import ClassInfo
from bench.data.coco import id_colours
from bench.data.run_lengths import bounding_box, encode_masks, segment_annotations
from bench.evaluation.postprocess import Sizes, instance_predictions, panoptic_segments, resize_masks, semantic_labels

OBJECT_THRESHOLD = 0.8  # class probability that a panoptic segment needs
SHOWN_SCORE = 0.5  # instances above it are in the instance map


@dataclass(frozen=True)
class ImageResults:
    """entry: what STEM.json holds of "panoptic", "instances", "semantic". pngs: file name -> pixels, uint8.

    segment_ids: int [H, W], the map to show to people. segments: its segments, {"id", "category_id"} and for things
    "score".
    """

    entry: dict
    pngs: dict[str, np.ndarray]
    segment_ids: np.ndarray
    segments: list[dict]


def image_results(
    task: str,
    class_logits: Tensor,
    mask_logits: Tensor,
    classes: Sequence[ClassInfo],
    stem: str,
    image_id: int,
    sizes: Sizes | None = None,
) -> ImageResults:
    """All results of a data set for "panoptic" or "instance" segmentation; file names begin with `stem`."""
    entry: dict = {}
    pngs: dict[str, np.ndarray] = {}
    if task == "panoptic":
        if sizes:  # semantic results need every mask at full size, so the others take them from there
            mask_logits, sizes = resize_masks(mask_logits, *sizes), None
        semantic = semantic_results(semantic_labels(class_logits, mask_logits), classes, stem)
        entry, pngs = dict(semantic.entry), dict(semantic.pngs)
    entry["instances"] = instance_results(class_logits, mask_logits, classes, image_id, sizes)
    if task == "instance":
        size = sizes[-1] if sizes else tuple(mask_logits.shape[1:])
        ids = pngs[f"{stem}_instances.png"] = instance_map(entry["instances"], size)
        segments = [{"id": number, **found} for number, found in enumerate(_shown(entry["instances"]), start=1)]
    else:
        ids, segments = panoptic_result(class_logits, mask_logits, classes)
        pngs[name := f"{stem}_panoptic.png"] = id_colours(ids)
        entry["panoptic"] = {"file_name": name, "segments_info": segments}
    return ImageResults(entry, pngs, ids, segments)


def panoptic_result(
    class_logits: Tensor, mask_logits: Tensor, classes: Sequence[ClassInfo]
) -> tuple[np.ndarray, list[dict]]:
    """Segment ids int32 [H, W] (0 is void) and COCO `segments_info`.

    Beyond COCO's keys a thing has `score`, the class probability of its query.
    """
    result = panoptic_segments(class_logits, mask_logits, [c.is_thing for c in classes], OBJECT_THRESHOLD)
    ids = result.segmentation.cpu().numpy()
    named = [{"id": s["id"], "category_id": classes[s["category"]].id} for s in result.segments]
    infos = []
    for segment, entry in zip(result.segments, segment_annotations(0, ids, named), strict=True):
        info = {key: entry[key] for key in ("category_id", "area", "iscrowd")}
        box = [int(value) for value in entry["bbox"]]
        info = {"id": segment["id"], **info, "bbox": box, "isthing": int(segment["is_thing"])}
        if segment["is_thing"]:
            info["score"] = _segment_score(class_logits, mask_logits, ids == segment["id"], segment["category"])
        infos.append(info)
    return ids, infos


def _segment_score(class_logits: Tensor, mask_logits: Tensor, mask: np.ndarray, label: int) -> float:
    """Class probability of the query that won a segment, found again at the segment's first pixel."""
    scores, labels = class_logits.float().softmax(-1).max(-1)
    row, column = divmod(int(mask.argmax()), mask.shape[1])
    competes = (labels == label) & (scores > OBJECT_THRESHOLD)
    strength = scores * mask_logits[:, row, column].float().sigmoid() * competes
    return float(scores[strength.argmax()])


def instance_results(
    class_logits: Tensor,
    mask_logits: Tensor,
    classes: Sequence[ClassInfo],
    image_id: int,
    sizes: Sizes | None = None,
) -> list[dict]:
    """COCO result entries (image_id, category_id, segmentation as RLE, bbox, score), best first, no empty masks."""
    result = instance_predictions(class_logits, mask_logits, [c.is_thing for c in classes], sizes=sizes)
    masks = encode_masks(result.masks.cpu().numpy())
    entries = [
        {
            "image_id": image_id,
            "category_id": classes[label].id,
            "segmentation": mask,
            "bbox": bounding_box(mask),
            "score": score,
        }
        for score, label, mask in zip(result.scores.tolist(), result.labels.tolist(), masks, strict=True)
        if rle_codec.area(mask)
    ]
    return sorted(entries, key=lambda entry: -entry["score"])


def instance_map(results: Sequence[dict], size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W] of `instance_results`: pixel k > 0 belongs to results[k - 1], 0 to none.

    Only scores above `SHOWN_SCORE` take part; where masks overlap, the better score lies on top.
    """
    ids = np.zeros(size, dtype=np.uint8)
    for number, entry in reversed(list(enumerate(_shown(results), start=1))):
        ids[rle_codec.decode(entry["segmentation"]).astype(bool)] = number
    return ids


def _shown(results: Sequence[dict]) -> list[dict]:
    return [entry for entry in results if entry["score"] > SHOWN_SCORE]


def semantic_results(labels: Tensor, classes: Sequence[ClassInfo], stem: str) -> ImageResults:
    """The result of semantic segmentation from labels [H, W], indices into classes: a PNG of category ids."""
    ids = np.array([c.id for c in classes], dtype=np.uint8)[labels.cpu().numpy()]
    segments = [{"id": id_, "category_id": id_} for id_ in np.unique(ids).tolist()]
    name = f"{stem}_semantic.png"
    entry = {"semantic": {"file_name": name, "category_ids": [segment["id"] for segment in segments]}}
    return ImageResults(entry, {name: ids}, ids, segments)
