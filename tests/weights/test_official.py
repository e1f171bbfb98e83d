"""Names of published checkpoints: every entry of every reference model has its place in ours."""

import pytest
import torch

from bench.experiments.experiment import experiment
from bench.weights.formats import FORMATS
from bench.zoo import build_model
from tests.reference import reference_names
from tests.weights.checkpoints import PUBLISHED

METHODS = {
    "hcformer_plus": "hcformer+",
    "hcformer": "hcformer",
    "maskformer": "maskformer",
    "mask2former": "mask2former",
}
BACKBONES = {"r50": "r50", "swins": "swin_s"}
WITHOUT_PLACE = ("num_batches_tracked", "relative_position_index", "criterion.empty_weight")
# name of the reference model -> factors that its name tells
MODELS = {
    "hcformer_r50": {},
    "hcformer_r50_conv": {"downsampling": "conv"},
    "hcformer_r50_level0": {"hierarchical_level": 0},
    "hcformer_r50_level1": {"hierarchical_level": 1},
    "hcformer_r50_level2": {"hierarchical_level": 2},
    "hcformer_r50_mfdec": {"transformer_decoder": "standard"},
    "hcformer_plus_r50": {},
    "hcformer_plus_r50_mfdec": {"transformer_decoder": "standard"},
    "hcformer_swins": {},
    "hcformer_swins_level2": {"hierarchical_level": 2},
    "hcformer_plus_swins": {},
    "maskformer_r50": {},
    "maskformer_r50_ade": {},
    "maskformer_swins": {},
    "mask2former_r50": {},
    "mask2former_swins": {},
}


def names_of(model):
    """Official names and shapes, without the entries that have no place in our models."""
    return {name: shape for name, shape, _ in reference_names(model) if not name.endswith(WITHOUT_PLACE)}


def the_experiment(model):
    method = next(ours for theirs, ours in METHODS.items() if model.startswith(theirs))
    backbone = next(ours for theirs, ours in BACKBONES.items() if theirs in model)
    return experiment(
        method, backbone, "ade20k" if model.endswith("_ade") else "coco_panoptic", "paper", **MODELS[model]
    )


@pytest.mark.parametrize("model", MODELS)
def test_names_and_shapes_are_ours(model):
    chosen = the_experiment(model)
    with torch.device("meta"):
        ours = {name: tuple(value.shape) for name, value in build_model(chosen).state_dict().items()}
        theirs = {name: torch.empty(shape) for name, shape in names_of(model).items()}
    [kind] = [kind for kind in FORMATS if kind.recognise(theirs)]
    assert kind == PUBLISHED[chosen.method]
    renamed = kind.to_ours(theirs)
    assert {name: tuple(value.shape) for name, value in renamed.items()} == ours
    factors = kind.factors(renamed)
    assert factors == {name: getattr(chosen, name) for name in factors}


def test_first_versions_of_the_model_zoos():
    state = {"sem_seg_head.adapter_1.weight": 1, "sem_seg_head.predictor.static_query.weight": 2}
    assert PUBLISHED["maskformer"].to_ours(state) == {
        "pixel_decoder.laterals.0.0.weight": 1,
        "decoder.query_features.weight": 2,
    }
    ours = {"pixel_decoder.adapter_1.0.weight": 1, "transformer.queries_features.weight": 2}
    assert PUBLISHED["mask2former"].to_ours(state) == ours
