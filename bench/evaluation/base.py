"""What the evaluators of all tasks share: predictions of one image after the other, a few numbers kept of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bench.errors import BenchError
from bench.evaluation.postprocess import Size, Sizes


@dataclass(frozen=True)
class Prediction:
    """What is evaluated of one image, at its original size; None where the task has no such result.

    segment_ids: whole numbers [H, W], 0 is void, with `segments`, {"id", "category_id"} each, of panoptic results.
    instances: COCO result entries (image_id, category_id, segmentation as RLE, score), no empty masks.
    labels: class indices [H, W] of semantic results.
    """

    image_id: int
    size: Size
    segment_ids: np.ndarray | None = None
    segments: list[dict] | None = None
    instances: list[dict] | None = None
    labels: np.ndarray | None = None


class Evaluator:
    """Takes one image after the other, then computes the metrics over the images taken.

    Measuring an image keeps nothing and may happen in any process; what it gives is taken by one, in any order.
    Subclasses say what becomes of logits (`predict`), what is counted of it (`measure_prediction`), who counts it
    (`_counters`: name in what is measured -> object with `take(image_id, measured)`) and what comes out (`_compute`).
    """

    def __init__(self, dataset):
        self._known = {image["id"] for image in dataset.images}
        self._taken: set[int] = set()

    @property
    def num_images(self) -> int:
        """How many images were taken."""
        return len(self._taken)

    def has(self, image_id: int) -> bool:
        """Whether the image was taken."""
        return image_id in self._taken

    def predict(
        self, image_id: int, class_logits: Tensor, mask_logits: Tensor, sizes: Sizes | None = None
    ) -> Prediction:
        """Results of class logits [Q, K+1] and mask logits [Q, h, w].

        sizes: padded, image and original (H, W), see `resize_masks`; None: the masks are at the image's original size.
        """
        raise NotImplementedError

    def measure_prediction(self, prediction: Prediction) -> dict:
        """What `take` counts of one image, as plain JSON values (exact: floats are written in full).

        Raises BenchError for an image that the data set lacks, and where the prediction is not of the size of the
        truth.
        """
        raise NotImplementedError

    def measure(self, image_id: int, class_logits: Tensor, mask_logits: Tensor, sizes: Sizes | None = None) -> dict:
        """`measure_prediction` of `predict`."""
        return self.measure_prediction(self.predict(image_id, class_logits, mask_logits, sizes))

    def take(self, measured: Mapping) -> None:
        """Count one image. Raises BenchError for one that the data set lacks or that was counted before."""
        image_id = measured["image"]["id"]
        self._check_known(image_id)
        if image_id in self._taken:
            raise BenchError(f"image {image_id} was already evaluated: add each image once")
        self._taken.add(image_id)
        for name, counter in self._counters().items():
            counter.take(image_id, measured[name])

    def add(self, image_id: int, class_logits: Tensor, mask_logits: Tensor, sizes: Sizes | None = None) -> None:
        """Measure and count one image."""
        self.take(self.measure(image_id, class_logits, mask_logits, sizes))

    def compute(self) -> dict[str, float]:
        """The metrics in percent over the images taken, nan where there is nothing to average over.

        Raises BenchError when no image was taken.
        """
        if not self._taken:
            raise BenchError("nothing to evaluate: no image was added; check the split and the number of images")
        return self._compute()

    def _counters(self) -> dict:
        raise NotImplementedError

    def _compute(self) -> dict[str, float]:
        raise NotImplementedError

    def _image(self, prediction: Prediction) -> dict:
        """How an image is named in what is measured."""
        self._check_known(prediction.image_id)
        return {"id": prediction.image_id, "height": int(prediction.size[0]), "width": int(prediction.size[1])}

    def _check_known(self, image_id: int) -> None:
        if image_id not in self._known:
            raise BenchError(f"image {image_id} is not in the data set: evaluate the split that it belongs to")


def check_size(prediction: Prediction, truth: Size, source: object) -> None:
    """Raises BenchError unless the prediction is of the truth's size (H, W)."""
    if tuple(prediction.size) != tuple(truth):
        raise BenchError(
            f"the masks of image {prediction.image_id} are {tuple(prediction.size)}, {source} is {tuple(truth)} "
            "(height, width): resize the masks to the image's original size"
        )


def output_size(mask_logits: Tensor, sizes: Sizes | None) -> Size:
    """Original size (H, W) of the image that logits belong to."""
    height, width = mask_logits.shape[1:] if sizes is None else sizes[-1]
    return int(height), int(width)
