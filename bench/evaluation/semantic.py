"""mIoU and pixel accuracy of semantic segmentation, as in table 3 of the paper."""

from collections.abc import Mapping

import numpy as np

from bench.errors import BenchError
from bench.evaluation.evaluator import Evaluator, check_size
from bench.evaluation.image_results import ImageResults


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


class SemanticEvaluator(Evaluator):
    """mIoU over the classes of the ground truth, and the share of right pixels; ignored pixels (255) do not count.

    On Cityscapes a class that is predicted but nowhere true counts as 0, as in its official evaluation.
    """

    def __init__(self, dataset, missing_counts: bool = False):
        super().__init__(dataset)
        self._dataset = dataset
        self._positions = {image["id"]: index for index, image in enumerate(dataset.images)}
        self._confusion = Confusion(len(dataset.categories), missing_counts)

    def measure(self, results: ImageResults) -> dict:
        image = self._image(results)
        truth = self._dataset.label_map(self._positions[results.image_id])
        check_size(results, truth.shape, "its annotation")
        classes = len(self._dataset.categories)
        if results.labels.size and not 0 <= results.labels.min() <= results.labels.max() < classes:
            raise BenchError(f"a label of image {results.image_id} is no class: give indices from 0 to {classes - 1}")
        return {"image": image, "confusion": self._confusion.measure(truth, results.labels)}

    def _counters(self) -> dict:
        return {"confusion": self._confusion}

    def _compute(self) -> dict[str, float]:
        return {"mIoU": self._confusion.mean_iou(), "pixel_accuracy": self._confusion.pixel_accuracy()}
