"""Reading back what `PredictionWriter` saved, or somebody else in that layout: nothing in the files is trusted."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.data.coco import read_segment_ids
from bench.data.images import checked_size, open_image
from bench.data.run_lengths import to_rle
from bench.errors import BenchError, one_line
from bench.evaluation.image_results import ImageResults
from bench.evaluation.postprocess import Size
from bench.evaluation.prediction_writer import open_facts, stems

_AGAIN = "save the predictions again"


class SavedPredictions:
    """The predictions in a folder, of images of a data set.

    facts: contents of predictions.json. Raises BenchError for a folder without complete predictions of the data set's
    task, and for broken files: at once for JSON files, on access for what is of one image.
    """

    def __init__(self, folder: Path, dataset):
        self.folder = Path(folder)
        self.facts = open_facts(self.folder)
        if self.facts["task"] != dataset.task:
            raise BenchError(
                f"{self.folder} holds {self.facts['task']} predictions, the data set is for {dataset.task} "
                "segmentation: name the data set that they are of"
            )
        self._task = dataset.task
        self._stems = stems(dataset)
        self._dataset, self._positions = dataset, {image["id"]: i for i, image in enumerate(dataset.images)}
        self._index = np.full(256, -1, dtype=np.int64)  # of a category id in PNGs, which instances do not have
        for index, category in enumerate(dataset.categories if dataset.task != "instance" else ()):
            self._index[category.id] = index
        self._categories = {category.id for category in dataset.categories}
        self._segments = self._read_panoptic() if dataset.task == "panoptic" else {}
        if dataset.task in ("panoptic", "instance"):
            self._instances = self._read_instances()

    def of(self, image: Mapping) -> ImageResults:
        """The prediction of an entry of the data set's `images`. Raises BenchError for missing and broken files, and
        where the image and its annotation are of different sizes, which the model would not have been evaluated on.

        It is of the size of its PNGs, in instance data sets of the image's; evaluators compare that with the truth.
        """
        image_id, name = image["id"], f"{self._stems[image['id']]}.png"
        size = checked_size(self._dataset, self._positions[image_id])
        if self._task == "instance":
            return ImageResults(image_id, size, instances=self._checked_instances(image_id, size))
        labels = self._labels(self.folder / "semantic" / name)
        if self._task == "semantic":
            return ImageResults(image_id, labels.shape, labels=labels)
        ids, segments = self._panoptic(image_id, self.folder / "panoptic" / name)
        if ids.shape != labels.shape:
            raise BenchError(f"{self.folder}: panoptic/{name} and semantic/{name} differ in size: {_AGAIN}")
        instances = self._checked_instances(image_id, ids.shape)
        return ImageResults(image_id, ids.shape, ids, segments, instances, labels)

    def _panoptic(self, image_id: int, path: Path) -> tuple[np.ndarray, list[dict]]:
        if image_id not in self._segments:
            raise BenchError(f"{self.folder / 'panoptic.json'} lacks image {image_id}: {_AGAIN}")
        ids, segments = read_segment_ids(path), self._segments[image_id]
        drawn, listed = set(np.unique(ids).tolist()) - {0}, {segment["id"] for segment in segments}
        if drawn != listed or len(listed) != len(segments):
            odd = sorted(drawn ^ listed)[:1] or ["twice"]
            raise BenchError(f"{path} and panoptic.json have other segments than each other (id {odd[0]}): {_AGAIN}")
        return ids, segments

    def _labels(self, path: Path) -> np.ndarray:
        with open_image(path) as image:
            if image.mode != "L":
                raise BenchError(f"{path} is no PNG of category ids (8 bits, one channel): {_AGAIN}")
            labels = self._index[np.asarray(image)]
        if labels.size and labels.min() < 0:
            raise BenchError(f"{path} has a value that is no category id of the data set: {_AGAIN}")
        return labels

    def _checked_instances(self, image_id: int, size: Size) -> list[dict]:
        try:
            return [
                {**entry, "segmentation": to_rle(entry.get("segmentation"), size)}
                for entry in self._instances.get(image_id, ())
            ]
        except (ValueError, TypeError) as error:
            raise BenchError(
                f"{self.folder / 'instances.json'}: an instance of image {image_id} has {one_line(error)}: {_AGAIN}"
            ) from None

    def _read_panoptic(self) -> dict[int, list[dict]]:
        path = self.folder / "panoptic.json"
        content = _read_json(path)
        entries = content.get("annotations") if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise BenchError(f"{path} has no list 'annotations': {_AGAIN}")
        found: dict[int, list[dict]] = {}
        for entry in entries:
            segments = entry.get("segments_info") if isinstance(entry, dict) else None
            if not isinstance(segments, list) or not _is_int(image_id := entry.get("image_id")) or image_id in found:
                raise BenchError(f"{path}: an annotation has no list of segments or no image id of its own: {_AGAIN}")
            self._check_image(path, image_id)
            for segment in segments:
                if not isinstance(segment, dict) or not _is_int(segment.get("id")) or segment["id"] < 1:
                    raise BenchError(f"{path}: a segment of image {image_id} has no valid id: {_AGAIN}")
                self._check_category(path, image_id, segment.get("category_id"))
            found[image_id] = [{"id": s["id"], "category_id": s["category_id"]} for s in segments]
        return found

    def _read_instances(self) -> dict[int, list[dict]]:
        """The results of each image, in the order of the file: 0.6 GB of memory for 5000 images with 100 each."""
        path = self.folder / "instances.json"
        content = _read_json(path)
        if not isinstance(content, list):
            raise BenchError(f"{path} is no JSON list of COCO results: {_AGAIN}")
        found: dict[int, list[dict]] = defaultdict(list)
        for entry in content:
            image_id = entry.get("image_id") if isinstance(entry, dict) else None
            if not _is_int(image_id):
                raise BenchError(f"{path}: a result has no image id: {_AGAIN}")
            self._check_image(path, image_id)
            self._check_category(path, image_id, entry.get("category_id"))
            if not _is_finite(entry.get("score")):
                raise BenchError(f"{path}: a result of image {image_id} has no finite score: {_AGAIN}")
            found[image_id].append(entry)
        return found

    def _check_image(self, path: Path, image_id: int) -> None:
        if image_id not in self._positions:
            raise BenchError(f"{path} has image {image_id}, which is not in the data set: name the one that it is of")

    def _check_category(self, path: Path, image_id: int, category: object) -> None:
        if not _is_int(category) or category not in self._categories:
            raise BenchError(f"{path}: image {image_id} has category id {category!r}, not of the data set: {_AGAIN}")


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"{path} is not readable JSON ({one_line(error)}): {_AGAIN}") from None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
