"""How sure a metric is: the bootstrap over images (Efron, 1979), percentile intervals.

The images that were evaluated are drawn again, with replacement and as many, and the metric is computed of each draw.
The interval says what another choice of as many images like these may give; it says nothing of other trainings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

DRAWS = 1000
SEED = 0
LEVEL = 95  # percent
_AT_ONCE = 1 << 24  # numbers of an array

Interval = tuple[float, float]


class Counts(Protocol):
    """See `PanopticCounts`, `PixelCounts` and `InstanceMatches`."""

    names: tuple[str, ...]

    @property
    def length(self) -> int:
        """Of the longest array beside the draws; memory is in proportion to it."""

    def values(self, weights: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class ImageCounts:
    """All that the metrics of an evaluation are made of.

    image_ids: of the images evaluated, int64 [I], ascending. parts: of metrics of different names.
    """

    image_ids: np.ndarray
    parts: Sequence[Counts]

    def values(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Each metric in percent [draws]; weights: int32 [I, draws], default: every image once."""
        if weights is None:
            weights = np.ones((len(self.image_ids), 1), np.int32)
        return {name: row for part in self.parts for name, row in zip(part.names, part.values(weights), strict=True)}

    def resampled(self) -> dict[str, np.ndarray]:
        """Each metric in percent of every draw [DRAWS], the same draws for all evaluations of as many images; nan where
        a draw has nothing to average over. COCO's 5000 images with 100 detections each take half a minute and 0.5 GB.
        """
        length = max(len(self.image_ids), *(part.length for part in self.parts))
        at_once = min(DRAWS, max(1, _AT_ONCE // length))
        values = [self.values(weights) for weights in draw_images(len(self.image_ids), at_once)]
        return {name: np.concatenate([some[name] for some in values]) for name in values[0]}


def draw_images(images: int, at_once: int = DRAWS) -> Iterator[np.ndarray]:
    """How often each image is in each draw, int32 [images, at most `at_once`], until there are `DRAWS`."""
    generator = np.random.default_rng(SEED)
    for begin in range(0, DRAWS, at_once):
        draws = (generator.integers(images, size=images) for _ in range(min(at_once, DRAWS - begin)))
        yield np.stack([np.bincount(drawn, minlength=images) for drawn in draws], axis=1).astype(np.int32)


def intervals(counts: ImageCounts) -> dict[str, Interval]:
    """Of each metric that has one; one image alone says nothing."""
    return intervals_of(counts.resampled()) if len(counts.image_ids) > 1 else {}


def intervals_of(resampled: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """Percentiles of draws, those without a value left out."""
    found = {}
    for name, values in resampled.items():
        if not np.isnan(values).all():
            low, high = np.nanpercentile(values, [50 - LEVEL / 2, 50 + LEVEL / 2])
            found[name] = (float(low), float(high))
    return found
