"""The factors of an experiment as options of the command line; the same names as in Python, records and tables."""

from collections.abc import Sequence
from typing import Annotated

import typer

from bench.experiments.backbones import BACKBONES
from bench.experiments.datasets import DATASETS
from bench.experiments.methods import DOWNSAMPLINGS, METHODS, TRANSFORMER_DECODERS

# Of checkpoints: small models and generated data sets have none.
_BACKBONES = [backbone.name for backbone in BACKBONES.values() if "paper" in backbone.scales]
_DATASETS = [dataset.name for dataset in DATASETS.values() if not dataset.generated]
_OF_MASKS = [method.name for method in METHODS.values() if method.predicts == "masks"]
_OF_IMAGES = [method.name for method in METHODS.values() if method.predicts in ("masks", "pixels")]


def _choice(flag: str, names: Sequence[str], help: str):
    return typer.Option(flag, metavar="|".join(names), help=help)


Method = Annotated[str, _choice("--method", _OF_MASKS, "Method.")]
Backbone = Annotated[str, _choice("--backbone", _BACKBONES, "Backbone.")]
Dataset = Annotated[str, _choice("--dataset", _DATASETS, "Data set that it was trained on.")]
OptionalMethod = Annotated[str | None, _choice("--method", _OF_IMAGES, "Method; default: the file's.")]
OptionalBackbone = Annotated[str | None, _choice("--backbone", _BACKBONES, "Backbone; default: the file's.")]
OptionalDataset = Annotated[str | None, _choice("--dataset", _DATASETS, "Data set; default: the file's.")]
HierarchicalLevel = Annotated[
    int | None, typer.Option("--hierarchical-level", min=0, max=3, help="Clustering modules; default: the file's.")
]
DecoderLayers = Annotated[
    int | None, typer.Option("--decoder-layers", min=1, help="Transformer decoder layers; default: the file's.")
]
NumQueries = Annotated[int | None, typer.Option("--num-queries", min=1, help="Queries; default: the file's.")]
Downsampling = Annotated[
    str | None, _choice("--downsampling", DOWNSAMPLINGS, "DCNv2 or convolution; default: the file's.")
]
TransformerDecoder = Annotated[
    str | None, _choice("--transformer-decoder", TRANSFORMER_DECODERS, "Decoder; default: the file's.")
]


def given(**factors: int | str | None) -> dict[str, int | str]:
    """Those factors that were given."""
    return {name: value for name, value in factors.items() if value is not None}
