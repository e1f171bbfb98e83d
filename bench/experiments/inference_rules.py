"""How an experiment is tested: the size and padding of its images, and what is made of its predictions."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.methods import SIZE_DIVISIBILITY, get_method
from bench.experiments.recipe import recipe_for

# What `bench.evaluation.postprocess` makes of a prediction. The text changes with every change of that, and of what an
# `ImageLog` holds of it: it decides whether an evaluation goes on where it stopped, and whether a record is current.
_POST_PROCESSING = (
    "version 2: masks at the image's original size before anything is decided; panoptic: class probability above 0.8, "
    "at least 0.8 of its mask won{}; instances: the 100 best pairs of query and class; semantic: argmax; semantic data "
    "sets: class scores at the model's input size, brought to the original size, argmax"
)
_UNCUT = ", every pixel that it wins"


@dataclass(frozen=True)
class InferenceRules:
    """From an image to the results of a method, at a recipe's scale.

    The shorter side becomes `shorter_side` pixels, the longer at most `longer_side`; None keeps the size. Then the
    image is padded to multiples of `size_divisibility`. cut_to_mask: see `Method`.
    """

    shorter_side: int | None
    longer_side: int | None
    size_divisibility: int = SIZE_DIVISIBILITY
    cut_to_mask: bool = True


def inference_rules(experiment: Experiment) -> InferenceRules:
    """Raises BenchError where there is no recipe for the experiment."""
    recipe, method = recipe_for(experiment), get_method(experiment.method)
    sides = recipe.test_shorter_side, recipe.test_longer_side
    return InferenceRules(*sides, size_divisibility(experiment), method.cut_to_mask)


def size_divisibility(experiment: Experiment) -> int:
    """What both sides of an image in the model are a multiple of, also of a method without recipe; 1: any size."""
    return 1 if experiment.dataset in get_method(experiment.method).unpadded else SIZE_DIVISIBILITY


def post_processing(experiment: Experiment) -> str:
    """What a record says of how results were made of predictions."""
    uncut = get_dataset(experiment.dataset).task == "panoptic" and not get_method(experiment.method).cut_to_mask
    return _POST_PROCESSING.format(_UNCUT if uncut else "")


def padding(experiments: Iterable[Experiment]) -> str:
    """What a record says of how the images of all whose measurements it holds were padded."""
    each = sorted({(e.method, size_divisibility(e)) for e in experiments})
    return ", ".join(f"{method}: {'none' if n == 1 else f'to a multiple of {n}'}" for method, n in each)


def inference_facts(experiment: Experiment) -> dict[str, str]:
    """What decides results besides the model and the test size: for a record's details and the identity of a log."""
    return {"post_processing": post_processing(experiment), "padding": padding([experiment])}


def is_padding(text: str | None, experiments: Iterable[Experiment]) -> bool:
    """Whether a record of these experiments says what `padding` says today.

    None: it is from before records said it, when all images were padded.
    """
    if text is None:
        return all(size_divisibility(e) == SIZE_DIVISIBILITY for e in experiments)
    return text == padding(experiments)
