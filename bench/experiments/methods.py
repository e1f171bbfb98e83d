"""The methods. A new one is one `Method(...)` here and the file with its builder in `baselines/` (or `models/`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench.errors import unknown_name

COCO = ("coco_panoptic", "coco_instance")
RESNETS = ("r50", "r101")
DOWNSAMPLINGS = ("deformable", "conv")
TRANSFORMER_DECODERS = ("masked", "standard")
SIZE_DIVISIBILITY = 32  # what images are padded to a multiple of


@dataclass(frozen=True)
class DefaultWhere:
    """A default that holds instead where every named field of the experiment has one of these values."""

    value: int | str
    where: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Factor:
    """What a method makes of one factor of `Experiment`.

    value: default at paper scale, unless one of `cases` holds (the first that does). small: default at small scale,
    where it is another one. source: of the default. fixed: the method has this one value, whatever is asked for.
    low, high: the least and the most that the method takes, `refusal` what it says of others ({}: its name).
    """

    value: int | str
    source: str
    small: int | str | None = None
    cases: tuple[DefaultWhere, ...] = ()
    fixed: bool = False
    low: int = 1
    high: int = 64
    refusal: str = ""

    def default(self, context: Mapping[str, object]) -> int | str:
        """context: the experiment's fields as far as they are known."""
        if context["scale"] == "small" and self.small is not None:
            return self.small
        holds = (c.value for c in self.cases if all(context.get(name) in known for name, known in c.where.items()))
        return next(holds, self.value)


@dataclass(frozen=True)
class Method:
    """A method of the tables, as declared facts.

    label: what people call it. builder: "module:function"; the function takes `num_classes`, `backbone` and, by name,
    whichever factors of the experiment it has parameters for. predicts: "masks", "pixels" or "boxes", the kind of its
    prediction. backbones: families (or names) of the backbones it is built on, remedy: what to use where another one
    is asked for. datasets: those it exists on, none for all. trained: has a recipe. timed: has a latency; where the
    work depends on what a trained model finds, it has not. doubled_iterations: trained twice as long, as the paper
    says of it. sizes: of its small models, part of the identity of an experiment at that scale; small: parameter of the
    builder -> its size there. of_backbone: parameters of the backbone that the method decides. flops: how they are
    counted, where the data set's task does not say it all. unpadded: data sets whose images it takes at their own size;
    all others are padded to multiples of `SIZE_DIVISIBILITY`. cut_to_mask: a panoptic segment is what its query wins
    and its mask covers (probability of at least 0.5); False: all that its query wins.
    """

    name: str
    label: str
    builder: str
    predicts: str
    factors: Mapping[str, Factor]
    backbones: tuple[str, ...] = ("resnet", "swin", "small", "timm")
    remedy: str = ""
    datasets: tuple[str, ...] = ()
    trained: bool = True
    timed: bool = True
    doubled_iterations: bool = False
    sizes: Mapping[str, object] = field(default_factory=dict)
    small: Mapping[str, str] = field(default_factory=dict)
    of_backbone: Mapping[str, object] = field(default_factory=dict)
    flops: str = ""
    unpadded: tuple[str, ...] = ()
    cut_to_mask: bool = True

    @property
    def clusters(self) -> bool:
        """Whether it has clustering modules (eq. 3)."""
        return not self.factors["hierarchical_level"].fixed


# The sizes that all small models share: backbone (bottlenecks a stage, planes of the first stage, no pooling in the
# stem: at 128 pixels stride 32 would leave 4 x 4 clusters for up to twelve segments), transformer and C_F of the
# clustering. No dropout: with MaskFormer's 0.1, MaskFormer learns nothing in a few hundred steps.
SMALL_SIZES = {
    "blocks": 1,
    "width": 16,
    "channels": 64,
    "heads": 4,
    "hidden": 256,
    "dropout": 0.0,
    "embedding_channels": 64,
}
# What small per-pixel models have instead of 256 channels and DeepLabv3's rates (12, 24, 36), in proportion to the map.
_PIXEL_SIZES = SMALL_SIZES | {"channels": 64, "atrous_rates": (4, 8, 12)}
_TRANSFORMER = {name: name for name in ("channels", "heads", "hidden", "dropout")}
_ITS_TRANSFORMER = {
    "hidden_dim": "channels", "num_heads": "heads", "encoder_feedforward": "hidden", "decoder_feedforward": "hidden",
}  # fmt: skip
_EMBEDDING = {"embedding_channels": "embedding_channels"}
_DEEPLAB = {"channels": "channels", "atrous_rates": "atrous_rates"}

