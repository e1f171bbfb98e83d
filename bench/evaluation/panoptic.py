"""Panoptic quality, instance AP and mIoU of a model with panoptic training, as in table 1 of the paper.

PQ comes from hotcoco (tested against panopticapi), AP from pycocotools.
"""

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np
from hotcoco.panoptic import PanopticEval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from bench.errors import BenchError
from bench.evaluation import ground_truth
from bench.evaluation.postprocess import instance_predictions, panoptic_segments, semantic_labels

if TYPE_CHECKING:
    from bench.data.coco import CocoPanoptic


class PanopticEvaluator:
    """Takes the predictions of one image after the other, then computes the metrics over the images added.

    Between images it keeps run-length encodings and one confusion matrix. Instances are compared with the data
    set's instance file where that lists every image of the panoptic file (COCO), otherwise with the thing segments
    of the panoptic file, crowds kept as crowds.

    Raises BenchError when an annotation file is missing, damaged, or has a category that the data set lacks.
    """

    def __init__(self, dataset: "CocoPanoptic"):
        self._category_ids = [category.id for category in dataset.categories]
        self._class_index = {id_: index for index, id_ in enumerate(self._category_ids)}
        self._is_thing = [category.is_thing for category in dataset.categories]
        self._annotations = ground_truth.read_annotations(dataset.annotation_file)
        for image_id, entry in self._annotations.items():
            for segment in entry["segments_info"]:
                if segment["category_id"] not in self._class_index:
                    raise BenchError(
                        f"{dataset.annotation_file}: image {image_id} has category {segment['category_id']}, "
                        "which is not among the file's categories; download the file again"
                    )
        self._panoptic_dir = dataset.panoptic_dir
        self._instances = _instances(dataset, self._annotations)
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

        Raises BenchError for an image that the annotations lack, that was added before, or of another size.
        """
        if image_id not in self._annotations:
            raise BenchError(f"image {image_id} has no panoptic annotation: evaluate the split that it belongs to")
        if image_id in self._images:
            raise BenchError(f"image {image_id} was already evaluated: add each image once")
        entry = self._annotations[image_id]
        path = self._panoptic_dir / entry["file_name"]
        segment_ids = ground_truth.read_segment_ids(path)
        height, width = segment_ids.shape
        if tuple(mask_logits.shape[1:]) != (height, width):
            raise BenchError(
                f"the masks of image {image_id} are {tuple(mask_logits.shape[1:])}, {path} is {(height, width)}: "
                "resize the masks to the image's original size"
            )
        self._images[image_id] = {"id": image_id, "height": height, "width": width, "file_name": ""}

        truth = ground_truth.label_map(segment_ids, entry["segments_info"], self._class_index)
        self._count_pixels(truth, semantic_labels(class_logits, mask_logits).cpu().numpy())
        self._true_segments += ground_truth.segment_annotations(image_id, segment_ids, entry["segments_info"])

        panoptic = panoptic_segments(class_logits, mask_logits, self._is_thing)
        segments = [{"id": s["id"], "category_id": self._category_ids[s["category"]]} for s in panoptic.segments]
        predicted_ids = panoptic.segmentation.cpu().numpy()
        self._predicted_segments += ground_truth.segment_annotations(image_id, predicted_ids, segments)

        instances = instance_predictions(class_logits, mask_logits, self._is_thing)
        found = instances.scores > 0  # empty masks cannot match
        masks = ground_truth.encode_masks(instances.masks[found].cpu().numpy())
        scores, labels = instances.scores[found].tolist(), instances.labels[found].tolist()
        self._detections += [
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

    def _count_pixels(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        valid = truth != ground_truth.VOID
        pairs = truth[valid] * len(self._is_thing) + predicted[valid]
        self._confusion += np.bincount(pairs, minlength=self._confusion.size).reshape(self._confusion.shape)

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


def _instances(dataset: "CocoPanoptic", annotations: dict[int, dict]) -> list[dict] | None:
    """The annotations of the instance file, or None when there is none that covers the panoptic file's images."""
    if dataset.instance_file is None:
        return None
    content = ground_truth.load_json(dataset.instance_file)
    try:
        if not annotations.keys() <= {int(image["id"]) for image in content["images"]}:
            return None
        keys = ("image_id", "category_id", "segmentation", "area", "bbox", "iscrowd")
        return [{key: annotation[key] for key in keys} for annotation in content["annotations"]]
    except (KeyError, TypeError, ValueError):
        raise BenchError(f"{dataset.instance_file} is not in the COCO format: download it again") from None


def _numbered(annotations: list[dict]) -> list[dict]:
    """Shallow copies (pycocotools writes into them) with ids from 1: id 0 would count as unmatched."""
    return [{**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)]
