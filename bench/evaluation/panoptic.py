"""Panoptic quality, instance AP and mIoU of a model with panoptic training, as in table 1 of the paper.

PQ comes from hotcoco (tested against panopticapi), AP from pycocotools.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.data.coco import CocoPanoptic, runs
from bench.data.run_lengths import segment_annotations
from bench.evaluation.evaluator import Evaluator, check_size
from bench.evaluation.image_results import ImageResults
from bench.evaluation.instance import InstanceTruth
from bench.evaluation.overlaps import InstanceOverlaps, measure_overlaps
from bench.evaluation.quality import PanopticQuality
from bench.evaluation.semantic import Confusion
from bench.evaluation.uncertainty.bootstrap import Counts

VOID = -1  # label of pixels without ground truth


class PanopticEvaluator(Evaluator):
    """PQ, PQ_th, PQ_st, AP_pan_th and mIoU_pan.

    PQ is the mean over the classes that occur in ground truth or predictions; mIoU the mean over the classes that
    occur in the ground truth, void pixels left out, crowd segments counted as their class. Instances are compared
    with the data set's instance file where that lists every image of the panoptic file (COCO), otherwise with the
    thing segments of the panoptic file, crowds kept as crowds. An image without annotation counts as void. A metric
    without any class to average over (PQ_st of images without stuff) is nan.

    Raises BenchError when the instance file cannot be read.
    """

    def __init__(self, dataset: CocoPanoptic):
        super().__init__(dataset)
        self._category_ids = [category.id for category in dataset.categories]
        self._class_index = {id_: index for index, id_ in enumerate(self._category_ids)}
        self._things = {category.id for category in dataset.categories if category.is_thing}
        self._dataset = dataset
        self._positions = {image["id"]: index for index, image in enumerate(dataset.images)}
        self._instances = None if dataset.instances is None else InstanceTruth(dataset.instances)
        self._quality = PanopticQuality(
            [{"id": c.id, "name": str(c.id), "isthing": int(c.is_thing)} for c in dataset.categories]
        )
        self._overlaps = InstanceOverlaps(self._things)
        self._confusion = Confusion(len(self._category_ids))

    def measure(self, results: ImageResults) -> dict:
        image, image_id = self._image(results), results.image_id
        segment_ids, segments = self._truth(results)
        true = segment_annotations(image_id, segment_ids, segments)
        predicted = segment_annotations(image_id, results.segment_ids, results.segments)
        if self._instances is None:
            instances = [annotation for annotation in true if annotation["category_id"] in self._things]
        else:
            instances = self._instances.of(image_id, results.size)
        labels = label_map(segment_ids, segments, self._class_index)
        return {
            "image": image,
            "quality": self._quality.measure(true, predicted, image),
            "overlaps": measure_overlaps(results.instances, instances),
            "confusion": self._confusion.measure(labels, results.labels),
        }

    def _counters(self) -> dict:
        return {"quality": self._quality, "overlaps": self._overlaps, "confusion": self._confusion}

    def _parts(self, image_ids: Sequence[int]) -> list[Counts]:
        return [
            self._quality.counts(image_ids),
            self._overlaps.matches(image_ids, ("AP_pan_th",)),
            self._confusion.counts(image_ids, ("mIoU_pan",)),
        ]

    def _compute(self) -> dict[str, float]:
        return {
            **self._quality.compute(),
            "AP_pan_th": self._overlaps.average_precision()["all"],
            "mIoU_pan": self._confusion.mean_iou(),
        }

    def _truth(self, results: ImageResults) -> tuple[np.ndarray, list[dict]]:
        """Map of segment ids and the segments in it; an image without annotation is all void."""
        index = self._positions[results.image_id]
        found = self._dataset.segment_ids(index)
        if found is None:
            return np.zeros(results.size, dtype=np.int32), []
        segment_ids, segments = found
        check_size(results, segment_ids.shape, self._dataset.files(index)[1])
        return segment_ids, [segment._asdict() for segment in segments]


def label_map(segment_ids: np.ndarray, segments: Sequence[Mapping], class_index: Mapping[int, int]) -> np.ndarray:
    """Contiguous class labels int64 [H, W], `VOID` where no segment lies. Crowd segments have their class."""
    _, lengths, values = runs(segment_ids.T.reshape(-1))
    classes = {segment["id"]: class_index[segment["category_id"]] for segment in segments}
    labels = np.array([classes.get(value, VOID) for value in values.tolist()], dtype=np.int64)
    return np.repeat(labels, lengths).reshape(segment_ids.shape[::-1]).T