_UNCLUSTERED = Factor(0, "none: the method has no clustering modules", fixed=True, low=0, high=3)
_CLUSTERED = Factor(3, "paper 3.1", low=0, high=3)
_DCNV2 = Factor("deformable", "paper 2.5: DCNv2 in ResNets")
_NO_DECODER = Factor(0, "none: the method has no transformer decoder", fixed=True, low=0)
_OWN = "its paper's configuration"
_HCFORMER = {
    "hierarchical_level": _CLUSTERED,
    "decoder_layers": Factor(
        8, "paper 3.1: 8; reference configuration: 9 on Cityscapes and with standard decoder", small=3,
        cases=(DefaultWhere(9, {"dataset": ("cityscapes",)}), DefaultWhere(9, {"transformer_decoder": ("standard",)})),
    ),
    "num_queries": Factor(
        100, "paper D.1, D.2: 100, 200 with Swin-L on COCO", small=20, high=10_000,
        cases=(DefaultWhere(200, {"backbone": ("swin_l",), "dataset": COCO}),),
    ),
    "downsampling": _DCNV2,
    "transformer_decoder": Factor("masked", "paper 3.1"),
    "encoder_layers": Factor(
        0, "paper 2.5: six in HCFormer+, none in HCFormer", small=0, low=0, high=0,
        refusal="{} has no transformer encoder (encoder_layers 0): use method 'hcformer+'",
    ),
}  # fmt: skip
_NEEDS_ENCODER = "{} needs a transformer encoder: set encoder_layers to 1 or more"
_ENCODER = Factor(6, _HCFORMER["encoder_layers"].source, small=2, refusal=_NEEDS_ENCODER)
_MASK2FORMER = {
    "hierarchical_level": _UNCLUSTERED,
    "decoder_layers": Factor(9, _OWN, small=3),
    "num_queries": replace(_HCFORMER["num_queries"], source=_OWN),
    "downsampling": _DCNV2,
    "transformer_decoder": Factor("masked", "its paper", fixed=True),
    "encoder_layers": Factor(6, _OWN, small=2, refusal=_NEEDS_ENCODER),
}
_MASKFORMER = _MASK2FORMER | {
    "decoder_layers": Factor(6, _OWN, small=3),
    "num_queries": Factor(100, _OWN, small=20, high=10_000),
    "transformer_decoder": Factor("standard", "its paper", fixed=True),
    # The pixel decoder has the encoder with ResNets on COCO only.
    "encoder_layers": Factor(0, _OWN, small=2, low=0, cases=(DefaultWhere(6, {"backbone": RESNETS, "dataset": COCO}),)),
}
_PIXELS = {
    "hierarchical_level": _UNCLUSTERED,
    "decoder_layers": _NO_DECODER,
    "num_queries": replace(_NO_DECODER, high=10_000),
    "downsampling": _DCNV2,
    "transformer_decoder": replace(_NO_DECODER, value="standard"),
    "encoder_layers": _NO_DECODER,
}
_HC_PIXELS = _PIXELS | {"hierarchical_level": _CLUSTERED}
_OF_PIXELS: dict[str, Any] = {
    "predicts": "pixels",
    "backbones": ("resnet", "small", "timm"),
    "remedy": "use 'r101', as Table I, or 'r50'",
    "sizes": _PIXEL_SIZES,
}
_DILATED = _OF_PIXELS | {"backbones": ("resnet", "small")}
# Per-pixel models train the batch norms of their backbone, as [69], whose protocol they follow (appendix E.1).
_TRAINED_NORMS = {"trained_norms": True}
_STRIDE_8 = _TRAINED_NORMS | {"dilated_stages": 2}  # PSPNet and DeepLabv3 predict at output stride 8 (appendix E.1)
_LAST_NORM = {"out_norms": (3,)}  # HCFormer uses the last feature alone: no output norm at the finer stages

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("hcformer", "HCFormer", "models.hcformer:hcformer", "masks", _HCFORMER,
               sizes=SMALL_SIZES, small=_TRANSFORMER | _EMBEDDING, of_backbone=_LAST_NORM),
        Method("hcformer+", "HCFormer+", "models.hcformer:hcformer", "masks", _HCFORMER | {"encoder_layers": _ENCODER},
               doubled_iterations=True, sizes=SMALL_SIZES, small=_TRANSFORMER | _EMBEDDING, of_backbone=_LAST_NORM),
        # Released: SIZE_DIVISIBILITY 0 in the configurations for COCO, 32 elsewhere; `panoptic_inference` without the
        # "& (masks >= 0.5)" that Mask2Former has added.
        Method("maskformer", "MaskFormer", "baselines.maskformer:maskformer", "masks", _MASKFORMER,
               sizes=SMALL_SIZES, small=_TRANSFORMER, unpadded=COCO, cut_to_mask=False),
        Method("mask2former", "Mask2Former", "baselines.mask2former:mask2former", "masks", _MASK2FORMER,
               sizes=SMALL_SIZES, small=_ITS_TRANSFORMER),
        Method("fcn_32s", "FCN-32s", "baselines.per_pixel:fcn_32s", factors=_PIXELS,
               of_backbone=_TRAINED_NORMS, **_OF_PIXELS),
        Method("fpn", "FPN", "baselines.fpn:fpn", factors=_PIXELS, small={"channels": "channels"},
               of_backbone=_TRAINED_NORMS, **_OF_PIXELS),
        Method("pspnet", "PSPNet", "baselines.per_pixel:pspnet", factors=_PIXELS, of_backbone=_STRIDE_8, **_DILATED),
        Method("deeplabv3", "DeepLabv3", "baselines.per_pixel:deeplabv3", factors=_PIXELS, small=_DEEPLAB,
               of_backbone=_STRIDE_8, **_DILATED),
        Method("hc_fcn_32s", "HC-FCN-32s", "models.per_pixel:hc_fcn_32s", factors=_HC_PIXELS, small=_EMBEDDING,
               of_backbone=_TRAINED_NORMS, **_OF_PIXELS),
        Method("hc_pspnet", "HC-PSPNet", "models.per_pixel:hc_pspnet", factors=_HC_PIXELS, small=_EMBEDDING,
               of_backbone=_TRAINED_NORMS, **_OF_PIXELS),
        Method("hc_deeplabv3", "HC-DeepLabv3", "models.per_pixel:hc_deeplabv3", factors=_HC_PIXELS,
               small=_EMBEDDING | _DEEPLAB, of_backbone=_TRAINED_NORMS, **_OF_PIXELS),
        Method("segformer", "SegFormer", "baselines.segformer:segformer", "pixels", _PIXELS, ("mit",),
               "use 'mit_b2' or 'mit_b5', as Table 3", trained=False,
               flops="network with both matrix products of every attention and a head for the data set's classes, "
               "resizing of the class logits to the input and to the original size"),
        Method("mask_rcnn", "Mask R-CNN", "baselines.mask_rcnn:mask_rcnn", "boxes", _PIXELS, ("r50",),
               "use 'r50' and 'coco_instance', as Table 2", ("coco_instance",), trained=False, timed=False,
               flops="network with the most proposals and detections that its configuration allows, 1000 and 100 an "
               "image, resizing of 100 masks to the original size"),
    )
}  # fmt: skip


def get_method(name: str) -> Method:
    """Raises BenchError for an unknown name, naming the nearest known one."""
    if name not in METHODS:
        raise unknown_name("method", str(name), METHODS)
    return METHODS[name]
