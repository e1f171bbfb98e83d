"""The paper's tables by name, and their rows by name.

The published numbers stand in `results/published/<name>.csv`.
"""

from collections.abc import Sequence
from dataclasses import replace

from bench.errors import BenchError, unknown_name
from bench.experiments.ablations import ablations
from bench.experiments.comparisons import comparisons
from bench.experiments.declaration import PaperTable
from bench.experiments.experiment import Experiment
from bench.experiments.methods import get_method
from bench.experiments.small_tables import small_real

# Factors that tell apart the rows of an ablation, by what stands before their value in a row's name; a decoder is
# named by its value alone ("standard").
FACTORS = {
    "level": "hierarchical_level",
    "layers": "decoder_layers",
    "queries": "num_queries",
    "": "transformer_decoder",
}

TABLES: dict[str, PaperTable] = {table.name: table for table in (*comparisons(), *ablations(), small_real())}


def get_table(name: str) -> PaperTable:
    """The table called `name`; BenchError naming the nearest known table otherwise."""
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    return TABLES[name]


def find_row(name: str) -> Experiment:
    """The experiment of the row TABLE/METHOD-BACKBONE, e.g. table1/hcformer-r50, table1/hcformer+-swin_l.

    Where rows of one table have that in common, their data set follows, and where they share that too, the factor
    that the table varies: table5/hcformer-r50-layers16, tableIV/hcformer-r50-coco_panoptic-queries20. Plain
    convolutions beside DCNv2: tableIb/hc_fcn_32s-small-conv.
    Raises BenchError, naming the nearest row, for an unknown one.
    """
    table, slash, row = name.partition("/")
    if not slash:
        raise BenchError(f"'{name}' names no row of a table: write TABLE/METHOD-BACKBONE, e.g. table1/hcformer-r50")
    rows = row_names(get_table(table))
    if row not in rows:
        raise unknown_name(f"row of {table}", row, rows)
    return rows[row]


def timed_together(experiment: Experiment) -> tuple[Experiment, ...]:
    """All paper-scale experiments of all tables with the data set and the backbone of this one, in the tables' order.

    Ratios of latencies are formed within one run only, and an experiment may stand in several tables: whatever can be
    compared is timed in one run. Without those that are counted only.
    """
    built = dict.fromkeys(row.experiment for table in TABLES.values() for row in table.rows if row.experiment)
    same = (experiment.dataset, experiment.backbone)
    return tuple(e for e in built if (e.dataset, e.backbone) == same and get_method(e.method).timed)


def row_names(table: PaperTable) -> dict[str, Experiment]:
    """The experiments of a table, paper scale and small, by the names that `find_row` takes after the table's."""
    built = [row.experiment for row in (*table.rows, *table.small_rows) if row.experiment]
    return {_name(e, built): e for e in built}


def _name(experiment: Experiment, others: Sequence[Experiment]) -> str:
    name = f"{experiment.method}-{experiment.backbone}"
    alike = [e for e in others if (e.method, e.backbone) == (experiment.method, experiment.backbone)]
    if len({e.dataset for e in alike}) > 1:
        name += f"-{experiment.dataset}"
        alike = [e for e in alike if e.dataset == experiment.dataset]
    varied = [word for word, factor in FACTORS.items() if len({getattr(e, factor) for e in alike}) > 1]
    name += "".join(f"-{word}{getattr(experiment, FACTORS[word])}" for word in varied)
    plain = experiment.downsampling == "conv" and any(replace(e, downsampling="conv") == experiment for e in alike
                                                      if e != experiment)  # fmt: skip
    return f"{name}-conv" if plain else name
