"""The factors of an experiment as options of the command line; the same names as in Python, records and tables."""

from collections.abc import Sequence
from typing import Annotated

import typer

from bench.experiments.experiment import BACKBONES, DATASETS, DOWNSAMPLINGS, METHODS, TRANSFORMER_DECODERS


def _choice(flag: str, names: Sequence[str], help: str):
    return typer.Option(flag, metavar="|".join(names), help=help)


Method = Annotated[str, _choice("--method", METHODS, "Method.")]
Backbone = Annotated[str, _choice("--backbone", BACKBONES[:-1], "Backbone.")]
Dataset = Annotated[str, _choice("--dataset", DATASETS[:-1], "Data set that it was trained on.")]
OptionalMethod = Annotated[str | None, _choice("--method", METHODS, "Method; default: the file's.")]
OptionalBackbone = Annotated[str | None, _choice("--backbone", BACKBONES[:-1], "Backbone; default: the file's.")]
OptionalDataset = Annotated[str | None, _choice("--dataset", DATASETS[:-1], "Data set; default: the file's.")]
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
