"""From experiments to models: every name builds, wrong ones are answered, seeds decide the weights."""

import itertools

import pytest
import torch

from bench.errors import BenchError
from bench.experiments import experiment
from bench.experiments.backbones import BACKBONES
from bench.experiments.methods import METHODS
from bench.zoo import build_model
from models.outputs import MaskPrediction

OF_MASKS = [method.name for method in METHODS.values() if method.predicts == "masks"]
PAIRS = [
    (method.name, backbone.name)
    for method, backbone in itertools.product(METHODS.values(), BACKBONES.values())
    if backbone.family in method.backbones
]


def make(method, backbone="small"):
    names = ("synthetic_panoptic", "small") if backbone == "small" else ("coco_panoptic", "paper")
    return experiment(method, backbone, *names)


@pytest.mark.parametrize(("method", "backbone"), PAIRS)
def test_every_pair_builds_without_memory(method, backbone):
    with torch.device("meta"):
        model = build_model(make(method, backbone))
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize("method", OF_MASKS)
def test_small_model(method):
    what = make(method)
    state = torch.get_rng_state()
    model, again = build_model(what, 3), build_model(what, 3)
    assert torch.equal(torch.get_rng_state(), state)
    ours, others = model.state_dict(), again.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], others[name])] == []
    assert sum(parameter.numel() for parameter in model.parameters()) < 2e6
    with torch.inference_mode():
        prediction = model.eval()(torch.zeros(1, 3, 64, 64))
    assert isinstance(prediction, MaskPrediction)
    assert prediction.class_logits.shape == (1, what.num_queries, 11)  # six thing and four stuff classes, no object
    assert prediction.mask_logits.shape[:2] == (1, what.num_queries)


def test_no_seed_draws_from_the_global_state():
    models = []
    for state in (0, 0, 1):
        torch.manual_seed(state)
        models.append(build_model(make("hcformer")).backbone.conv1.weight)
    assert torch.equal(models[0], models[1]) and not torch.equal(models[0], models[2])


@pytest.mark.parametrize(
    ("field", "name", "nearest"),
    [("method", "maskfromer", "maskformer"), ("method", "HCFormer", "hcformer"), ("backbone", "swin-s", "swin_s")],
)
def test_unknown_name(field, name, nearest):
    what = make("hcformer", "r50")
    object.__setattr__(what, field, name)  # an experiment itself refuses it
    with pytest.raises(BenchError, match=rf"^(?!.*\n)unknown {field} '{name}': did you mean '{nearest}'"):
        build_model(what)
