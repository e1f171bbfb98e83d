"""The factors of an experiment as options of the command line; the same names as in Python, records and tables."""

from collections.abc import Sequence
from typing import Annotated

import typer

from bench.experiments.experiment import (
    BACKBONES,
    DATASETS,
    DOWNSAMPLINGS,
    METHODS,
    PIXEL_METHODS,
    TRANSFORMER_DECODERS,
)

# Of checkpoints: small models and generated data sets have none.
_BACKBONES = [name for name in BACKBONES if name != "small"]
_DATASETS = [name for name in DATASETS if not name.startswith("synthetic")]


def _choice(flag: str, names: Sequence[str], help: str):
    return typer.Option(flag, metavar="|".join(names), help=help)


Method = Annotated[str, _choice("--method", METHODS, "Method.")]
Backbone = Annotated[str, _choice("--backbone", _BACKBONES, "Backbone.")]
Dataset = Annotated[str, _choice("--dataset", _DATASETS, "Data set that it was trained on.")]
OptionalMethod = Annotated[str | None, _choice("--method", METHODS + PIXEL_METHODS, "Method; default: the file's.")]
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
