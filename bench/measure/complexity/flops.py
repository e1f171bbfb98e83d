"""Parameters and FLOPs of an experiment, by the conventions behind the paper's columns "params" and "FLOPs"."""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from bench.evaluation.postprocess import Size
from bench.evaluation.results import results_of
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment
from bench.measure.complexity.counter import count_flops
from bench.measure.complexity.protocol import ImageSizes, counted_images, protocol, size_text
from bench.measure.measured import Measured

Progress = Callable[[int, int, str], None]  # done, total, what is being done


def count_parameters(model: nn.Module) -> int:
    """Number of entries of `model.parameters()`, shared ones once; buffers such as frozen statistics do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure_complexity(experiment: Experiment, progress: Progress | None = None) -> Measured:
    """Metrics "params" (M), "flops" (G), and the two parts of the latter, network and rest; details: the protocol.

    FLOPs are the mean over the images that `counted_images` names (see `protocol`). The model lives on the meta
    device: nothing is computed. Raises BenchError for a data set or scale without a protocol, UncountedOperator where
    a count would have to leave out an operator.
    """
    begun = time.monotonic()
    images, task = counted_images(experiment), get_dataset(experiment.dataset).task
    from bench.zoo import build_model  # only here: counting must not need every model's package

    with torch.device("meta"):
        model = build_model(experiment).eval()
    if hasattr(model, "as_released"):  # a model that does less than the implementation whose work the paper counts
        model = model.as_released()
    if hasattr(model, "as_counted"):  # a model whose work depends on what it finds
        model = model.as_counted()
    network, rest = mean_flops(model, images, progress, task)
    metrics = {
        "params": _metric(count_parameters(model) / 1e6, "M", 1),
        "flops": _metric((network.total() + rest.total()) / 1e9, "G", len(images)),
        "flops_network": _metric(network.total() / 1e9, "G", len(images)),
        "flops_post_processing": _metric(rest.total() / 1e9, "G", len(images)),
    }
    by_operator = {name: count / 1e9 for name, count in (network + rest).most_common()}
    metrics["flops"]["by_operator"] = by_operator
    return Measured(metrics, time.monotonic() - begun, protocol(experiment))


def mean_flops(
    model: nn.Module, sizes: list[ImageSizes], progress: Progress | None = None, task: str = "panoptic"
) -> tuple[Counter[str], Counter[str]]:
    """Mean FLOPs by operator over test images, of the network and of the post-processing of a task.

    The network is counted once a padded shape, the post-processing once a combination of the three sizes.
    """
    shapes, images = Counter(size.padded for size in sizes), Counter(sizes)
    network: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    predictions: dict[Size, object] = {}
    device = next(model.parameters()).device
    for done, (shape, times) in enumerate(shapes.items()):
        _report(progress, done, len(shapes), shape)
        flops, predictions[shape] = network_flops(model, shape, device)
        _accumulate(network, flops, times / len(sizes))
    for size, times in images.items():
        flops = post_processing_flops(predictions[size.padded], size, task)
        _accumulate(rest, flops, times / len(sizes))
    if progress:
        progress(len(shapes), len(shapes), "counted")
    return network, rest


def network_flops(model: nn.Module, shape: Size, device: torch.device) -> tuple[dict[str, int], object]:
    """FLOPs by operator for one image of that padded size, and the prediction."""
    predictions = []
    image = torch.zeros(1, 3, *shape, device=device)
    _, flops = count_flops(lambda images: predictions.append(model(images)), (image,))
    return flops, predictions[0]


def post_processing_flops(prediction: object, size: ImageSizes, task: str = "panoptic") -> dict[str, int]:
    """FLOPs by operator of what is made of the prediction (batch 1) of one image, up to its original size.

    "panoptic": masks resized, semantic einsum at the original size; panoptic post-processing proper only compares,
    multiplies element by element and counts pixels: 0. "instance": masks resized. "semantic": masks resized to the
    input, semantic einsum there, class scores resized. Class logits of pixels are resized alone. Masks in
    boxes are resized to the original size once: the most, reached where every box is the whole image.
    """
    sizes = size.padded, size.image, size.original
    return count_flops(partial(results_of, prediction, task, sizes, (), counted=True), ())[1]


def _accumulate(total: Counter[str], flops: dict[str, int], weight: float) -> None:
    for name, count in flops.items():
        total[name] += count * weight


def _metric(value: float, unit: str, n: int) -> dict:
    return {"value": value, "unit": unit, "n": n}


def _report(progress: Progress | None, done: int, total: int, shape: Size) -> None:
    if progress:
        progress(done, total, f"counting {size_text(shape)}")
