"""Options and arguments that several commands share; the factors of an experiment have the names of Python and records.

Names of tables and rows are looked up while the command line is read, so that a mistyped one costs no import.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.experiments.backbones import BACKBONES, get_backbone
from bench.experiments.datasets import DATASETS, get_dataset
from bench.experiments.methods import DOWNSAMPLINGS, METHODS, TRANSFORMER_DECODERS, get_method

# Panels of `bench --help`.
MEASURE, TRAIN, CHECKPOINT, DATA, CHECK = "Measure", "Train", "Use a checkpoint", "Data", "Check"

# Of checkpoints: small models and generated data sets have none.
_BACKBONES = [backbone.name for backbone in BACKBONES.values() if "paper" in backbone.scales]
_DATASETS = [dataset.name for dataset in DATASETS.values() if not dataset.generated]
_OF_IMAGES = [method.name for method in METHODS.values() if method.predicts in ("masks", "pixels")]


def _known_table(context: typer.Context, name: str | None) -> str | None:
    if name is not None and not context.resilient_parsing:  # else a shell asks for what could follow
        from bench.experiments.tables import get_table

        get_table(name)
    return name


def _known_row(context: typer.Context, name: str) -> str:
    if not context.resilient_parsing:
        from bench.experiments.tables import find_row

        find_row(name)
    return name


def _known_rows_and_tables(context: typer.Context, names: list[str]) -> list[str]:
    for name in names:
        (_known_row if "/" in name else _known_table)(context, name)
    return names


def complete_table(incomplete: str) -> list[str]:
    """Names of tables, for the shell."""
    from bench.experiments.tables import TABLES

    return [name for name in TABLES if name.startswith(incomplete)]


def _complete_row(incomplete: str) -> list[str]:
    """TABLE/ before there is a slash, then the rows of that table."""
    from bench.experiments.tables import TABLES, row_names

    table, slash, row = incomplete.partition("/")
    if not slash:
        return [f"{name}/" for name in complete_table(table)]
    names = row_names(TABLES[table]) if table in TABLES else ()
    return [f"{table}/{name}" for name in names if name.startswith(row)]


def _complete_dataset(incomplete: str) -> list[str]:
    return [name for name in DATASETS if name.startswith(incomplete)]


def _choice(flag: str, names: Sequence[str], help: str, find: Callable[[str], object] | None = None):
    """find: raises BenchError for an unknown name, while the command line is read."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    def check(context: typer.Context, name: str | None) -> str | None:
        if name is not None and find is not None and not context.resilient_parsing:
            find(name)
        return name

    return typer.Option(flag, metavar="|".join(names), help=help, autocompletion=complete, callback=check)


TableName = Annotated[
    str,
    typer.Argument(
        metavar="TABLE", help="Name of the table, e.g. table1.", callback=_known_table, autocompletion=complete_table
    ),
]
OptionalTable = Annotated[
    str | None,
    typer.Argument(
        metavar="[TABLE]", help="Table; may be left out with --weights.", callback=_known_table,
        autocompletion=complete_table,
    ),
]  # fmt: skip
RowName = Annotated[
    str,
    typer.Argument(
        metavar="ROW", help="TABLE/METHOD-BACKBONE, e.g. table1/hcformer-r50.", callback=_known_row,
        autocompletion=_complete_row,
    ),
]  # fmt: skip
RowsAndTables = Annotated[
    list[str],
    typer.Argument(
        metavar="ROW|TABLE...", help="Rows and whole tables, e.g. table1/hcformer-r50 or table1.",
        callback=_known_rows_and_tables, autocompletion=_complete_row,
    ),
]  # fmt: skip
DatasetName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Data set, e.g. coco_panoptic, ade20k, cityscapes.", autocompletion=_complete_dataset
    ),
]
Store = Annotated[Path | None, typer.Option("--store", help="Folder of records and tables; default: results/local.")]
Reference = Annotated[
    Path | None, typer.Option("--reference", help="Store shown as reference; default: results/reference.")
]
Scale = Annotated[str, typer.Option("--scale", metavar="small|paper", help="Scale of the trainings: small or paper.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root", envvar="BENCH_DATA", help="Folder of the data set, or of several by their usual names."
    ),
]

OptionalMethod = Annotated[str | None, _choice("--method", _OF_IMAGES, "Method; default: the file's.", get_method)]
OptionalBackbone = Annotated[
    str | None, _choice("--backbone", _BACKBONES, "Backbone; default: the file's.", get_backbone)
]
OptionalDataset = Annotated[str | None, _choice("--dataset", _DATASETS, "Data set; default: the file's.", get_dataset)]
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
