"""`Experiment`: what is measured, as a frozen value whose content hash is its identity."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields

from bench.errors import BenchError, unknown_name
from bench.experiments.backbones import Backbone, get_backbone
from bench.experiments.datasets import get_dataset
from bench.experiments.hashing import content_hash
from bench.experiments.methods import DOWNSAMPLINGS, METHODS, TRANSFORMER_DECODERS, Method, get_method

SCALES = ("paper", "small")
_NUMBERS = ("hierarchical_level", "decoder_layers", "num_queries", "encoder_layers")


@dataclass(frozen=True)
class Experiment:
    """One method with one backbone on one data set at one scale, and the paper's factors.

    A factor that a method does not have is set to one fixed value (`Factor.fixed`), so that equal experiments compare
    and hash equal: MaskFormer has `hierarchical_level` 0 and the "standard" decoder, per-pixel methods have 0 decoder
    layers and queries. Without clustering, and in a backbone that keeps its own (Swin's patch merging),
    `downsampling` is "conv", meaning "not replaced".

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
        method, backbone = get_method(self.method), get_backbone(self.backbone)
        get_dataset(self.dataset)
        _known("scale", self.scale, SCALES)
        _known("downsampling", self.downsampling, DOWNSAMPLINGS)
        _known("transformer decoder", self.transformer_decoder, TRANSFORMER_DECODERS)
        if self.scale not in backbone.scales:
            raise BenchError(f"backbone '{self.backbone}' does not exist at scale '{self.scale}': use both 'small'")
        for name in _NUMBERS:
            self._check_number(name, method)
        _check_pair(method, backbone, self.dataset)
        for name, factor in method.factors.items():
            if factor.fixed:
                object.__setattr__(self, name, factor.value)
        if self.hierarchical_level == 0 or not backbone.deformable:
            object.__setattr__(self, "downsampling", "conv")

    def _check_number(self, name: str, method: Method) -> None:
        value, factor = getattr(self, name), method.factors[name]
        low, high = (0, 64) if factor.refusal else (factor.low, factor.high)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BenchError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
        if not factor.low <= value <= factor.high:
            raise BenchError(factor.refusal.format(method.name))

    @property
    def sizes(self) -> dict[str, object]:
        """Sizes of a small model, which are part of its identity; at paper scale none."""
        return dict(get_method(self.method).sizes) if self.scale == "small" else {}

    @property
    def key(self) -> str:
        """Name of the experiment's folder in a store: readable part and content hash."""
        method, backbone = self.method.replace("+", "_plus"), self.backbone.replace(":", "_")
        return f"{method}-{backbone}-{self.dataset}-{self.scale}-{content_hash(self.to_dict() | self.sizes)}"

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
    declared = get_method(method).factors
    for name in factors:
        _known("factor", name, [field.name for field in fields(Experiment)][4:])
    context = {"backbone": backbone, "dataset": dataset, "scale": scale} | factors
    defaults = {name: factor.default(context) for name, factor in declared.items()}
    if scale == "small" and declared["num_queries"].small is not None:
        defaults["num_queries"] = get_dataset(dataset).small_queries
    return Experiment(method, backbone, dataset, scale, **(defaults | factors))


def factor_sources(experiment: Experiment) -> dict[str, str]:
    """Where the default of each factor comes from, by name of the factor ("3.1": section of the paper)."""
    sources = {}
    for name, factor in get_method(experiment.method).factors.items():
        ours = experiment.scale == "small" and factor.small is not None
        sources[name] = "ours: small scale" if ours else factor.source
    if experiment.downsampling == "conv":
        sources["downsampling"] = "not replaced"
    return sources


def _check_pair(method: Method, backbone: Backbone, dataset: str) -> None:
    """Raises BenchError for a method that is not built on the backbone, or does not exist on the data set."""
    fits = {backbone.name, backbone.family}.intersection(method.backbones)
    if fits and (not method.datasets or dataset in method.datasets):
        return
    if method.datasets:
        raise BenchError(f"{method.name} is not counted on {backbone.name} and {dataset}: {method.remedy}")
    others = [name for name, other in METHODS.items() if backbone.family in other.backbones]
    remedy = f"only '{others[0]}' is" if len(others) == 1 else method.remedy
    raise BenchError(f"{method.name} is not built on {backbone.name}: {remedy}")


def _known(kind: str, name: object, known: Collection[str]) -> None:
    if name not in known:
        raise unknown_name(kind, str(name), known)
