"""Parameters and FLOPs of an experiment, by the conventions behind the paper's columns "params" and "FLOPs"."""

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import torch
from torch import Tensor, nn

from bench.data.transforms import test_size
from bench.errors import BenchError
from bench.evaluation.postprocess import Size, resize_masks, semantic_scores
from bench.experiments.experiment import Experiment
from bench.profiling.counter import count_flops

Progress = Callable[[int, int, str], None]  # done, total, what is being done

SHORTER_SIDE, LONGER_SIDE, DIVISOR = 800, 1333, 32
SIZES_FILE = "coco_val2017_first100.csv"
# What a record says about how its FLOPs were counted.
PROTOCOL = {
    "convention": "one multiply-add counts one (fvcore)",
    "images": "first 100 of COCO val2017 by image id",
    "resizing": f"shorter side {SHORTER_SIDE}, longer at most {LONGER_SIDE}, padded to {DIVISOR}",
    "counted": "network, resizing of the masks, semantic einsum at the original size; for MaskFormer the mask "
    "predictions of all decoder layers, as its released implementation computes them and the paper counts them",
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
    text = resources.files("bench.profiling").joinpath(SIZES_FILE).read_text()
    originals = [(int(row["height"]), int(row["width"])) for row in csv.DictReader(text.splitlines())]
    return [ImageSizes(size, resized(*size), padded(*resized(*size))) for size in originals]


def count_parameters(model: nn.Module) -> int:
    """Number of entries of `model.parameters()`, shared ones once; buffers such as frozen statistics do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure_complexity(experiment: Experiment, progress: Progress | None = None) -> dict[str, dict]:
    """Metrics of a complexity record: "params" (M), "flops" (G), and the two parts of the latter, network and rest.

    FLOPs are the mean over the first 100 images of COCO val2017 (see PROTOCOL). The model lives on the meta device:
    nothing is computed. Raises BenchError for another data set or scale, UncountedOperator where a count would have
    to leave out an operator.
    """
    if (experiment.dataset, experiment.scale) != ("coco_panoptic", "paper"):
        raise BenchError(
            f"FLOPs of '{experiment.dataset}' at scale '{experiment.scale}' have no protocol: "
            "count experiments on coco_panoptic at scale paper"
        )
    from bench.zoo import build_model  # only here: counting must not need every model's package

    with torch.device("meta"):
        model = build_model(experiment).eval()
    if hasattr(model, "as_released"):  # a model that does less than the implementation whose work the paper counts
        model = model.as_released()
    network, rest = mean_flops(model, coco_test_sizes(), progress)
    metrics = {
        "params": _metric(count_parameters(model) / 1e6, "M", 1),
        "flops": _metric((network.total() + rest.total()) / 1e9, "G", 100),
        "flops_network": _metric(network.total() / 1e9, "G", 100),
        "flops_post_processing": _metric(rest.total() / 1e9, "G", 100),
    }
    by_operator = {name: count / 1e9 for name, count in (network + rest).most_common()}
    metrics["flops"]["by_operator"] = by_operator
    return metrics


def mean_flops(
    model: nn.Module, sizes: list[ImageSizes], progress: Progress | None = None
) -> tuple[Counter[str], Counter[str]]:
    """Mean FLOPs by operator over test images, of the network and of the post-processing.

    The network is counted once a padded shape, the post-processing once a combination of the three sizes.
    """
    shapes, images = Counter(size.padded for size in sizes), Counter(sizes)
    network: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    predictions: dict[Size, tuple[Tensor, Tensor]] = {}
    device = next(model.parameters()).device
    for done, (shape, times) in enumerate(shapes.items()):
        _report(progress, done, len(shapes), shape)
        flops, predictions[shape] = network_flops(model, shape, device)
        _accumulate(network, flops, times / len(sizes))
    for size, times in images.items():
        flops = post_processing_flops(*predictions[size.padded], size)
        _accumulate(rest, flops, times / len(sizes))
    if progress:
        progress(len(shapes), len(shapes), "counted")
    return network, rest


def network_flops(model: nn.Module, shape: Size, device: torch.device) -> tuple[dict[str, int], tuple[Tensor, Tensor]]:
    """FLOPs by operator for one image of that padded size, and the prediction: [Q, K+1], [Q, h, w]."""
    predictions = []
    image = torch.zeros(1, 3, *shape, device=device)
    _, flops = count_flops(lambda images: predictions.append(model(images)), (image,))
    return flops, (predictions[0].class_logits[0], predictions[0].mask_logits[0])


def post_processing_flops(class_logits: Tensor, mask_logits: Tensor, size: ImageSizes) -> dict[str, int]:
    """FLOPs by operator of resizing the masks and of the semantic einsum at the original size.

    Panoptic post-processing proper only compares, multiplies element by element and counts pixels: 0.
    """

    def post_process(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
        masks = resize_masks(mask_logits, size.padded, size.image, size.original)
        return semantic_scores(class_logits, masks)

    return count_flops(post_process, (class_logits, mask_logits))[1]


def _accumulate(total: Counter[str], flops: dict[str, int], weight: float) -> None:
    for name, count in flops.items():
        total[name] += count * weight


def _metric(value: float, unit: str, n: int) -> dict:
    return {"value": value, "unit": unit, "n": n}


def _report(progress: Progress | None, done: int, total: int, shape: Size) -> None:
    if progress:
        progress(done, total, f"counting {shape[0]}x{shape[1]}")
