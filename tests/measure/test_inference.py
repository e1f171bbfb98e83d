"""Models made ready to predict: the same predictions, the given model untouched, and what latency is timed on."""

import pytest
import torch
from torch import nn

from bench.experiments.experiment import experiment
from bench.measure.complexity.protocol import ImageSizes
from bench.measure.inference import prepare_for_inference
from bench.measure.latency.workbench import Workbench
from bench.zoo import build_model
from models.clustering import use_form
from tests.reference import relative_error

SMALL = experiment("hcformer", "small", "synthetic_panoptic", "small")
IMAGES = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("many_images", [False, True])
@torch.inference_mode()
def test_folded_models_predict_the_same_and_the_given_one_stays(many_images, monkeypatch):
    monkeypatch.setattr("bench.measure.inference.fast_form", lambda device: "compiled" if many_images else 1 / 0)
    model = build_model(SMALL, seed=0)
    expected = model.eval()(IMAGES)
    ready = prepare_for_inference(model, "cpu", fold=True, many_images=many_images)
    assert norms(model) and not norms(ready) and not ready.training
    assert ready.form == ("compiled" if many_images else "reference") and ready.normalisation == model.normalisation
    found = use_form(ready, "reference")(IMAGES)
    assert relative_error(found.class_logits, expected.class_logits) < 1e-5
    assert relative_error(found.mask_logits, expected.mask_logits) < 1e-5


def test_nothing_is_folded_unless_asked():
    model = build_model(SMALL, seed=0)
    assert prepare_for_inference(model, "cpu", fold=False, many_images=False) is model and norms(model)


@pytest.mark.parametrize("fold", [False, True])
def test_latency_is_timed_on_folded_models_where_that_is_switched_on(fold):
    sizes = ImageSizes(original=(64, 64), image=(64, 64), padded=(64, 64))
    maskformer = experiment("maskformer", "small", "synthetic_panoptic", "small")
    bench = Workbench([maskformer], "cpu", lambda e: build_model(e, seed=0), {maskformer.key: sizes}, fold)
    (model,) = bench.models.values()
    assert bool(norms(model)) is not fold
    assert all(milliseconds > 0 for milliseconds in bench.time(maskformer.key))
