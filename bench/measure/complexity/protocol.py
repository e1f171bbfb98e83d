"""On which images and how the FLOPs of an experiment are counted: the protocol of each data set."""

import csv
from dataclasses import dataclass
from importlib import resources

from bench.data.registry import get_dataset_info
from bench.data.transforms import test_size
from bench.errors import BenchError
from bench.evaluation.postprocess import Size
from bench.experiments.experiment import PIXEL_METHODS, Experiment
from bench.experiments.recipe import recipe_for

SHORTER_SIDE, LONGER_SIDE, DIVISOR = 800, 1333, 32
SIZES_FILE = "coco_val2017_first100.csv"
ADE20K_ORIGINAL, CITYSCAPES = (512, 683), (1024, 2048)  # a common size of ADE20K's images; that of all of Cityscapes

# What a record says about how its FLOPs were counted.
PROTOCOL = {
    "convention": "one multiply-add counts one (fvcore)",
    "images": "first 100 of COCO val2017 by image id",
    "resizing": f"shorter side {SHORTER_SIDE}, longer at most {LONGER_SIDE}, padded to {DIVISOR}",
    "counted": "network, resizing of the masks, semantic einsum at the original size; for MaskFormer the mask "
    "predictions of all decoder layers, as its released implementation computes them and the paper counts them",
}
_EVERY_LAYER = (
    "; for MaskFormer the mask predictions of all decoder layers, as its released implementation computes them"
)
_COUNTED = {
    "instance": "network, resizing of the masks (instance results need no semantic einsum)" + _EVERY_LAYER,
    "semantic": "network, resizing of the masks to the input, semantic einsum there, resizing of the class scores to "
    "the original size" + _EVERY_LAYER,
    "pixel": "network, resizing of the class logits to the input and to the original size",
    "segformer": "network with both matrix products of every attention and a head for the data set's classes, "
    "resizing of the class logits to the input and to the original size",
    "mask_rcnn": "network with the most proposals and detections that its configuration allows, 1000 and 100 an image, "
    "resizing of 100 masks to the original size",
}


@dataclass(frozen=True)
class ImageSizes:
    """The three sizes of one test image: as it is on disk, resized for the model, padded for the model."""

    original: Size
    image: Size
    padded: Size


def resized(height: int, width: int) -> Size:
    """Shorter side 800, unless the longer would exceed 1333."""
    return test_size(height, width, SHORTER_SIDE, LONGER_SIDE)


def padded(height: int, width: int) -> Size:
    """Both sides rounded up to a multiple of 32."""
    return -(-height // DIVISOR) * DIVISOR, -(-width // DIVISOR) * DIVISOR


def coco_test_sizes() -> list[ImageSizes]:
    """Sizes of the first 100 images of COCO val2017 in ascending image id (facts kept beside this file)."""
    text = resources.files("bench.measure.complexity").joinpath(SIZES_FILE).read_text()
    originals = [(int(row["height"]), int(row["width"])) for row in csv.DictReader(text.splitlines())]
    return [ImageSizes(size, resized(*size), padded(*resized(*size))) for size in originals]


def counted_images(experiment: Experiment) -> list[ImageSizes]:
    """The images whose mean FLOPs the paper's tables give, by data set.

    COCO: the first 100 of val2017; ADE20K: one crop of the size that the method is trained with, from an image of
    512x683; Cityscapes: one image. Raises BenchError for another data set or scale.
    """
    if experiment.scale == "paper":
        if experiment.dataset in ("coco_panoptic", "coco_instance"):
            return coco_test_sizes()
        if experiment.dataset == "ade20k":
            crop = _crop_size(experiment)
            return [ImageSizes(ADE20K_ORIGINAL, crop, crop)]
        if experiment.dataset == "cityscapes":
            return [ImageSizes(CITYSCAPES, CITYSCAPES, CITYSCAPES)]
    raise BenchError(
        f"FLOPs of '{experiment.dataset}' at scale '{experiment.scale}' have no protocol: "
        "count experiments on coco_panoptic, coco_instance, ade20k or cityscapes at scale paper"
    )


def protocol(experiment: Experiment) -> dict[str, str]:
    """How `measure_complexity` counts this experiment, for its record. Raises BenchError as that does."""
    task = get_dataset_info(experiment.dataset).task
    if task == "panoptic":
        counted_images(experiment)
        return PROTOCOL
    kind = "pixel" if experiment.method in PIXEL_METHODS else task
    counted = _COUNTED.get(experiment.method, _COUNTED[kind])
    if task == "instance":
        return PROTOCOL | {"counted": counted}
    size = counted_images(experiment)[0]
    images = f"one of {size_text(size.padded)}, original {size_text(size.original)}"
    return {"convention": PROTOCOL["convention"], "images": images, "resizing": "none", "counted": counted}


def _crop_size(experiment: Experiment) -> Size:
    """Of ADE20K. SegFormer, which is not trained here, has the one that Table 3 (a) prints."""
    if experiment.method == "segformer":
        return (640, 640) if experiment.backbone == "mit_b5" else (512, 512)
    return tuple(recipe_for(experiment).crop_size)


def size_text(size: Size) -> str:
    """ "800x1088", height first."""
    return f"{size[0]}x{size[1]}"
