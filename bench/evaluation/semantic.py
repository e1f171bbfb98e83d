"""mIoU and pixel accuracy of semantic segmentation, as in table 3 of the paper."""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.errors import BenchError
from bench.evaluation.evaluator import Evaluator, check_size
from bench.evaluation.image_results import ImageResults
from bench.evaluation.uncertainty.bootstrap import Counts
from bench.evaluation.uncertainty.counts import PixelCounts


class Confusion:
    """Pixels by class of the truth and of the prediction, added up over images.

    missing_counts: whether a class that is predicted, but nowhere true, has IoU 0, as in Cityscapes' evaluation;
    otherwise it is left out of the mean.
    """

    def __init__(self, num_classes: int, missing_counts: bool = False):
        self._pixels = np.zeros((num_classes, num_classes), dtype=np.int64)  # [truth, prediction]
        self._missing_counts = missing_counts
        self._images: dict[int, np.ndarray] = {}  # rows (class, right, true and predicted pixels)

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
        places, pixels = (np.array(measured[name], dtype=np.int64) for name in ("places", "pixels"))
        self._pixels.reshape(-1)[places] += pixels
        rows = np.zeros((len(self._pixels), 4), np.int64)
        rows[:, 0] = np.arange(len(rows))
        true, predicted = np.divmod(places, len(rows))
        for column, (kind, some) in enumerate(((true, true == predicted), (true, ...), (predicted, ...)), start=1):
            np.add.at(rows[:, column], kind[some], pixels[some])
        self._images[image_id] = rows[rows[:, 1:].any(1)]

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

    def counts(self, image_ids: Sequence[int], names: tuple[str, ...]) -> PixelCounts:
        """What was taken of these images, in their order; names: of the mean IoU and, if wanted, of the accuracy."""
        rows = [self._images[image_id] for image_id in image_ids]
        table = np.concatenate(rows)
        return PixelCounts(
            names,
            np.repeat(np.arange(len(rows), dtype=np.int32), list(map(len, rows))),
            table[:, 0].astype(np.int32),
            table[:, 1:],
            np.array([self._missing_counts]),
        )


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

    def _parts(self, image_ids: Sequence[int]) -> list[Counts]:
        return [self._confusion.counts(image_ids, ("mIoU", "pixel_accuracy"))]

    def _compute(self) -> dict[str, float]:
        return {"mIoU": self._confusion.mean_iou(), "pixel_accuracy": self._confusion.pixel_accuracy()}
