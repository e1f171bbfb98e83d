"""Panoptic quality, image by image: hotcoco matches the segments of each, the counts are added up."""

from collections.abc import Mapping, Sequence

import numpy as np
from hotcoco.metrics import panoptic_quality
from hotcoco.panoptic import PanopticEval

from bench.evaluation.uncertainty.counts import PanopticCounts

_COUNTS = ("iou", "tp", "fp", "fn")


class PanopticQuality:
    """PQ over the images taken (Kirillov et al., Panoptic segmentation, CVPR 2019).

    categories: `id` and `isthing` of each, as in COCO's files.
    """

    def __init__(self, categories: Sequence[Mapping]):
        self._categories = list(categories)
        self._images: dict[int, np.ndarray] = {}  # rows (category id, iou, tp, fp, fn)

    def measure(self, true: Sequence[Mapping], predicted: Sequence[Mapping], image: Mapping) -> dict:
        """Of one image, what `take` counts, as plain JSON values: columns, a row for each class that occurs.

        true, predicted: a COCO annotation with RLE a segment; image: `id`, `height`, `width`.
        """
        if not true:  # everything is void: nothing right, nothing wrong
            return {name: [] for name in ("category", *_COUNTS)}
        common = {"images": [dict(image)], "categories": self._categories}
        evaluation = PanopticEval(
            {**common, "annotations": _numbered(true)}, {**common, "annotations": _numbered(predicted)}
        )
        evaluation.evaluate()
        found = {
            id_: counts for id_, counts in evaluation.results()["per_class"].items() if any(counts[n] for n in _COUNTS)
        }
        columns = {"category": sorted(found)}
        return columns | {name: [found[id_][name] for id_ in columns["category"]] for name in _COUNTS}

    def take(self, image_id: int, measured: Mapping) -> None:
        """Count one image; the order of images does not matter."""
        self._images[image_id] = np.array([measured[name] for name in ("category", *_COUNTS)], dtype=np.float64).T

    def compute(self) -> dict[str, float]:
        """PQ, PQ_th, PQ_st in percent: means over the classes that occur in truth or predictions, nan without any."""
        sums: dict[int, np.ndarray] = {category["id"]: np.zeros(len(_COUNTS)) for category in self._categories}
        for image_id in sorted(self._images):  # sums of floats depend on the order
            for row in self._images[image_id]:
                sums[int(row[0])] += row[1:]
        qualities: dict[str, list[float]] = {"PQ": [], "PQ_th": [], "PQ_st": []}
        for category in self._categories:
            iou, tp, fp, fn = sums[category["id"]].tolist()
            if tp + fp + fn:
                quality = 100.0 * panoptic_quality(iou, int(tp), int(fp), int(fn))[0]
                qualities["PQ"].append(quality)
                qualities["PQ_th" if category["isthing"] else "PQ_st"].append(quality)
        return {name: float(np.mean(values)) if values else float("nan") for name, values in qualities.items()}

    def counts(self, image_ids: Sequence[int]) -> PanopticCounts:
        """What was taken of these images, in their order."""
        rows = [self._images[image_id] for image_id in image_ids]
        table = np.concatenate(rows)  # (category id, iou, tp, fp, fn)
        index = {category["id"]: position for position, category in enumerate(self._categories)}
        return PanopticCounts(
            ("PQ", "PQ_th", "PQ_st"),
            np.repeat(np.arange(len(rows), dtype=np.int32), list(map(len, rows))),
            np.array([index[int(id_)] for id_ in table[:, 0]], dtype=np.int32),
            table[:, 1:],
            np.array([bool(category["isthing"]) for category in self._categories]),
        )


def _numbered(annotations: Sequence[Mapping]) -> list[dict]:
    """Shallow copies with ids from 1: id 0 is void."""
    return [{**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)]
