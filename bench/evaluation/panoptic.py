"""Panoptic quality, instance AP and mIoU of a model with panoptic training, as in table 1 of the paper.

PQ comes from hotcoco (tested against panopticapi), AP from pycocotools.
"""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
from hotcoco.panoptic import PanopticEval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from bench.data.coco import CocoPanoptic, read_segment_ids
from bench.errors import BenchError
from bench.evaluation.encoding import VOID, encode_masks, label_map, segment_annotations
from bench.evaluation.postprocess import instance_predictions, panoptic_segments, semantic_labels


class PanopticEvaluator:
    """Takes the predictions of one image after the other, then computes the metrics over the images added.

    Between images it keeps run-length encodings and one confusion matrix. Instances are compared with the data
    set's instance file where that lists every image of the panoptic file (COCO), otherwise with the thing segments
    of the panoptic file, crowds kept as crowds. An image without annotation counts as void.

    Raises BenchError when the instance file cannot be read.
    """

    def __init__(self, dataset: CocoPanoptic):
        self._category_ids = [category.id for category in dataset.categories]
        self._class_index = {id_: index for index, id_ in enumerate(self._category_ids)}
        self._is_thing = [category.is_thing for category in dataset.categories]
        self._panoptic_dir = dataset.panoptic_dir
        self._known = {image["id"] for image in dataset.images}
        # The data set has checked the file when it was opened.
        content = json.loads(dataset.annotation_file.read_bytes())
        self._annotations = {entry["image_id"]: entry for entry in content["annotations"]}
        self._instances = _instances(dataset.instance_file, self._known)
        self._images: dict[int, dict] = {}
        self._true_segments: list[dict] = []
        self._predicted_segments: list[dict] = []
        self._detections: list[dict] = []
        self._confusion = np.zeros((len(self._is_thing),) * 2, dtype=np.int64)  # [truth, prediction], pixels

    @property
    def num_images(self) -> int:
        """How many images were added."""
        return len(self._images)

    def add(self, image_id: int, class_logits: Tensor, mask_logits: Tensor) -> None:
        """Count one image: class logits [Q, K+1] and mask logits [Q, H, W] at the image's original size.

        Raises BenchError for an image that the data set lacks, that was added before, or whose size is not that of
        its panoptic PNG.
        """
        self._check_new(image_id)
        self.take(self.measure(image_id, class_logits, mask_logits))

    def take(self, measured: dict) -> None:
        """Count one image as `measure` described it. Raises BenchError as `add`."""
        image = measured["image"]
        self._check_new(image["id"])
        self._images[image["id"]] = image
        self._true_segments += measured["truth"]
        self._predicted_segments += measured["predicted"]
        self._detections += measured["detections"]
        pairs, counts = np.array(measured["confusion"], dtype=np.int64)
        self._confusion.reshape(-1)[pairs] += counts  # no pair occurs twice

    def has(self, image_id: int) -> bool:
        """Whether the image was added."""
        return image_id in self._images

    def measure(self, image_id: int, class_logits: Tensor, mask_logits: Tensor) -> dict:
        """What `take` counts of one image, as plain JSON values (exact: floats are written in full).

        image: id and size.  truth, predicted: a COCO annotation with RLE a segment.  detections: with scores.
        confusion: places (truth * K + prediction) that are not zero and their pixels. Arguments as in `add`.
        """
        height, width = mask_logits.shape[1:]
        segment_ids, segments = self._truth(image_id, (height, width))
        return {
            "image": {"id": image_id, "height": height, "width": width, "file_name": ""},
            "truth": segment_annotations(image_id, segment_ids, segments),
            "predicted": self._predicted(image_id, class_logits, mask_logits),
            "detections": self._detected(image_id, class_logits, mask_logits),
            "confusion": self._confused(
                label_map(segment_ids, segments, self._class_index),
                semantic_labels(class_logits, mask_logits).cpu().numpy(),
            ),
        }

    def _check_new(self, image_id: int) -> None:
        if image_id not in self._known:
            raise BenchError(f"image {image_id} is not in the data set: evaluate the split that it belongs to")
        if image_id in self._images:
            raise BenchError(f"image {image_id} was already evaluated: add each image once")

    def _predicted(self, image_id: int, class_logits: Tensor, mask_logits: Tensor) -> list[dict]:
        panoptic = panoptic_segments(class_logits, mask_logits, self._is_thing)
        segments = [{"id": s["id"], "category_id": self._category_ids[s["category"]]} for s in panoptic.segments]
        predicted_ids = panoptic.segmentation.cpu().numpy()
        return segment_annotations(image_id, predicted_ids, segments)

    def _detected(self, image_id: int, class_logits: Tensor, mask_logits: Tensor) -> list[dict]:
        instances = instance_predictions(class_logits, mask_logits, self._is_thing)
        found = instances.masks.flatten(1).any(1)  # empty masks cannot match
        masks = encode_masks(instances.masks[found].cpu().numpy())
        scores, labels = instances.scores[found].tolist(), instances.labels[found].tolist()
        return [
            {
                "image_id": image_id,
                "category_id": self._category_ids[label],
                "segmentation": mask,
                "score": score,
            }
            for score, label, mask in zip(scores, labels, masks, strict=True)
        ]

    def compute(self) -> dict[str, float]:
        """PQ, PQ_th, PQ_st, AP_pan_th and mIoU_pan over the images added, in percent.

        PQ is the mean over the classes that occur in ground truth or predictions; mIoU the mean over the classes
        that occur in the ground truth, void pixels left out, crowd segments counted as their class. A metric
        without any class to average over (PQ_st of images without stuff) is nan.

        Raises BenchError when no image was added.
        """
        if not self._images:
            raise BenchError("nothing to evaluate: no image was added; check the split and the number of images")
        return {**self._panoptic_quality(), "AP_pan_th": self._average_precision(), "mIoU_pan": self._mean_iou()}

    def _truth(self, image_id: int, size: tuple[int, int]) -> tuple[np.ndarray, list[dict]]:
        """Map of segment ids and their infos; an image without annotation is all void."""
        entry = self._annotations.get(image_id)
        if entry is None:
            return np.zeros(size, dtype=np.int32), []
        path = self._panoptic_dir / entry["file_name"]
        segment_ids = read_segment_ids(path)
        if segment_ids.shape != size:
            raise BenchError(
                f"the masks of image {image_id} are {size}, {path} is {segment_ids.shape} (height, width): "
                "resize the masks to the image's original size"
            )
        return segment_ids, entry["segments_info"]

    def _confused(self, truth: np.ndarray, predicted: np.ndarray) -> list[list[int]]:
        valid = truth != VOID
        pairs, counts = np.unique(truth[valid] * len(self._is_thing) + predicted[valid], return_counts=True)
        return [pairs.tolist(), counts.tolist()]

    def _panoptic_quality(self) -> dict[str, float]:
        categories = self._categories()
        images = list(self._images.values())
        evaluation = PanopticEval(
            {"images": images, "categories": categories, "annotations": _numbered(self._true_segments)},
            {"images": images, "categories": categories, "annotations": _numbered(self._predicted_segments)},
        )
        evaluation.evaluate()
        results = evaluation.results()
        groups = {"PQ": "All", "PQ_th": "Things", "PQ_st": "Stuff"}
        return {
            name: 100.0 * results[group]["pq"] if results[group]["n"] else float("nan")
            for name, group in groups.items()
        }

    def _average_precision(self) -> float:
        things = {id_ for id_, is_thing in zip(self._category_ids, self._is_thing, strict=True) if is_thing}
        source = self._true_segments if self._instances is None else self._instances
        truth = [a for a in source if a["category_id"] in things and a["image_id"] in self._images]
        if all(annotation["iscrowd"] for annotation in truth):
            return float("nan")
        if not self._detections:
            return 0.0
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
            reference = COCO()
            reference.dataset = {
                "images": list(self._images.values()),
                "categories": self._categories(),
                "annotations": _numbered(truth),
            }
            reference.createIndex()
            # loadRes changes the annotations that it is given.
            evaluation = COCOeval(reference, reference.loadRes([dict(d) for d in self._detections]), "segm")
            evaluation.params.catIds = sorted(things)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return 100.0 * float(evaluation.stats[0])

    def _mean_iou(self) -> float:
        correct = self._confusion.diagonal()
        truth = self._confusion.sum(1)
        union = truth + self._confusion.sum(0) - correct
        present = truth > 0
        return 100.0 * float(np.mean(correct[present] / union[present])) if present.any() else float("nan")

    def _categories(self) -> list[dict]:
        return [
            {"id": id_, "name": str(id_), "isthing": int(is_thing)}
            for id_, is_thing in zip(self._category_ids, self._is_thing, strict=True)
        ]


def _instances(path: Path | None, image_ids: set[int]) -> list[dict] | None:
    """The annotations of the instance file, or None when there is none that lists all the images."""
    if path is None:
        return None
    keys = ("image_id", "category_id", "segmentation", "area", "bbox", "iscrowd")
    try:
        content = json.loads(path.read_bytes())
        if not image_ids <= {image["id"] for image in content["images"]}:
            return None
        return [{key: annotation[key] for key in keys} for annotation in content["annotations"]]
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        raise BenchError(f"{path} is no readable COCO instance file: download it again or remove it") from None


def _numbered(annotations: list[dict]) -> list[dict]:
    """Shallow copies (pycocotools writes into them) with ids from 1: id 0 would count as unmatched."""
    return [{**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)]
