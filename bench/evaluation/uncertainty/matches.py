"""Average precision of any choice of images, of many choices at once: COCO's, which pycocotools computes of one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.evaluation.uncertainty.counts import check, mean_over

THRESHOLDS = 10  # of IoU, 0.5 to 0.95: a bit each
RECALLS = np.linspace(0.0, 1.0, 101)  # pycocotools' floats
_ALL = (1 << THRESHOLDS) - 1


@dataclass(frozen=True)
class InstanceMatches:
    """Which detections match, and how much there is to be found.

    names: of the AP of each range of areas. image, category: of the detections, position and class index, int32 [D];
    those of a class are together, the best score first. matched, ignored: whether a detection has a match, and whether
    it does not count, for a range of areas, uint16 [areas, D]: a bit for each threshold of IoU. true_image,
    true_category: of the ground truth, int32 [G], a row for each class in each image. true_count: of its instances that
    count, for a range of areas, int32 [areas, G].
    Raises ValueError where the arrays do not fit each other.
    """

    kind: ClassVar[str] = "instances"

    names: tuple[str, ...]
    image: np.ndarray
    category: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    true_image: np.ndarray
    true_category: np.ndarray
    true_count: np.ndarray

    def __post_init__(self):
        areas = len(self.names)
        for image, category in ((self.image, self.category), (self.true_image, self.true_category)):
            check(image, np.int32, (None,))
            check(category, np.int32, image.shape)
        for bits in (self.matched, self.ignored):
            check(bits, np.uint16, (areas, len(self.image)))
        check(self.true_count, np.int32, (areas, len(self.true_image)))
        if (np.diff(self.category) < 0).any():
            raise ValueError("detections that are not in order")

    def values(self, weights: np.ndarray) -> np.ndarray:
        """AP in percent [names, draws], a mean over classes and thresholds; nan where there is nothing to find."""
        draws, rows = weights.shape[1], []
        for area in range(len(self.names)):
            averages = [(np.zeros((0, draws)), np.zeros((0, draws), bool))]
            for detections, truth in self._classes():
                counts = self.true_count[area, truth].astype(np.int64)
                wanted = counts @ weights[self.true_image[truth]]  # instances to find, [draws]
                bits = self.matched[area, detections], self.ignored[area, detections]
                precision = _average_precision(weights, self.image[detections], *bits, wanted)
                averages.append((precision[None], wanted[None] > 0))
            rows.append(mean_over(*(np.concatenate(side) for side in zip(*averages, strict=True))))
        return 100 * np.stack(rows)

    @property
    def length(self) -> int:
        """Detections or, where it has more, rows of truth of a class."""
        lengths = (np.unique(c, return_counts=True)[1].max(initial=0) for c in (self.category, self.true_category))
        return int(max(lengths))

    def _classes(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Where the detections and the truth of each class are; a class without truth does not count."""
        order = np.argsort(self.true_category, kind="stable")
        ordered = self.true_category[order]
        for category in np.unique(ordered):
            first, last = np.searchsorted(self.category, [category, category + 1])
            begin, end = np.searchsorted(ordered, [category, category + 1])
            yield slice(first, last), order[begin:end]


def _average_precision(
    weights: np.ndarray, image: np.ndarray, matched: np.ndarray, ignored: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """AP [draws], the mean over thresholds, of one class in one range of areas.

    Precision is highest where a true positive has just been added, so it is computed there alone. Many false positives
    are the same at all thresholds: they are added up once, and for each threshold those that are none are taken off.
    """
    false, true = ~(matched | ignored) & _ALL, matched & ~ignored & _ALL
    at_times_false = np.flatnonzero(false)
    false_before = _running(weights, image[at_times_false])
    most = weights[image[true != 0]].sum(0).max(initial=0)
    found_share = np.arange(most + 1)[:, None] / np.maximum(wanted, 1)  # recall with so many found, in each draw
    levels = np.searchsorted(RECALLS, found_share, side="right").astype(np.int16)  # how many of them are reached
    columns = np.arange(len(wanted))
    total = np.zeros(len(wanted))
    for threshold in range(THRESHOLDS):
        hits = np.flatnonzero(true >> threshold & 1)
        if not len(hits):
            continue
        others = at_times_false[(false[at_times_false] >> threshold & 1) == 0]
        found = _running(weights, image[hits])[1:]  # [hits, draws]
        missed = false_before[np.searchsorted(at_times_false, hits)]
        if len(others):
            missed -= _running(weights, image[others])[np.searchsorted(others, hits)]
        missed += found
        precision = found / (missed + np.spacing(1))
        np.maximum.accumulate(precision[::-1], axis=0, out=precision[::-1])
        reached = levels[found, columns]
        precision[1:] *= np.diff(reached, axis=0)
        precision[0] *= reached[0]
        total += precision.sum(0)
    return total / (THRESHOLDS * len(RECALLS))


def _running(weights: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Sums of weights before each of the images and after the last, int32 [images + 1, draws]."""
    sums = np.zeros((len(image) + 1, weights.shape[1]), np.int32)
    np.take(weights, image, axis=0, out=sums[1:])
    return np.cumsum(sums, axis=0, out=sums)
