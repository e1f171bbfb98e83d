"""`Experiment`: what is measured, as a frozen value whose content hash is its identity."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields

from bench.errors import BenchError, unknown_name
from bench.experiments.hashing import content_hash

METHODS = ("hcformer", "hcformer+", "maskformer", "mask2former")
# Per-pixel classification (Tables I and 3): they return a PixelPrediction and have no transformer decoder.
PIXEL_METHODS = ("fcn_32s", "fpn", "pspnet", "deeplabv3", "hc_fcn_32s", "hc_pspnet", "hc_deeplabv3", "segformer")
COUNTED_ONLY = ("mask_rcnn",)  # no accuracy and no latency: the work depends on what a trained model finds
UNTRAINED = ("segformer", *COUNTED_ONLY)  # no recipe
WITHOUT_DECODER = PIXEL_METHODS + COUNTED_ONLY  # of a transformer
BACKBONES = ("r50", "r101", "swin_s", "swin_l", "small")
MIT_BACKBONES = ("mit_b2", "mit_b5")  # of SegFormer alone
DATASETS = (
    "coco_panoptic", "coco_instance", "ade20k", "cityscapes", "camvid", "nuclei", "synthetic_panoptic",
    "synthetic_semantic",
)  # fmt: skip
SCALES = ("paper", "small")
DOWNSAMPLINGS = ("deformable", "conv")
TRANSFORMER_DECODERS = ("masked", "standard")

# The small-scale factors of every method, all in one place: nothing of the paper depends on them.
SMALL_SCALE_FACTORS = {
    "hcformer": {"decoder_layers": 3, "num_queries": 20, "encoder_layers": 0, "downsampling": "deformable"},
    "hcformer+": {"decoder_layers": 3, "num_queries": 20, "encoder_layers": 2, "downsampling": "deformable"},
    "maskformer": {"decoder_layers": 3, "num_queries": 20, "encoder_layers": 2},
    "mask2former": {"decoder_layers": 3, "num_queries": 20, "encoder_layers": 2},
}
PIXEL_FACTORS = {"decoder_layers": 0, "num_queries": 0, "encoder_layers": 0, "transformer_decoder": "standard"}
SMALL_SCALE_QUERIES = {"nuclei": 100}  # instead of 20: an image has some thirty nuclei, a few have over a hundred

# The sizes that all small models share: backbone (bottlenecks a stage, planes of the first stage, no pooling in the
# stem: at 128 pixels stride 32 would leave 4 x 4 clusters for up to twelve segments), transformer and C_F of the
# clustering. No dropout: with MaskFormer's 0.1, MaskFormer learns nothing in a few hundred steps.
SMALL_SCALE_MODEL = {
    "blocks": 1,
    "width": 16,
    "channels": 64,
    "heads": 4,
    "hidden": 256,
    "dropout": 0.0,
    "embedding_channels": 64,
}
# What small per-pixel models have instead of 256 channels and DeepLabv3's rates (12, 24, 36), in proportion to the map.
SMALL_SCALE_PIXEL = {"channels": 64, "atrous_rates": (4, 8, 12)}


@dataclass(frozen=True)
class Experiment:
    """One method with one backbone on one data set at one scale, and the paper's factors.

    A factor that a method does not have is set to one fixed value, so that equal experiments compare and hash
    equal: MaskFormer and Mask2Former have `hierarchical_level` 0; without clustering, and in Swin (which keeps
    its own patch merging), `downsampling` is "conv", meaning "not replaced"; MaskFormer's decoder is "standard",
    Mask2Former's "masked". Per-pixel methods and Mask R-CNN have no transformer decoder: layers and queries 0,
    decoder "standard"; without "hc_" in their name no clustering either.

    hierarchical_level: number of clustering modules, 0 to 3, counted from the coarsest downsampling (Table 4).
    decoder_layers: transformer decoder layers (Table 5).  num_queries: learnable queries (Appendix D).
    downsampling: "deformable" (DCNv2, section 2.5) or "conv".  transformer_decoder: "masked" or "standard".
    encoder_layers: transformer encoder layers after the backbone (HCFormer+) or in the pixel decoder.
    Raises BenchError for unknown names and impossible factors.
    """

    method: str
    backbone: str
    dataset: str
    scale: str
    hierarchical_level: int
    decoder_layers: int
    num_queries: int
    downsampling: str
    transformer_decoder: str
    encoder_layers: int

    def __post_init__(self):
        _known("method", self.method, METHODS + WITHOUT_DECODER)
        _known("backbone", self.backbone, BACKBONES + MIT_BACKBONES)
        _known("data set", self.dataset, DATASETS)
        _known("scale", self.scale, SCALES)
        _known("downsampling", self.downsampling, DOWNSAMPLINGS)
        _known("transformer decoder", self.transformer_decoder, TRANSFORMER_DECODERS)
        if (self.backbone == "small") != (self.scale == "small"):
            raise BenchError(f"backbone '{self.backbone}' does not exist at scale '{self.scale}': use both 'small'")
        _in_range("hierarchical_level", self.hierarchical_level, 0, 3)
        fewest = 0 if self.method in WITHOUT_DECODER else 1
        _in_range("decoder_layers", self.decoder_layers, fewest, 64)
        _in_range("num_queries", self.num_queries, fewest, 10_000)
        _in_range("encoder_layers", self.encoder_layers, 0, 64)
        if self.method == "hcformer" and self.encoder_layers:
            raise BenchError("hcformer has no transformer encoder (encoder_layers 0): use method 'hcformer+'")
        if self.method in ("hcformer+", "mask2former") and not self.encoder_layers:
            raise BenchError(f"{self.method} needs a transformer encoder: set encoder_layers to 1 or more")
        self._check_pair()
        self._normalise()

    def _check_pair(self) -> None:
        """Backbones and data sets of the methods that are not built on all of them."""
        if self.method == "segformer" and self.backbone not in MIT_BACKBONES:
            raise BenchError(f"segformer is not built on {self.backbone}: use 'mit_b2' or 'mit_b5', as Table 3")
        if self.method != "segformer" and self.backbone in MIT_BACKBONES:
            raise BenchError(f"{self.method} is not built on {self.backbone}: only 'segformer' is")
        if self.method in PIXEL_METHODS and self.backbone.startswith("swin"):
            raise BenchError(f"{self.method} is not built on {self.backbone}: use 'r101', as Table I, or 'r50'")
        if self.method == "mask_rcnn" and (self.backbone, self.dataset) != ("r50", "coco_instance"):
            where = f"{self.backbone} and {self.dataset}"
            raise BenchError(f"mask_rcnn is not counted on {where}: use 'r50' and 'coco_instance', as Table 2")

    def _normalise(self) -> None:
        if self.method in ("maskformer", "mask2former"):
            decoder = "standard" if self.method == "maskformer" else "masked"
            object.__setattr__(self, "hierarchical_level", 0)
            object.__setattr__(self, "transformer_decoder", decoder)
        if self.method in WITHOUT_DECODER:
            for name, value in PIXEL_FACTORS.items():
                object.__setattr__(self, name, value)
            if not self.method.startswith("hc_"):
                object.__setattr__(self, "hierarchical_level", 0)
        if self.hierarchical_level == 0 or self.backbone.startswith("swin"):
            object.__setattr__(self, "downsampling", "conv")

    @property
    def key(self) -> str:
        """Name of the experiment's folder in a store: readable part and content hash."""
        method = self.method.replace("+", "_plus")
        sizes = SMALL_SCALE_MODEL if self.scale == "small" else {}
        if self.scale == "small" and self.method in PIXEL_METHODS:
            sizes = sizes | SMALL_SCALE_PIXEL
        content = content_hash(self.to_dict() | sizes)
        return f"{method}-{self.backbone}-{self.dataset}-{self.scale}-{content}"

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> "Experiment":
        """Inverse of `to_dict`; BenchError when fields are missing, unknown or impossible."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise BenchError(f"an experiment needs exactly the fields {', '.join(sorted(names))}")
        return cls(**values)


def experiment(method: str, backbone: str, dataset: str, scale: str, **factors) -> Experiment:
    """The experiment with the factors of the paper's numbers, each replaced by `factors` where given.

    Sections 3.1 and Appendix D. Where the released configurations say otherwise, theirs, because the paper's numbers
    come from them: nine decoder layers on Cityscapes and with the standard decoder (the paper says eight).
    """
    _known("method", method, METHODS + WITHOUT_DECODER)
    known = [field.name for field in fields(Experiment)][4:]
    for name in factors:
        _known("factor", name, known)
    defaults = {
        "hierarchical_level": 3,
        "downsampling": "deformable",
        "transformer_decoder": "masked",
    }
    if method in WITHOUT_DECODER:
        defaults |= PIXEL_FACTORS
    elif scale == "small":
        defaults |= SMALL_SCALE_FACTORS[method]
        defaults["num_queries"] = SMALL_SCALE_QUERIES.get(dataset, defaults["num_queries"])
    else:
        defaults |= _paper_factors(method, backbone, dataset, factors.get("transformer_decoder", "masked"))
    return Experiment(method, backbone, dataset, scale, **(defaults | factors))


def factor_sources(experiment: Experiment) -> dict[str, str]:
    """Where the default of each factor comes from, by name of the factor ("3.1": section of the paper)."""
    if experiment.method in WITHOUT_DECODER:
        return _pixel_sources(experiment)
    small, own = experiment.scale == "small", not experiment.method.startswith("hcformer")
    sizes = "ours: small scale" if small else "its paper's configuration" if own else None
    return {
        "hierarchical_level": "none: the method has no clustering modules" if own else "paper 3.1",
        "decoder_layers": sizes or "paper 3.1: 8; reference configuration: 9 on Cityscapes and with standard decoder",
        "num_queries": sizes or "paper D.1, D.2: 100, 200 with Swin-L on COCO",
        "downsampling": "not replaced" if experiment.downsampling == "conv" else "paper 2.5: DCNv2 in ResNets",
        "transformer_decoder": "its paper" if own else "paper 3.1",
        "encoder_layers": sizes or "paper 2.5: six in HCFormer+, none in HCFormer",
    }


def _pixel_sources(experiment: Experiment) -> dict[str, str]:
    plain = not experiment.method.startswith("hc_")
    return dict.fromkeys(PIXEL_FACTORS, "none: the method has no transformer decoder") | {
        "hierarchical_level": "none: the method has no clustering modules" if plain else "paper 3.1",
        "downsampling": "not replaced" if experiment.downsampling == "conv" else "paper 2.5: DCNv2 in ResNets",
    }


def _paper_factors(method: str, backbone: str, dataset: str, transformer_decoder: str) -> dict[str, int]:
    nine = dataset == "cityscapes" or transformer_decoder == "standard"
    decoder_layers = {"maskformer": 6, "mask2former": 9}.get(method, 9 if nine else 8)
    encoder_layers = {"hcformer": 0}.get(method, 6)
    if method == "maskformer" and (backbone.startswith("swin") or not dataset.startswith("coco")):
        encoder_layers = 0  # MaskFormer's pixel decoder has the encoder with ResNets on COCO only
    many = backbone == "swin_l" and dataset.startswith("coco") and method != "maskformer"
    num_queries = 200 if many else 100
    return {"decoder_layers": decoder_layers, "encoder_layers": encoder_layers, "num_queries": num_queries}


def _known(kind: str, name: object, known: Collection[str]) -> None:
    if name not in known:
        raise unknown_name(kind, str(name), known)


def _in_range(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BenchError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
