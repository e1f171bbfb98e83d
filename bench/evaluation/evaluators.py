"""The evaluator of a data set, by its task."""

from bench.evaluation.base import Evaluator
from bench.evaluation.instance import InstanceEvaluator
from bench.evaluation.panoptic import PanopticEvaluator
from bench.evaluation.semantic import SemanticEvaluator


def make_evaluator(dataset) -> Evaluator:
    """An evaluator with no image taken yet. Raises BenchError where it needs a file that cannot be read."""
    if dataset.task == "panoptic":
        return PanopticEvaluator(dataset)
    if dataset.task == "instance":
        return InstanceEvaluator(dataset)
    return SemanticEvaluator(dataset, dataset.missing_counts)
