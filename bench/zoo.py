"""From names to models: the only place that maps an experiment to a builder.

Packages of single models (timm, transformers) are imported when such a model is built, so that the others do without.
"""

from collections.abc import Callable

import torch
from torch import nn

from baselines.fpn import fpn
from baselines.maskformer import maskformer
from baselines.per_pixel import DILATED_STAGES, deeplabv3, fcn_32s, pspnet
from bench.data.registry import get_dataset_info
from bench.errors import BenchError, unknown_name
from bench.experiments.experiment import PIXEL_METHODS, SMALL_SCALE_MODEL, SMALL_SCALE_PIXEL, Experiment
from models.backbones.resnet import resnet, small_resnet
from models.hcformer import hcformer
from models.per_pixel import hc_deeplabv3, hc_fcn_32s, hc_pspnet


def _r50(experiment: Experiment, drop_path: float) -> nn.Module:
    return resnet(50, **_resnet_factors(experiment))


def _r101(experiment: Experiment, drop_path: float) -> nn.Module:
    return resnet(101, **_resnet_factors(experiment))


def _swin_s(experiment: Experiment, drop_path: float) -> nn.Module:
    from models.backbones.swin import swin

    return swin("swin_s", drop_path, out_norms=_output_norms(experiment))


def _swin_l(experiment: Experiment, drop_path: float) -> nn.Module:
    from models.backbones.swin import swin

    return swin("swin_l", drop_path, out_norms=_output_norms(experiment))


def _mit(experiment: Experiment, drop_path: float) -> nn.Module:
    from baselines.segformer import mit

    return mit(experiment.backbone, drop_path)


def _small(experiment: Experiment, drop_path: float) -> nn.Module:
    sizes = SMALL_SCALE_MODEL["blocks"], SMALL_SCALE_MODEL["width"]
    return small_resnet(_deformable_level(experiment), *sizes, _dilated_stages(experiment))


def _deformable_level(experiment: Experiment) -> int:
    return experiment.hierarchical_level if experiment.downsampling == "deformable" else 0


def _dilated_stages(experiment: Experiment) -> int:
    """PSPNet and DeepLabv3 predict at output stride 8 (appendix E.1)."""
    return DILATED_STAGES if experiment.method in ("pspnet", "deeplabv3") else 0


def _resnet_factors(experiment: Experiment) -> dict[str, object]:
    """Per-pixel models train the batch norms of their backbone, as [69], whose protocol they follow (appendix E.1)."""
    factors: dict[str, object] = {"deformable_level": _deformable_level(experiment)}
    if experiment.method in PIXEL_METHODS:
        factors |= {"dilated_stages": _dilated_stages(experiment), "norm": nn.BatchNorm2d}
    return factors


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


def _clustering(experiment: Experiment) -> dict[str, int]:
    """Level and, where it is not the paper's, width of the clustering of a per-pixel model."""
    small = experiment.scale == "small"
    width = {"embedding_channels": SMALL_SCALE_MODEL["embedding_channels"]} if small else {}
    return {"hierarchical_level": experiment.hierarchical_level} | width


def _channels(experiment: Experiment) -> dict[str, int]:
    return {"channels": SMALL_SCALE_PIXEL["channels"]} if experiment.scale == "small" else {}


def _atrous(experiment: Experiment) -> dict[str, object]:
    """Width and dilations of DeepLabv3's head, where they are not the paper's."""
    return dict(SMALL_SCALE_PIXEL) if experiment.scale == "small" else {}


def _width(experiment: Experiment) -> dict[str, float]:
    """Width, heads, feed-forward width and dropout of the transformer, where they are not the paper's."""
    names = ("channels", "heads", "hidden", "dropout")
    return {name: SMALL_SCALE_MODEL[name] for name in names} if experiment.scale == "small" else {}


def _segformer(experiment: Experiment, num_classes: int, backbone: nn.Module) -> nn.Module:
    from baselines.segformer import segformer

    return segformer(num_classes, backbone)


def _mask_rcnn(experiment: Experiment, num_classes: int, backbone: nn.Module) -> nn.Module:
    from baselines.mask_rcnn import mask_rcnn

    return mask_rcnn(num_classes, backbone)


BACKBONES: dict[str, Callable[[Experiment, float], nn.Module]] = {
    "r50": _r50,
    "r101": _r101,
    "swin_s": _swin_s,
    "swin_l": _swin_l,
    "mit_b2": _mit,
    "mit_b5": _mit,
    "small": _small,
}
METHODS: dict[str, Callable[[Experiment, int, nn.Module], nn.Module]] = {
    "hcformer": _hcformer,
    "hcformer+": _hcformer,
    "maskformer": _maskformer,
    "mask2former": _mask2former,
}
# Builder and what it takes beside classes, backbone and auxiliary.
PIXEL_BUILDERS: dict[str, tuple[Callable[..., nn.Module], Callable[[Experiment], dict]]] = {
    "fcn_32s": (fcn_32s, lambda experiment: {}),
    "fpn": (fpn, _channels),
    "pspnet": (pspnet, lambda experiment: {}),
    "deeplabv3": (deeplabv3, _atrous),
    "hc_fcn_32s": (hc_fcn_32s, _clustering),
    "hc_pspnet": (hc_pspnet, _clustering),
    "hc_deeplabv3": (hc_deeplabv3, lambda experiment: _clustering(experiment) | _atrous(experiment)),
}
OTHER_BUILDERS: dict[str, Callable[[Experiment, int, nn.Module], nn.Module]] = {
    "segformer": _segformer,
    "mask_rcnn": _mask_rcnn,
}


def build_model(
    experiment: Experiment, seed: int | None = None, drop_path: float = 0.0, auxiliary: bool = False
) -> nn.Module:
    """The experiment's model with random weights, from `seed` if one is given (the global state is kept).

    drop_path: the rate of stochastic depth in training; ResNets have none. auxiliary: with the auxiliary head that a
    per-pixel method may be trained with.
    Builds on the default device, so `with torch.device("meta")` gives a model without memory.
    Raises BenchError for a method or backbone that no builder stands for, naming the nearest.
    """
    methods = METHODS | PIXEL_BUILDERS | OTHER_BUILDERS
    if experiment.method not in methods:
        raise unknown_name("method", experiment.method, methods)
    if experiment.backbone not in BACKBONES:
        raise unknown_name("backbone", experiment.backbone, BACKBONES)
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            backbone = BACKBONES[experiment.backbone](experiment, drop_path)
            num_classes = get_dataset_info(experiment.dataset).num_classes
            if experiment.method in PIXEL_BUILDERS:
                builder, factors = PIXEL_BUILDERS[experiment.method]
                return builder(num_classes, backbone, auxiliary=auxiliary, **factors(experiment))
            return (METHODS | OTHER_BUILDERS)[experiment.method](experiment, num_classes, backbone)
        except ValueError as error:
            raise BenchError(f"cannot build {experiment.key}: {error}") from error
