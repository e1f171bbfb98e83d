"""AP of instances as in table 2 of the paper: pycocotools' by size, and faster-coco-eval's of boundaries."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.data.run_lengths import to_rle
from bench.errors import BenchError, one_line
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.image_results import ImageResults
from bench.evaluation.overlaps import AREAS, InstanceOverlaps, measure_overlaps
from bench.evaluation.postprocess import Size
from bench.evaluation.uncertainty.bootstrap import Counts

_KEYS = ("image_id", "category_id", "segmentation", "area", "iscrowd")


class InstanceEvaluator(Evaluator):
    """AP, AP_S, AP_M, AP_L, AP_boundary against a COCO instance file. Crowds are crowds; every class is a thing.

    Raises BenchError when the file cannot be read.
    """

    def __init__(self, dataset):
        super().__init__(dataset)
        self._category_ids = [category.id for category in dataset.categories]
        self._truth = InstanceTruth(dataset.annotation_file, self._known, self._category_ids)
        self._overlaps = InstanceOverlaps(self._category_ids)

    def measure(self, results: ImageResults) -> dict:
        image = self._image(results)
        truth = self._truth.of(results.image_id, results.size)
        return {"image": image, "overlaps": measure_overlaps(results.instances, truth, boundary=True)}

    def _counters(self) -> dict:
        return {"overlaps": self._overlaps}

    def _parts(self, image_ids: Sequence[int]) -> list[Counts]:
        sizes = ("AP", *(f"AP_{size}" for size in AREAS[1:]))
        matches = self._overlaps.matches
        return [matches(image_ids, sizes), matches(image_ids, ("AP_boundary",), "boundaries")]

    def _compute(self) -> dict[str, float]:
        masks = self._overlaps.average_precision(areas=AREAS)
        return {
            "AP": masks["all"],
            **{f"AP_{size}": masks[size] for size in ("S", "M", "L")},
            "AP_boundary": self._overlaps.average_precision("boundaries")["all"],
        }


class InstanceTruth:
    """The annotations of a COCO instance file for some classes, by image.

    complete: whether the file lists all of `image_ids`. Raises BenchError when the file cannot be read.
    """

    def __init__(self, path: Path, image_ids: Iterable[int], category_ids: Iterable[int]):
        self._path = path
        self._annotations: dict[int, list[dict]] = defaultdict(list)
        wanted = set(category_ids)
        try:
            content = json.loads(path.read_bytes())
            self.sizes: dict[int, Size | None] = {image["id"]: _size(image) for image in content["images"]}
            for annotation in content["annotations"]:
                kept = {key: annotation[key] for key in _KEYS}
                kept["area"], kept["iscrowd"] = float(kept["area"]), int(kept["iscrowd"])
                if kept["category_id"] in wanted:
                    self._annotations[kept["image_id"]].append(kept)
        except (OSError, KeyError, TypeError, ValueError, RecursionError, AttributeError):
            raise BenchError(f"{path} is no readable COCO instance file: download it again or remove it") from None
        self.complete = set(image_ids) <= self.sizes.keys()

    def of(self, image_id: int, size: Size) -> list[dict]:
        """An image's annotations with masks as RLE of its size (H, W).

        Raises BenchError for masks and images of other sizes.
        """
        known = self.sizes.get(image_id)
        if known is not None and known != tuple(size):
            raise BenchError(
                f"the masks of image {image_id} are {tuple(size)}, {self._path} says {known} (height, width): "
                "resize the masks to the image's original size"
            )
        try:
            return [{**a, "segmentation": to_rle(a["segmentation"], size)} for a in self._annotations[image_id]]
        except (ValueError, TypeError) as error:
            raise BenchError(
                f"{self._path}: an instance of image {image_id} has {one_line(error)}: download the file again"
            ) from None


def _size(image: Mapping) -> Size | None:
    return (image["height"], image["width"]) if {"height", "width"} <= image.keys() else None
