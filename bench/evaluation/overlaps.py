"""Average precision of instances, image by image: overlaps are measured at once, matching and averaging come last.

Matching, accumulation and averages are pycocotools'; overlaps of masks are pycocotools', those of boundaries
(Cheng et al., Boundary IoU, CVPR 2021, d = 2 % of the image diagonal) faster-coco-eval's. What stays of an image is a
few numbers an instance, and one class after the other is matched: memory does not depend on the masks.
"""

import contextlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask as boundary_codec
from pycocotools import mask as rle_codec
from pycocotools.cocoeval import COCOeval

from bench.evaluation.uncertainty.matches import InstanceMatches

MAX_DETECTIONS = 100  # of one class in one image, COCO's largest
DILATION_RATIO = 0.02
AREAS = ("all", "S", "M", "L")  # COCO's area ranges: below 32 x 32 and 96 x 96 pixels, and above


def measure_overlaps(detections: Sequence[Mapping], truth: Sequence[Mapping], boundary: bool = False) -> dict:
    """What `InstanceOverlaps.take` counts of one image, as plain JSON values.

    detections: `category_id`, `segmentation` (RLE), `score`.  truth: `category_id`, `segmentation` (RLE), `area`,
    `iscrowd`. Both come out sorted by class, detections by score (the best 100 of a class): "scores", "areas", ...
    are columns. "overlaps" lists, class by class, each detection's with all the truth of its class.
    """
    found, true = _by_class(detections), _by_class(truth)
    for category, entries in found.items():
        order = np.argsort([-entry["score"] for entry in entries], kind="mergesort")[:MAX_DETECTIONS]
        found[category] = [{**entries[index], "area": _area(entries[index])} for index in order]
    shared = [category for category in found if category in true]
    pairs = [(found[category], true[category]) for category in shared]
    measured = {
        "found": _columns(found, {"score": float, "area": int}),
        "true": _columns(true, {"area": float, "iscrowd": int}),
        "overlaps": [value for pair in pairs for value in _mask_overlaps(*pair).flatten().tolist()],
    }
    if boundary:
        measured["boundaries"] = [value for pair in pairs for value in _boundary_overlaps(*pair).flatten().tolist()]
    return measured


class InstanceOverlaps:
    """Counts what `measure_overlaps` says of each image; averages over `category_ids`, COCO's way."""

    def __init__(self, category_ids: Sequence[int]):
        self._category_ids = sorted(category_ids)
        self._images: dict[int, dict[str, np.ndarray]] = {}
        self._evaluated: dict[tuple[str, int], list[_ClassResult]] = {}  # by overlaps and number of areas

    def take(self, image_id: int, measured: Mapping) -> None:
        """Count one image; the order of images does not matter."""
        columns = {f"{side} {name}": values for side in ("found", "true") for name, values in measured[side].items()}
        columns |= {name: measured[name] for name in ("overlaps", "boundaries") if name in measured}
        self._images[image_id] = {name: np.array(values) for name, values in columns.items()}
        self._evaluated.clear()

    def average_precision(self, overlaps: str = "overlaps", areas: Sequence[str] = AREAS[:1]) -> dict[str, float]:
        """AP in percent by area, of the first of `AREAS`; nan where the ground truth has no instance of that size.

        overlaps: "overlaps" of masks, or "boundaries".
        """
        results = self._evaluate(overlaps, len(areas))
        stacked = np.stack([result.precision for result in results], axis=2)  # [thresholds, recalls, classes, areas]
        averages = {}
        for index, area in enumerate(areas):
            values = stacked[..., index]
            averages[area] = 100.0 * float(np.mean(values[values > -1])) if (values > -1).any() else float("nan")
        return averages

    def matches(self, image_ids: Sequence[int], names: tuple[str, ...], overlaps: str = "overlaps") -> InstanceMatches:
        """What matches in these images, in their order; names: of the AP in the first of `AREAS`."""
        position = {image_id: index for index, image_id in enumerate(image_ids)}
        columns: dict[str, list[np.ndarray]] = defaultdict(list)
        for index, result in enumerate(self._evaluate(overlaps, len(names))):
            positions = np.array([position[image_id] for image_id in result.image_ids], dtype=np.int32)
            image, true_image = positions[result.image], positions[result.true_image]
            for name, some in (("", image), ("true_", true_image)):
                columns[f"{name}image"].append(some)
                columns[f"{name}category"].append(np.full(len(some), index, np.int32))
            for name in ("matched", "ignored", "true_count"):
                columns[name].append(getattr(result, name))
        return InstanceMatches(names, **{name: np.concatenate(some, axis=-1) for name, some in columns.items()})

    def _evaluate(self, overlaps: str, areas: int) -> list["_ClassResult"]:
        """Of each class; matching is done once."""
        if (overlaps, areas) not in self._evaluated:
            by_class = self._by_class(overlaps)
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
                results = [_evaluate_class(by_class.get(id_, {}), areas) for id_ in self._category_ids]
            self._evaluated[overlaps, areas] = results
        return self._evaluated[overlaps, areas]

    def _by_class(self, overlaps: str) -> dict[int, dict[int, tuple]]:
        """class -> image -> its detections, its truth (as pycocotools wants them), their overlaps [D, G]."""
        by_class: dict[int, dict[int, tuple]] = defaultdict(dict)
        for image_id in sorted(self._images):
            columns, used = self._images[image_id], 0
            found, true = columns["found category"], columns["true category"]
            for category in sorted({*found.tolist(), *true.tolist()}):
                mine, theirs = found == category, true == category
                count = int(mine.sum()) * int(theirs.sum())
                block = columns[overlaps][used : used + count].reshape(int(mine.sum()), -1) if count else []
                used += count
                detections = columns["found score"][mine], columns["found area"][mine]
                truth = columns["true area"][theirs], columns["true iscrowd"][theirs]
                by_class[category][image_id] = (detections, truth, block)
        return by_class


