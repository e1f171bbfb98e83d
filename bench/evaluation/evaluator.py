"""What the evaluators of all tasks share: predictions of one image after the other, a few numbers kept of each."""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.errors import BenchError
from bench.evaluation.image_results import ImageResults
from bench.evaluation.postprocess import Size
from bench.evaluation.uncertainty.bootstrap import Counts, ImageCounts


class Evaluator:
    """Takes one image after the other, then computes the metrics over the images taken.

    Measuring an image keeps nothing and may happen in any process; what it gives is taken by one, in any order.
    Subclasses say what is counted of an image's results (`measure`), who counts it (`_counters`: name in what is
    measured -> object with `take(image_id, measured)`), what comes out (`_compute`) and what that is made of
    (`_parts`).
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

    def measure(self, results: ImageResults) -> dict:
        """What `take` counts of one image, as plain JSON values (exact: floats are written in full).

        Raises BenchError for an image that the data set lacks, and where the results are not of the size of the
        truth.
        """
        raise NotImplementedError

    def take(self, measured: Mapping) -> None:
        """Count one image. Raises BenchError for one that the data set lacks or that was counted before."""
        image_id = measured["image"]["id"]
        self._check_known(image_id)
        if image_id in self._taken:
            raise BenchError(f"image {image_id} was already evaluated: add each image once")
        self._taken.add(image_id)
        for name, counter in self._counters().items():
            counter.take(image_id, measured[name])

    def compute(self) -> dict[str, float]:
        """The metrics in percent over the images taken, nan where there is nothing to average over.

        Raises BenchError when no image was taken.
        """
        if not self._taken:
            raise BenchError("nothing to evaluate: no image was added; check the split and the number of images")
        return self._compute()

    def image_counts(self) -> ImageCounts:
        """What the metrics over the images taken are made of, image by image."""
        image_ids = sorted(self._taken)
        return ImageCounts(np.array(image_ids, dtype=np.int64), self._parts(image_ids))

    def _counters(self) -> dict:
        raise NotImplementedError

    def _compute(self) -> dict[str, float]:
        raise NotImplementedError

    def _parts(self, image_ids: Sequence[int]) -> list[Counts]:
        raise NotImplementedError

    def _image(self, results: ImageResults) -> dict:
        """How an image is named in what is measured."""
        self._check_known(results.image_id)
        return {"id": results.image_id, "height": int(results.size[0]), "width": int(results.size[1])}

    def _check_known(self, image_id: int) -> None:
        if image_id not in self._known:
            raise BenchError(f"image {image_id} is not in the data set: evaluate the split that it belongs to")


def check_size(results: ImageResults, truth: Size, source: object) -> None:
    """Raises BenchError unless the results are of the truth's size (H, W)."""
    if tuple(results.size) != tuple(truth):
        raise BenchError(
            f"the masks of image {results.image_id} are {tuple(results.size)}, {source} is {tuple(truth)} "
            "(height, width): resize the masks to the image's original size"
        )
