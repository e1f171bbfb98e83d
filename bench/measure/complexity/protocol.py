"""On which images and how the FLOPs of an experiment are counted: the protocol of each data set."""

import csv
from dataclasses import dataclass
from importlib import resources

from bench.data.transforms import size_at_test
from bench.errors import BenchError
from bench.evaluation.postprocess import Size
from bench.experiments.backbones import get_backbone
from bench.experiments.datasets import DATASETS, get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.inference_rules import padding, size_divisibility
from bench.experiments.methods import SIZE_DIVISIBILITY, get_method

SHORTER_SIDE, LONGER_SIDE = 800, 1333

# What a record says about how its FLOPs were counted.
CONVENTION = "one multiply-add counts one (fvcore)"
_EVERY_LAYER = (
    "; for MaskFormer the mask predictions of all decoder layers, as its released implementation computes them"
)
_COUNTED = {
    "panoptic": "network, resizing of the masks, semantic einsum at the original size"
    + _EVERY_LAYER
    + " and the paper counts them",
    "instance": "network, resizing of the masks (instance results need no semantic einsum)" + _EVERY_LAYER,
    "semantic": "network, resizing of the masks to the input, semantic einsum there, resizing of the class scores to "
    "the original size" + _EVERY_LAYER,
    "pixel": "network, resizing of the class logits to the input and to the original size",
}


@dataclass(frozen=True)
class ImageSizes:
    """The three sizes of one test image: as it is on disk, resized for the model, padded for the model."""

    original: Size
    image: Size
    padded: Size


def resized(height: int, width: int) -> Size:
    """Shorter side 800, unless the longer would exceed 1333."""
    return size_at_test(height, width, SHORTER_SIDE, LONGER_SIDE)


def padded(height: int, width: int, divisibility: int = SIZE_DIVISIBILITY) -> Size:
    """Both sides rounded up to a multiple of `divisibility`."""
    return -(-height // divisibility) * divisibility, -(-width // divisibility) * divisibility


def listed_sizes(name: str, divisibility: int = SIZE_DIVISIBILITY) -> list[ImageSizes]:
    """Sizes of the test images of a list beside this file, e.g. "coco_val2017_first100", in ascending image id."""
    text = resources.files("bench.measure.complexity").joinpath(f"{name}.csv").read_text()
    originals = [(int(row["height"]), int(row["width"])) for row in csv.DictReader(text.splitlines())]
    return [ImageSizes(size, resized(*size), padded(*resized(*size), divisibility)) for size in originals]


def counted_images(experiment: Experiment) -> list[ImageSizes]:
    """The images whose mean FLOPs the paper's tables give (`Dataset.counted`).

    COCO: the first 100 of val2017; ADE20K: one crop of the size that is trained with, from an image of 512x683;
    Cityscapes: one image. Raises BenchError for another data set or scale.
    """
    counted = get_dataset(experiment.dataset).counted
    if experiment.scale != "paper" or counted is None:
        known = ", ".join(dataset.name for dataset in DATASETS.values() if dataset.counted)
        raise BenchError(
            f"FLOPs of '{experiment.dataset}' at scale '{experiment.scale}' have no protocol: "
            f"count experiments on one of {known} at scale paper"
        )
    if counted.sizes:
        return listed_sizes(counted.sizes, size_divisibility(experiment))
    size = _crop_size(experiment) if counted.cropped else counted.original
    return [ImageSizes(counted.original, size, size)]


def protocol(experiment: Experiment) -> dict[str, str]:
    """How `measure_complexity` counts this experiment, for its record. Raises BenchError as that does."""
    method, dataset = get_method(experiment.method), get_dataset(experiment.dataset)
    first = counted_images(experiment)[0]
    images, resizing = f"one of {size_text(first.padded)}, original {size_text(first.original)}", "none"
    if dataset.counted.sizes:
        images, resizing = dataset.counted.text, f"shorter side {SHORTER_SIDE}, longer at most {LONGER_SIDE}"
    return {
        "convention": CONVENTION,
        "images": images,
        "resizing": resizing,
        "padding": padding([experiment]),
        "counted": method.flops or _COUNTED["pixel" if method.predicts == "pixels" else dataset.task],
    }


def _crop_size(experiment: Experiment) -> Size:
    """Of the data set's recipe, varied for the backbone: also of methods that are not trained here."""
    varied = get_backbone(experiment.backbone).recipe_on.get(experiment.dataset, {})
    values = get_dataset(experiment.dataset).recipes[experiment.scale] | varied
    return tuple(values["crop_size"].value)


def size_text(size: Size) -> str:
    """ "800x1088", height first."""
    return f"{size[0]}x{size[1]}"