class _MeasuredEval(COCOeval):
    """pycocotools' evaluation of one class whose overlaps were measured before."""

    def __init__(self, images: Mapping[int, tuple], areas: int):
        super().__init__(iouType="bbox")  # of whatever: the overlaps are given
        self.params.imgIds, self.params.catIds = sorted(images), [0]
        self.params.maxDets = [MAX_DETECTIONS]
        self.params.areaRng, self.params.areaRngLbl = self.params.areaRng[:areas], self.params.areaRngLbl[:areas]
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        self._overlaps = {image_id: block for image_id, (_, _, block) in images.items()}
        for image_id, ((scores, found_areas), (areas_, crowds), _) in images.items():
            pairs = zip(scores.tolist(), found_areas.tolist(), strict=True)
            self._dts[image_id, 0] = [{"id": n, "score": s, "area": a} for n, (s, a) in enumerate(pairs, start=1)]
            pairs = zip(areas_.tolist(), crowds.tolist(), strict=True)
            self._gts[image_id, 0] = [  # id 0 would count as unmatched
                {"id": n, "area": a, "iscrowd": c, "ignore": c} for n, (a, c) in enumerate(pairs, start=1)
            ]

    def _prepare(self):
        pass

    def computeIoU(self, imgId, catId):  # pycocotools' names
        return self._overlaps[int(imgId)]


@dataclass(frozen=True)
class _ClassResult:
    """precision: [thresholds, recalls, areas] of one class, -1 where it has no truth. The other arrays are as those of
    `InstanceMatches`, images being indices into `image_ids`."""

    precision: np.ndarray
    image_ids: list[int]
    image: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    true_image: np.ndarray
    true_count: np.ndarray


def _evaluate_class(images: Mapping[int, tuple], areas: int) -> _ClassResult:
    evaluation = _MeasuredEval(images, areas)
    if not images:
        precision = np.full((len(evaluation.params.iouThrs), len(evaluation.params.recThrs), areas), -1.0)
        nowhere, nothing = np.zeros(0, np.int32), np.zeros((areas, 0))
        bits = nothing.astype(np.uint16)
        return _ClassResult(precision, [], nowhere, bits, bits, nowhere, nothing.astype(np.int32))
    evaluation.evaluate()
    evaluation.accumulate()
    image_ids = sorted(images)
    by_area = np.array(evaluation.evalImgs, dtype=object).reshape(areas, len(image_ids))
    scores = [found["dtScores"] for found in by_area[0]]
    order = np.argsort(-np.concatenate(scores), kind="mergesort")  # as pycocotools' accumulate has it
    true = np.array([[np.count_nonzero(found["gtIgnore"] == 0) for found in row] for row in by_area], np.int32)
    counting = np.flatnonzero(true.any(0))
    return _ClassResult(
        evaluation.eval["precision"][:, :, 0, :, 0],
        image_ids,
        np.repeat(np.arange(len(image_ids)), list(map(len, scores)))[order],
        np.stack([_bits([found["dtMatches"] for found in row])[order] for row in by_area]),
        np.stack([_bits([found["dtIgnore"] for found in row])[order] for row in by_area]),
        counting.astype(np.int32),
        true[:, counting],
    )


def _bits(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Of arrays [thresholds, detections], a bit for each threshold where something is, uint16 [all detections]."""
    found = np.concatenate(columns, axis=1) != 0
    return (found * (1 << np.arange(len(found)))[:, None]).sum(0).astype(np.uint16)


def _by_class(entries: Sequence[Mapping]) -> dict[int, list[Mapping]]:
    """Entries by category id, in ascending order of that."""
    by_class: dict[int, list[Mapping]] = {}
    for entry in sorted(entries, key=lambda entry: entry["category_id"]):
        by_class.setdefault(entry["category_id"], []).append(entry)
    return by_class


def _columns(by_class: Mapping[int, list[Mapping]], kinds: Mapping) -> dict[str, list]:
    entries = [entry for group in by_class.values() for entry in group]
    columns = {"category": [category for category, group in by_class.items() for _ in group]}
    for name, kind in kinds.items():
        columns[name] = [kind(entry[name]) for entry in entries]
    return columns


def _area(detection: Mapping) -> int:
    return int(rle_codec.area(detection["segmentation"]))


def _mask_overlaps(found: Sequence[Mapping], true: Sequence[Mapping]) -> np.ndarray:
    """Overlaps [D, G]; with a crowd, the share of the detection that lies in it."""
    masks = [entry["segmentation"] for entry in found], [entry["segmentation"] for entry in true]
    return np.asarray(rle_codec.iou(*masks, [int(entry["iscrowd"]) for entry in true]))


def _boundary_overlaps(found: Sequence[Mapping], true: Sequence[Mapping]) -> np.ndarray:
    """The smaller of mask and boundary IoU, as the paper's AP uses it; crowds have no boundary."""
    masks = _mask_overlaps(found, true)
    crowds = [int(entry["iscrowd"]) for entry in true]
    found_edges, true_edges = (
        [boundary_codec.rleToBoundary(entry["segmentation"], DILATION_RATIO) for entry in entries]
        for entries in (found, true)
    )
    edges = np.asarray(boundary_codec.iou(found_edges, true_edges, crowds))
    return np.where(np.array(crowds, dtype=bool), masks, np.minimum(masks, edges))
