"""The results of one image in the official formats: COCO's `segments_info` and result entries, label images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle_codec

from bench.data.classes import ClassInfo
from bench.data.coco import id_colours
from bench.data.run_lengths import bounding_box, segment_annotations
from bench.evaluation.image_results import ImageResults

SHOWN_SCORE = 0.5  # instances above it are in the instance map, where nobody says otherwise


@dataclass(frozen=True)
class ResultFiles:
    """entry: what STEM.json holds of "panoptic", "instances", "semantic". pngs: file name -> pixels, uint8.

    segment_ids: int [H, W], the map to show to people. segments: its segments, {"id", "category_id"} and "score",
    which semantic ones have not.
    """

    entry: dict
    pngs: dict[str, np.ndarray]
    segment_ids: np.ndarray
    segments: list[dict]


def result_files(
    results: ImageResults, classes: Sequence[ClassInfo], stem: str, shown_score: float = SHOWN_SCORE
) -> ResultFiles:
    """Files of all that the image has; their names begin with `stem`. The map to show is the first that there is of
    panoptic, instance and semantic results."""
    entry: dict = {}
    pngs: dict[str, np.ndarray] = {}
    if results.labels is not None:
        ids = np.array([c.id for c in classes], dtype=np.uint8)[results.labels]
        segments = [{"id": id_, "category_id": id_} for id_ in np.unique(ids).tolist()]
        pngs[name := f"{stem}_semantic.png"] = ids
        entry["semantic"] = {"file_name": name, "category_ids": [segment["id"] for segment in segments]}
    if results.instances is not None:
        found = sorted(results.instances, key=lambda instance: -instance["score"])
        entry["instances"] = [{**instance, "bbox": bounding_box(instance["segmentation"])} for instance in found]
    if results.segment_ids is not None:
        ids, segments = results.segment_ids, _segment_infos(results, classes)
        pngs[name := f"{stem}_panoptic.png"] = id_colours(ids)
        entry["panoptic"] = {"file_name": name, "segments_info": segments}
    elif results.instances is not None:
        ids = pngs[f"{stem}_instances.png"] = instance_map(entry["instances"], results.size, shown_score)
        segments = [
            {"id": number, **shown} for number, shown in enumerate(_shown(entry["instances"], shown_score), start=1)
        ]
    return ResultFiles(entry, pngs, ids, segments)


def _segment_infos(results: ImageResults, classes: Sequence[ClassInfo]) -> list[dict]:
    """COCO's `segments_info`; beyond COCO's keys it has `score`, the class probability of its query."""
    things = {info.id: int(info.is_thing) for info in classes}
    infos = []
    annotations = segment_annotations(results.image_id, results.segment_ids, results.segments)
    for segment, annotation in zip(results.segments, annotations, strict=True):
        info = {"id": segment["id"], **{key: annotation[key] for key in ("category_id", "area", "iscrowd")}}
        info |= {"bbox": [int(value) for value in annotation["bbox"]], "isthing": things[segment["category_id"]]}
        infos.append(info | {key: segment[key] for key in ("score",) if key in segment})
    return infos


def instance_map(instances: Sequence[dict], size: tuple[int, int], shown_score: float = SHOWN_SCORE) -> np.ndarray:
    """uint8 [H, W] of COCO result entries, best first: pixel k > 0 belongs to instances[k - 1], 0 to none.

    Only scores above `shown_score` take part; where masks overlap, the better score lies on top.
    """
    ids = np.zeros(size, dtype=np.uint8)
    for number, entry in reversed(list(enumerate(_shown(instances, shown_score), start=1))):
        ids[rle_codec.decode(entry["segmentation"]).astype(bool)] = number
    return ids


def _shown(instances: Sequence[dict], shown_score: float) -> list[dict]:
    return [entry for entry in instances if entry["score"] > shown_score]
