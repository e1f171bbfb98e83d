"""From names to models: builds what `Method` and `Backbone` name.

The module of a model, with the package that it needs (timm, transformers), is imported when such a model is built.
"""

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import nn

from bench.errors import BenchError
from bench.experiments.backbones import Backbone, Normalisation, get_backbone
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.methods import get_method
from bench.loading import load_object

FACTORS = ("hierarchical_level", "decoder_layers", "num_queries", "transformer_decoder", "encoder_layers")


def build_model(
    experiment: Experiment, seed: int | None = None, drop_path: float = 0.0, auxiliary: bool = False
) -> nn.Module:
    """The experiment's model with random weights, from `seed` if one is given (the global state is kept).

    drop_path: the rate of stochastic depth in training; ResNets have none. auxiliary: with the auxiliary head that a
    per-pixel method may be trained with.
    Builds on the default device, so `with torch.device("meta")` gives a model without memory. Its attribute
    `normalisation` says what `preprocess` must do to its input.
    Raises BenchError where the builder refuses, e.g. for a timm model without a feature pyramid.
    """
    method = get_method(experiment.method)
    factors = {name: getattr(experiment, name) for name in FACTORS} | {"auxiliary": auxiliary}
    small = {name: experiment.sizes[size] for name, size in method.small.items()} if experiment.sizes else {}
    build = load_object(method.builder)
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            backbone = _build_backbone(experiment, drop_path)
            model = build(get_dataset(experiment.dataset).num_classes, backbone, **_taken(build, factors), **small)
        except ValueError as error:
            raise BenchError(f"cannot build {experiment.key}: {error}") from error
    model.normalisation = _normalisation(get_backbone(experiment.backbone))
    return model


def _normalisation(backbone: Backbone) -> Normalisation:
    """How the backbone's input is normalised."""
    if isinstance(backbone.normalisation, Normalisation):
        return backbone.normalisation
    return Normalisation(*load_object(backbone.normalisation)(**backbone.arguments))


def _build_backbone(experiment: Experiment, drop_path: float) -> nn.Module:
    backbone, wanted = get_backbone(experiment.backbone), dict(get_method(experiment.method).of_backbone)
    if wanted.pop("trained_norms", False):
        wanted["norm"] = nn.BatchNorm2d
    level = experiment.hierarchical_level if experiment.downsampling == "deformable" else 0
    wanted |= {"drop_path": drop_path, "deformable_level": level}
    build = load_object(backbone.builder)
    return build(**backbone.arguments, **_taken(build, wanted))


def _taken(build: Callable, offered: Mapping[str, object]) -> dict[str, object]:
    """Those of the offered arguments that the builder has parameters for."""
    return {name: value for name, value in offered.items() if name in inspect.signature(build).parameters}
