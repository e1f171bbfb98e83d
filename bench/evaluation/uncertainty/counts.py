"""What panoptic quality and IoU are made of, image by image, so that they can be computed of any choice of images.

A choice is the number of times that each image counts: weights, whole numbers [images, draws]; one column is one draw.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

MOST_CLASSES = 1 << 16  # memory is in proportion to the largest class index


@dataclass(frozen=True)
class PanopticCounts:
    """Segments of a class in an image: a row each.

    names: of PQ over all classes, things and stuff. image: position, int32 [N]. category: class index, int32 [N].
    counts: sum of IoU, true positives, false positives, false negatives, float64 [N, 4]. is_thing: bool [classes].
    Raises ValueError where the arrays do not fit each other.
    """

    kind: ClassVar[str] = "panoptic"

    names: tuple[str, ...]
    image: np.ndarray
    category: np.ndarray
    counts: np.ndarray
    is_thing: np.ndarray

    def __post_init__(self):
        _check_rows(self.image, self.category, self.counts, 4)
        check(self.is_thing, bool, (None,))
        if len(self.names) != 3:
            raise ValueError("other metrics than three")
        if self.category.size and self.category.max() >= len(self.is_thing):
            raise ValueError("a class that is neither thing nor stuff")

    @property
    def length(self) -> int:
        """See `Counts`."""
        return len(self.is_thing)

    def values(self, weights: np.ndarray) -> np.ndarray:
        """PQ in percent [names, draws]; nan where no class occurs (Kirillov et al., CVPR 2019, eq. 1)."""
        iou, tp, fp, fn = _sums(self.image, self.category, self.counts, weights, len(self.is_thing))
        found = tp + fp + fn > 0  # [classes, draws]
        quality = iou / np.where(found, tp + fp / 2 + fn / 2, 1)
        groups = np.ones_like(self.is_thing), self.is_thing, ~self.is_thing
        return 100 * np.stack([mean_over(quality, found & group[:, None]) for group in groups])


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of a class in an image: a row each.

    names: of mIoU and, if that is wanted, of the share of right pixels. image, category: as of `PanopticCounts`.
    counts: right, true and predicted pixels, int64 [N, 3]. missing_counts: bool [1], see `Confusion`.
    Raises ValueError where the arrays do not fit each other.
    """

    kind: ClassVar[str] = "pixels"

    names: tuple[str, ...]
    image: np.ndarray
    category: np.ndarray
    counts: np.ndarray
    missing_counts: np.ndarray

    def __post_init__(self):
        _check_rows(self.image, self.category, self.counts, 3)
        check(self.missing_counts, bool, (1,))
        if len(self.names) not in (1, 2):
            raise ValueError("other metrics than one or two")

    @property
    def length(self) -> int:
        """See `Counts`."""
        return int(self.category.max(initial=-1)) + 1

    def values(self, weights: np.ndarray) -> np.ndarray:
        """mIoU and the share of right pixels in percent [names, draws]; nan where there is no true pixel."""
        right, true, predicted = _sums(self.image, self.category, self.counts, weights, self.length)
        union = true + predicted - right
        found = (union if self.missing_counts[0] else true) > 0
        mean_iou = mean_over(right / np.where(found, union, 1), found)
        total = true.sum(0)
        share = np.where(total > 0, right.sum(0) / np.where(total > 0, total, 1), np.nan)
        return 100 * np.stack([mean_iou, share])[: len(self.names)]


def mean_over(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Means [draws] over the classes of values [classes, draws] that are counted; nan where none is."""
    number = counted.sum(0)
    return np.where(number > 0, np.where(counted, values, 0).sum(0) / np.maximum(number, 1), np.nan)


def check(array: np.ndarray, kind: type, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError unless the array is of the type and shape (None: any length), and nothing in it is negative or
    not finite."""
    if array.dtype != kind or len(array.shape) != len(shape):
        raise ValueError("an array of another type")
    if any(wanted not in (None, length) for wanted, length in zip(shape, array.shape, strict=True)):
        raise ValueError("arrays of different lengths")
    if array.size and not (array.min() >= 0 and np.isfinite(array.max())):
        raise ValueError("a number below zero or not finite")


def _check_rows(image: np.ndarray, category: np.ndarray, counts: np.ndarray, columns: int) -> None:
    check(image, np.int32, (None,))
    check(category, np.int32, image.shape)
    if category.max(initial=0) >= MOST_CLASSES:
        raise ValueError(f"more than {MOST_CLASSES} classes")
    check(counts, np.float64 if columns == 4 else np.int64, (len(image), columns))


def _sums(image: np.ndarray, category: np.ndarray, counts: np.ndarray, weights: np.ndarray, classes: int) -> list:
    """Of each column of counts, the sums over the images of each draw, float64 [classes, draws]."""
    shape = (classes, len(weights))
    floats = weights.astype(np.float64)
    return [csr_array((column, (category, image)), shape=shape) @ floats for column in counts.T.astype(np.float64)]
