"""Label maps against label maps: one confusion matrix, intersection over union, accuracy."""

from collections.abc import Mapping

import numpy as np


class Confusion:
    """Pixels by class of the truth and of the prediction, added up over images.

    missing_counts: whether a class that is predicted, but nowhere true, has IoU 0, as in Cityscapes' evaluation;
    otherwise it is left out of the mean.
    """

    def __init__(self, num_classes: int, missing_counts: bool = False):
        self._pixels = np.zeros((num_classes, num_classes), dtype=np.int64)  # [truth, prediction]
        self._missing_counts = missing_counts

    def measure(self, truth: np.ndarray, predicted: np.ndarray) -> dict:
        """Of one image, what `take` counts, as plain JSON values: places in the matrix that are not zero, and pixels.

        truth, predicted: class indices [H, W] of whole-number types; what is no class in the truth is ignored.
        """
        classes = len(self._pixels)
        valid = (truth >= 0) & (truth < classes)
        pairs = truth[valid].astype(np.int64) * classes + predicted[valid]
        counts = np.bincount(pairs, minlength=1)
        places = np.flatnonzero(counts)
        return {"places": places.tolist(), "pixels": counts[places].tolist()}

    def take(self, image_id: int, measured: Mapping) -> None:
        """Count one image; the order of images does not matter."""
        self._pixels.reshape(-1)[measured["places"]] += np.array(measured["pixels"], dtype=np.int64)

    def mean_iou(self) -> float:
        """Mean IoU in percent over the classes that are in the truth (see `missing_counts`); nan without any."""
        correct, truth = self._pixels.diagonal(), self._pixels.sum(1)
        union = truth + self._pixels.sum(0) - correct
        counted = (union if self._missing_counts else truth) > 0
        return 100.0 * float(np.mean(correct[counted] / union[counted])) if counted.any() else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of the pixels that are not ignored and right, in percent; nan without any."""
        total = self._pixels.sum()
        return 100.0 * float(self._pixels.trace() / total) if total else float("nan")
