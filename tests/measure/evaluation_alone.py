"""An evaluation in this process, as that of a checkpoint or after a training."""

import tempfile
from pathlib import Path

import torch

from bench.evaluation.evaluate import evaluate_shared
from bench.experiments.inference_rules import InferenceRules
from bench.measure.accuracy import predict_image
from bench.training.distributed import World

AS_IT_IS = InferenceRules(None, None)


def evaluate(model, rules, dataset, progress=lambda done, total: None, folder=None, predictions=None):
    """The metrics; its log lies in `folder`, or in one of its own."""

    def predict(index):
        return predict_image(model, dataset, dataset[index], rules)

    with tempfile.TemporaryDirectory() as own:
        world = World(device=torch.device("cpu"))
        return evaluate_shared(
            predict, dataset, folder or Path(own), {}, world, progress, predictions=predictions
        )[0]  # fmt: skip
