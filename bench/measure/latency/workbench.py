"""Models ready to be timed side by side, within the memory of about one of them."""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from bench.evaluation.postprocess import Sizes
from bench.evaluation.results import RESULTS, Results, results_of
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.methods import get_method
from bench.measure.complexity.protocol import ImageSizes, Size
from bench.measure.inference import prepare_for_inference
from bench.training.engine import MEMORY_FORMAT
from models.outputs import MaskPrediction

CONFIDENT_QUERIES = 20
_ALIGNMENT = 16  # floats: 64 bytes, a cache line


class Workbench:
    """Models of several experiments on one device, in evaluation mode, and what their timing needs."""

    def __init__(
        self,
        experiments: Sequence[Experiment],
        device: str,
        build: Callable[[Experiment], nn.Module],
        sizes: Mapping[str, ImageSizes],
        fold: bool = False,
    ):
        """sizes: of each experiment's image, by its key. fold: batch norms are timed as part of the convolutions."""
        self.device, self.sizes = device, sizes
        self.models: dict[str, nn.Module] = {}
        self._experiments = {e.key: e for e in experiments}
        self._predictions: dict[tuple[int, ...], MaskPrediction] = {}
        pool = torch.empty(0, device=device)
        for experiment in experiments:
            model = prepare_for_inference(build(experiment), device, fold=fold, many_images=True)
            if _pooled_numel(model) > pool.numel():
                pool = torch.empty(_pooled_numel(model), device=device).normal_(std=0.02)
                for other in self.models.values():
                    _move_weights(other, pool)
            _move_weights(model, pool)
            self.models[experiment.key] = model

    def time(self, key: str, size: Size | None = None) -> tuple[float, float]:
        """Milliseconds of one image of batch 1, network alone and with post-processing; size: default, as padded."""
        model, sizes = self.models[key], self.sizes[key]
        image = self._image(size or sizes.padded).to(self.device, memory_format=MEMORY_FORMAT)
        with torch.inference_mode():
            start = self._now()
            output = model(image)
            network = self._now()
            prediction = self._confident(output)
            of_image = tuple(image.shape[-2:]), sizes.image, sizes.original
            ready = self._now()
            post_process(prediction, self._experiments[key], of_image)
            end = self._now()
        return (network - start) * 1000, (network - start + end - ready) * 1000

    @staticmethod
    def _image(size: Size) -> Tensor:
        """A normalised image of noise: some devices are faster on zeros."""
        return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))

    def _now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _confident(self, output: object) -> object:
        """What is post-processed: of masks a synthetic set of them, of anything else the model's own output."""
        if not isinstance(output, MaskPrediction):
            return output
        shape = (*output.class_logits.shape[1:], *output.mask_logits.shape[2:])
        if shape not in self._predictions:
            logits = (part.to(self.device)[None] for part in synthetic_prediction(*shape))
            self._predictions[shape] = MaskPrediction(*logits)
        return self._predictions[shape]


def post_process(prediction: object, experiment: Experiment, sizes: Sizes) -> Results:
    """What is timed of `results_of`: the result that the data set's task is named after, without further ones."""
    info, cut = get_dataset(experiment.dataset), get_method(experiment.method).cut_to_mask
    is_thing = [True] * info.num_things + [False] * info.num_stuff
    return results_of(prediction, info.task, sizes, is_thing, RESULTS[info.task][:1], cut_to_mask=cut)


def synthetic_prediction(queries: int, classes: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """What a trained model could return: class logits [Q, classes] (the last is "no object"), mask logits [Q, h, w].

    The first 20 queries are certain of one class each; their masks are discs on a grid that overlap a little, so
    that each one competes for pixels and is kept. The others predict "no object" and an empty mask. Each has one class
    that is likelier than the rest, so that the best pairs of query and class, the instances, are of different queries.
    """
    confident = min(CONFIDENT_QUERIES, queries)
    class_logits = torch.zeros(queries, classes)
    every = torch.arange(queries)
    class_logits[every, every % (classes - 1)] = 1.0
    class_logits[:, -1] = 20.0
    chosen = every[:confident]
    class_logits[chosen, -1] = 0.0
    class_logits[chosen, chosen % (classes - 1)] = 20.0
    mask_logits = torch.full((queries, height, width), -10.0)
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    for i in range(confident):
        row, column = divmod(i, 5)
        distance = ((y[:, None] - (row + 0.5) / 4) ** 2 * 16 + (x - (column + 0.5) / 5) ** 2 * 25).sqrt()
        mask_logits[i] = 10 * (0.55 - distance)  # radius 0.55 of a grid cell: neighbours overlap
    return class_logits, mask_logits


def _pooled_numel(model: nn.Module) -> int:
    return sum(-(-p.numel() // _ALIGNMENT) * _ALIGNMENT for p in model.parameters() if p.dim() > 1)


def _move_weights(model: nn.Module, pool: Tensor) -> None:
    """Let the matrices and kernels of a model be consecutive views of `pool`: models share memory, layers do not."""
    offset = 0
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = pool[offset : offset + parameter.numel()].view(parameter.shape)
            offset += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
