"""What a claim of the paper is made of, and how its rows are found."""

from dataclasses import dataclass
from functools import cache

from bench.errors import unknown_name
from bench.experiments.declaration import PaperTable, Row
from bench.experiments.tables import get_table, row_names

GROUPS = ("Accuracy", "Per-pixel models", "Efficiency", "Ablations", "Speed")


@dataclass(frozen=True)
class Case:
    """One decision: a relation between the `metric` of some rows (of rows - minus, pair by pair, where given).

    rows, minus: names as `find_row` takes them; a method that is not built here by its labels, "table1/K-Net-R50".
    label: which data set, backbone or factor; starts with "small" at that scale.
    """

    label: str
    metric: str
    rows: tuple[str, ...]
    margin: float = 0.0
    minus: tuple[str, ...] = ()

    @property
    def scale(self) -> str:
        """ "paper" or "small"."""
        return "small" if self.label.startswith("small") else "paper"


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper. sections: where it stands (A: abstract, L: limitation in section 5); may be empty.

    relation: one of `bench.report.decisions.TESTS`, the same in all cases. note: how the sentence was
    read, where that is not obvious. printed: what the text says where no table has figures.
    """

    id: str
    group: str
    text: str
    sections: str
    relation: str
    cases: tuple[Case, ...]
    note: str = ""
    printed: str = ""


@cache
def find_claim_row(name: str) -> tuple[PaperTable, Row]:
    """The table and row of a case's row name; BenchError, naming the nearest, for an unknown one."""
    table_name, _, row_name = name.partition("/")
    table = get_table(table_name)
    built, rows = row_names(table), (*table.rows, *table.small_rows)
    experiment = built.get(row_name)
    for row in rows:
        if (experiment and row.experiment == experiment) or f"{row.method}-{row.backbone}" == row_name:
            return table, row
    labels = (f"{row.method}-{row.backbone}" for row in rows if not row.experiment)
    raise unknown_name(f"row of {table_name}", row_name, (*built, *labels))
