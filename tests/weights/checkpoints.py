"""Checkpoints as their authors publish them."""

import pickle
from collections import OrderedDict

import torch

from bench.weights.official import official_name
from bench.zoo import build_model

SPELLING = [  # names that show which of the possible spellings a file of HCFormer-R50 has
    "backbone.stem.0.weight",
    "backbone.stem.9.weight",
    "backbone.layer1.0.bn1.weight",
    "backbone.clustering_layers.9.fine_emb.weight",
    "sem_seg_head.predictor.transformer_ffn_layers.0.linear1.weight",
]


def official(chosen):
    """A checkpoint as HCFormer's authors publish it, of few bytes: half precision; its model's outputs are finite."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build_model(chosen).state_dict().items()}
    state = {name: torch.rand(shape) * (2 / max(2, shape[1:].numel())) ** 0.5 for name, shape in shapes.items()}
    state = {name: value - value.mean() if value.ndim > 1 else 0.5 + value for name, value in state.items()}
    return {official_name(name, "hcformer", SPELLING): value.half() for name, value in state.items()}


def write(path, state, **others):
    """A training checkpoint as detectron2 writes it: torch file, or pickle of arrays."""
    if path.suffix == ".pkl":
        arrays = OrderedDict((name, value.numpy()) for name, value in state.items())
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody", **others}))
    else:
        torch.save({"model": state, "iteration": 9, **others}, path)
    return path
