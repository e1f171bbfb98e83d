"""Good files, of which the hostile ones are changed copies: a data set, predictions, a record, weights, a training."""

from pathlib import Path

import torch

from bench.data.registry import open_split
from bench.data.synthesis.layouts import synthesize
from bench.evaluation.prediction_writer import PredictionWriter
from bench.records import Store
from bench.weights.convert import write_weights
from bench.weights.load import pack
from bench.zoo import build_model
from tests.campaign.hostile_files import CHECKPOINT, TRAINED
from tests.evaluation.noisy import noisy_logits, results_from
from tests.report import fakes


def prepare(folder: Path) -> None:
    """Write "coco", "predictions", "measured" (with a store), "weights.safetensors" and "training" (with a store)."""
    synthesize("coco_panoptic", folder / "coco", images=2)
    dataset = open_split("coco_panoptic", "val2017", folder / "coco")
    facts = {"dataset": "coco_panoptic", "split": "val2017", "model": "a model", "post_processing": "version 0"}
    writer = PredictionWriter(folder / "predictions", dataset, facts)
    for index, sample in enumerate(dataset):
        found = noisy_logits(sample, len(dataset.categories), seed=index)
        writer.write(results_from(dataset, sample.image_id, *found))
    writer.finish()
    Store(folder / "measured" / "store").write(fakes.complexity())
    model = build_model(TRAINED, seed=0)
    facts = {"source": "the campaign", "source_sha256": "", "format": "hcformer-bench"}
    facts |= {"content": "model", "experiment": TRAINED.to_dict()}
    write_weights(model.state_dict(), pack(facts), folder / "weights.safetensors")
    (folder / "training" / CHECKPOINT).parent.mkdir(parents=True)
    torch.save({"identity": "another run"}, folder / "training" / CHECKPOINT)
