"""From names to models: the only place that maps an experiment to a builder.

Packages of single models (timm, transformers) are imported when such a model is built, so that the others do without.
"""

from collections.abc import Callable

import torch
from torch import nn

from baselines.maskformer import maskformer
from bench.data.registry import get_dataset_info
from bench.errors import BenchError, unknown_name
from bench.experiments.experiment import SMALL_SCALE_MODEL, Experiment
from models.backbones.resnet import resnet, small_resnet
from models.hcformer import hcformer


def _r50(experiment: Experiment, drop_path: float) -> nn.Module:
    return resnet(50, _deformable_level(experiment))


def _r101(experiment: Experiment, drop_path: float) -> nn.Module:
    return resnet(101, _deformable_level(experiment))


def _swin_s(experiment: Experiment, drop_path: float) -> nn.Module:
    from models.backbones.swin import swin

    return swin("swin_s", drop_path, out_norms=_output_norms(experiment))


def _swin_l(experiment: Experiment, drop_path: float) -> nn.Module:
    from models.backbones.swin import swin

    return swin("swin_l", drop_path, out_norms=_output_norms(experiment))


def _small(experiment: Experiment, drop_path: float) -> nn.Module:
    return small_resnet(_deformable_level(experiment), SMALL_SCALE_MODEL["blocks"], SMALL_SCALE_MODEL["width"])


def _deformable_level(experiment: Experiment) -> int:
    return experiment.hierarchical_level if experiment.downsampling == "deformable" else 0


def _output_norms(experiment: Experiment) -> tuple[int, ...]:
    """HCFormer uses the last feature alone, so it has no output norm at the finer stages."""
    return (3,) if experiment.method.startswith("hcformer") else (0, 1, 2, 3)


def _hcformer(experiment: Experiment, num_classes: int, backbone: nn.Module) -> nn.Module:
    small = experiment.scale == "small"
    embedding = {"embedding_channels": SMALL_SCALE_MODEL["embedding_channels"]} if small else {}
    return hcformer(
        num_classes,
        backbone,
        experiment.hierarchical_level,
        experiment.decoder_layers,
        experiment.num_queries,
        experiment.transformer_decoder,
        experiment.encoder_layers,
        **_width(experiment),
        **embedding,
    )


def _maskformer(experiment: Experiment, num_classes: int, backbone: nn.Module) -> nn.Module:
    return maskformer(
        num_classes,
        backbone,
        experiment.decoder_layers,
        experiment.num_queries,
        experiment.encoder_layers,
        **_width(experiment),
    )


def _mask2former(experiment: Experiment, num_classes: int, backbone: nn.Module) -> nn.Module:
    from baselines.mask2former import mask2former

    width = {}
    if experiment.scale == "small":
        hidden = SMALL_SCALE_MODEL["hidden"]
        width = {"hidden_dim": SMALL_SCALE_MODEL["channels"], "num_heads": SMALL_SCALE_MODEL["heads"]}
        width |= {"encoder_feedforward": hidden, "decoder_feedforward": hidden}
    return mask2former(
        num_classes,
        backbone,
        experiment.num_queries,
        experiment.decoder_layers,
        experiment.encoder_layers,
        **width,
    )


def _width(experiment: Experiment) -> dict[str, float]:
    """Width, heads, feed-forward width and dropout of the transformer, where they are not the paper's."""
    names = ("channels", "heads", "hidden", "dropout")
    return {name: SMALL_SCALE_MODEL[name] for name in names} if experiment.scale == "small" else {}


BACKBONES: dict[str, Callable[[Experiment, float], nn.Module]] = {
    "r50": _r50,
    "r101": _r101,
    "swin_s": _swin_s,
    "swin_l": _swin_l,
    "small": _small,
}
METHODS: dict[str, Callable[[Experiment, int, nn.Module], nn.Module]] = {
    "hcformer": _hcformer,
    "hcformer+": _hcformer,
    "maskformer": _maskformer,
    "mask2former": _mask2former,
}


def build_model(experiment: Experiment, seed: int | None = None, drop_path: float = 0.0) -> nn.Module:
    """The experiment's model with random weights, from `seed` if one is given (the global state is kept).

    drop_path: the rate of stochastic depth in training; ResNets have none.
    Builds on the default device, so `with torch.device("meta")` gives a model without memory.
    Raises BenchError for a method or backbone that no builder stands for, naming the nearest.
    """
    if experiment.method not in METHODS:
        raise unknown_name("method", experiment.method, METHODS)
    if experiment.backbone not in BACKBONES:
        raise unknown_name("backbone", experiment.backbone, BACKBONES)
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            backbone = BACKBONES[experiment.backbone](experiment, drop_path)
            num_classes = get_dataset_info(experiment.dataset).num_classes
            return METHODS[experiment.method](experiment, num_classes, backbone)
        except ValueError as error:
            raise BenchError(f"cannot build {experiment.key}: {error}") from error
