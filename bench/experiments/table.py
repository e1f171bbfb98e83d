"""What a table is made of: columns, rows, blocks of small models, and what is to be measured for it."""

from dataclasses import dataclass

from bench.errors import unknown_name
from bench.experiments.backbones import BACKBONES
from bench.experiments.datasets import DATASETS
from bench.experiments.experiment import Experiment
from bench.experiments.methods import METHODS, get_method
from bench.experiments.published import Note
from bench.experiments.recipe import recipe_for

BASE_METHOD = "maskformer"  # whose latency the others' are compared with, as the paper does


@dataclass(frozen=True)
class Column:
    """One metric of a table: its name in records, label for people, unit, and the record kind that holds it.

    datasets: those whose rows have the metric, where rows of several data sets stand in one table; empty: all rows.
    """

    metric: str
    label: str
    unit: str
    kind: str
    digits: int = 1
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row. `number` counts from 1 in the paper's order; `experiment` is None for a method not built here.

    name: what the row is called after its table, "hcformer-r50" in table1/hcformer-r50.
    base: number of the row that its latency is compared with, instead of `BASE_METHOD`'s with the same backbone.
    """

    number: int
    name: str
    method: str
    backbone: str
    experiment: Experiment | None
    base: int | None = None


@dataclass(frozen=True)
class Measurement:
    """One record that a table wants: kind "complexity", "latency" or "accuracy" (with a seed)."""

    experiment: Experiment
    kind: str
    seed: int | None = None


@dataclass(frozen=True)
class SmallBlock:
    """Small-scale experiments on one data set, numbered on after the paper's rows. notes: what readers must know."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, and the blocks of small-scale experiments below it.

    printed: the paper has numbers of its rows, in `results/published/<name>.csv`.
    """

    name: str
    title: str
    dataset: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    small_blocks: tuple[SmallBlock, ...]
    notes: tuple[Note, ...] = ()
    printed: bool = True

    @property
    def file_name(self) -> str:
        """Of its pages, without ending; also on disks that know no colon."""
        return self.name.replace(":", "_")

    @property
    def small_rows(self) -> tuple[Row, ...]:
        return tuple(row for block in self.small_blocks for row in block.rows)

    @property
    def kinds(self) -> set[str]:
        """Kinds of the records that the table shows: a released checkpoint's accuracy beside trained ones'."""
        blocks = (self.columns, *(block.columns for block in self.small_blocks))
        shown = {column.kind for columns in blocks for column in columns}
        return shown | {"released"} if "accuracy" in shown else shown

    def dataset_of(self, row: Row) -> str:
        """The row's data set; a method that is not built here stands for the table's."""
        return row.experiment.dataset if row.experiment else self.dataset

    def has_row(self, experiment: Experiment) -> bool:
        return experiment in (row.experiment for row in (*self.rows, *self.small_rows))

    def base_of(self, row: Row) -> Row | None:
        """The row that the latency of `row` is compared with (itself, for that row); None where there is none."""
        if row.base is not None:
            return next(other for other in self.rows if other.number == row.base)
        if row.experiment is None:
            return None
        alike = (other for other in self.rows if other.backbone == row.backbone)
        return next((r for r in alike if r.experiment and r.experiment.method == BASE_METHOD), None)

    def measurements(self, scale: str = "small") -> tuple[Measurement, ...]:
        """Everything to measure: what the table has columns for, of all rows, then accuracy at `scale`, seed by seed.

        Methods that are not timed have no latency, those that are not trained no accuracy.
        """
        built = [row.experiment for row in self.rows if row.experiment]
        timed = [e for e in built if get_method(e.method).timed]
        trained: dict[str, list[Experiment]] = {
            "small": [row.experiment for row in self.small_rows if row.experiment],
            "paper": [e for e in built if get_method(e.method).trained],
        }
        if scale not in trained:
            raise unknown_name("scale", scale, trained)
        shown = {column.kind for column in self.columns}
        wanted = [(kind, rows) for kind, rows in (("complexity", built), ("latency", timed)) if kind in shown]
        return (
            *(Measurement(e, kind) for kind, rows in wanted for e in rows),
            *(Measurement(e, "accuracy", seed) for e in trained[scale] for seed in recipe_for(e).seeds),
        )


ACCURACY = (
    Column("PQ", "PQ", "%", "accuracy"),
    Column("PQ_th", "PQ_th", "%", "accuracy"),
    Column("PQ_st", "PQ_st", "%", "accuracy"),
    Column("AP_pan_th", "AP_pan_th", "%", "accuracy"),
    Column("mIoU_pan", "mIoU_pan", "%", "accuracy"),
)
COMPLEXITY = (
    Column("params", "params", "M", "complexity", digits=2),
    Column("flops", "FLOPs", "G", "complexity"),
)
FLOPS = COMPLEXITY[1:]
LATENCY = (
    Column("latency_network", "network", "ms", "latency"),
    Column("latency_end_to_end", "end to end", "ms", "latency"),
)
SEMANTIC = (Column("mIoU", "mIoU", "%", "accuracy"), Column("pixel_accuracy", "pixel accuracy", "%", "accuracy"))
MIOU = SEMANTIC[:1]
MIOU_PAN = ACCURACY[4:]
INSTANCE = tuple(Column(name, name, "%", "accuracy") for name in ("AP", "AP_S", "AP_M", "AP_L", "AP_boundary"))
COLUMNS: dict[str, Column] = {c.metric: c for c in (*ACCURACY, *COMPLEXITY, *LATENCY, *SEMANTIC, *INSTANCE)}

# What people call methods, backbones and data sets.
LABELS = {value.name: value.label for kind in (METHODS, BACKBONES, DATASETS) for value in kind.values()}
