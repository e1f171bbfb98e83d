"""The backbones. A new one is one `Backbone(...)` here and its builder in `models/backbones/`.

`timm:NAME` needs neither: any model of timm with a feature pyramid is a backbone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.errors import BenchError, unknown_name
from bench.experiments.methods import COCO, SMALL_SIZES
from bench.experiments.protocols import FOLLOWED, WHOLE_BATCH, Value, Values

TIMM = "timm:"


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the channels R, G, B of an input with values from 0 to 255; ImageNet's."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Backbone:
    """A backbone as declared facts.

    builder: "module:function", called with `arguments` and, by name, whichever it has parameters for of
    `drop_path`, `deformable_level` and what a method decides (`Method.of_backbone`). family: what
    `Method.backbones` names. deformable: its downsampling can be DCNv2 (section 2.5); others keep their own.
    scales: those at which it exists. normalisation: of its input, or "module:function" that gives its mean and
    standard deviation for the arguments. imagenet: its ImageNet weights, by the package that has them (torchvision or
    timm) and their name; None: it has none.
    recipe: values that differ from the data set's recipe at paper scale, on all or (`recipe_on`) on some data sets;
    doubled_iterations: data sets on which it is trained twice as long.
    """

    name: str
    label: str
    builder: str
    family: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    deformable: bool = False
    scales: tuple[str, ...] = ("paper",)
    normalisation: Normalisation | str = Normalisation()
    imagenet: str | None = None
    recipe: Values = field(default_factory=dict)
    recipe_on: Mapping[str, Values] = field(default_factory=dict)
    doubled_iterations: tuple[str, ...] = ()


_RESNET, _SWIN, _MIT = "models.backbones.resnet:resnet", "models.backbones.swin:swin", "baselines.segformer:mit"
_SMALL = {name: SMALL_SIZES[name] for name in ("blocks", "width")}
_OF_SWIN: Values = {
    "drop_path": Value(0.3, FOLLOWED),
    "pretrained": Value(True, "reference configuration: ImageNet weights of Swin's authors"),
}
_OF_SWIN_L: Values = _OF_SWIN | {"activation_checkpointing": Value(True, "ours: memory; the numbers stay the same")}
_CROP_640 = {"crop_size": Value((640, 640), "paper table 3")}
_OF_SWIN_L_ON_ADE20K: Values = _CROP_640 | {
    "test_shorter_side": Value(640, "Mask2Former's configuration of Swin-L"),
    "test_longer_side": Value(2560, "Mask2Former's configuration of Swin-L"),
    "longest_side": Value(2560, "Mask2Former's configuration of Swin-L"),
}
_OF_SWIN_L_ON_COCO: Values = {
    "class_loss_images": Value(4, "reference configuration: one GPU's images; paper D: 16 on four GPUs"),
}

BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone("r50", "R50", _RESNET, "resnet", {"depth": 50}, True,
                 imagenet="torchvision ResNet50_Weights.IMAGENET1K_V1"),
        Backbone("r101", "R101", _RESNET, "resnet", {"depth": 101}, True,
                 imagenet="torchvision ResNet101_Weights.IMAGENET1K_V1"),
        Backbone("swin_s", "Swin-S", _SWIN, "swin", {"variant": "swin_s"}, recipe=_OF_SWIN,
                 imagenet="timm swin_small_patch4_window7_224, ImageNet-1K"),
        Backbone("swin_l", "Swin-L", _SWIN, "swin", {"variant": "swin_l"}, recipe=_OF_SWIN_L,
                 recipe_on={"ade20k": _OF_SWIN_L_ON_ADE20K, **dict.fromkeys(COCO, _OF_SWIN_L_ON_COCO)},
                 doubled_iterations=COCO,
                 imagenet="timm swin_large_patch4_window12_384.ms_in22k, ImageNet-22K"),
        Backbone("small", "small", "models.backbones.resnet:small_resnet", "small", _SMALL, True, ("small",)),
        Backbone("mit_b2", "MiT-B2", _MIT, "mit", {"name": "mit_b2"}),
        Backbone("mit_b5", "MiT-B5", _MIT, "mit", {"name": "mit_b5"}, recipe_on={"ade20k": _CROP_640}),
    )
}  # fmt: skip


def get_backbone(name: str) -> Backbone:
    """Raises BenchError for an unknown name, naming the nearest known one."""
    if isinstance(name, str) and name.startswith(TIMM):
        return _of_timm(name)
    if name not in BACKBONES:
        raise unknown_name("backbone", str(name), (*BACKBONES, "timm:NAME"))
    return BACKBONES[name]


def _of_timm(name: str) -> Backbone:
    """Whether timm knows the model shows when it is built: this package needs the standard library alone."""
    model = name.removeprefix(TIMM)
    if not model or not all(c.isascii() and (c.isalnum() or c in "._") for c in model):
        raise BenchError(f"'{name}' names no model of timm: write timm:NAME, e.g. timm:convnext_tiny")
    untrained: Values = {
        "pretrained": Value(False, "ours: weights of timm are not fetched"),
        "backbone_multiplier": Value(1.0, "ours: nothing is pretrained, so the backbone learns at the full rate"),
        "drop_path": Value(0.0, "ours: none"),
        "batch_norm": Value(WHOLE_BATCH, "ours: trained where it has any, as nothing is pretrained; of all images"),
    }
    return Backbone(
        name, model, "models.backbones.timm_pyramid:timm_pyramid", "timm", {"name": model}, scales=("paper", "small"),
        normalisation="models.backbones.timm_pyramid:timm_normalisation", recipe=untrained,
    )  # fmt: skip
