"""AP of instances as in table 2 of the paper: pycocotools' by size, and faster-coco-eval's of boundaries."""

from collections.abc import Sequence

from bench.data.annotations.instances import InstanceFile, read_instances
from bench.data.run_lengths import to_rle
from bench.errors import BenchError
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.image_results import ImageResults
from bench.evaluation.overlaps import AREAS, InstanceOverlaps, measure_overlaps
from bench.evaluation.postprocess import Size
from bench.evaluation.uncertainty.bootstrap import Counts


class InstanceEvaluator(Evaluator):
    """AP, AP_S, AP_M, AP_L, AP_boundary against a COCO instance file. Crowds are crowds; every class is a thing.

    Raises BenchError when the file cannot be read.
    """

    def __init__(self, dataset):
        super().__init__(dataset)
        self._category_ids = [category.id for category in dataset.categories]
        self._truth = InstanceTruth(read_instances(dataset.annotation_file))
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
    """The objects of a COCO instance file, by image."""

    def __init__(self, file: InstanceFile):
        self.file = file
        self._positions = {image["id"]: index for index, image in enumerate(file.images)}

    def of(self, image_id: int, size: Size) -> list[dict]:
        """An image's annotations with masks as RLE of its size (H, W). Raises BenchError for another size."""
        index = self._positions[image_id]
        image = self.file.images[index]
        if tuple(size) != (known := (image["height"], image["width"])):
            raise BenchError(
                f"the masks of image {image_id} are {tuple(size)}, {self.file.path} says {known} (height, width): "
                "resize the masks to the image's original size"
            )
        return [
            {
                "category_id": instance.category_id,
                "iscrowd": int(instance.iscrowd),
                "area": instance.area,
                "segmentation": to_rle(instance.segmentation, size),
            }
            for instance in self.file.objects(index)
        ]
