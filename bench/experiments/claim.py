"""What a claim of the paper is made of, and how its rows are found."""

from dataclasses import dataclass

from bench.experiments.declaration import PaperTable, Row
from bench.experiments.tables import get_table, row_names

# What may be claimed of the values a, b, ... of a case's rows and its margin m.
RELATIONS = {
    "greater": "a - b > m",
    "less": "b - a > m",
    "at least": "a >= b - m",
    "within": "a and b at most m apart",
    "rises": "each value above the one before",
    "saturates": "no later value above the first by more than m",
    "ratio below": "a / b < m",
    "ratio above": "a / b > m",
}
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

    relation: one of `RELATIONS`, the same in all cases. printed: what the text says where no table has figures.
    note: how the sentence was read, where that is not obvious.
    """

    id: str
    group: str
    text: str
    sections: str
    relation: str
    cases: tuple[Case, ...]
    note: str = ""
    printed: str = ""


def find_claim_row(name: str) -> tuple[PaperTable, Row] | None:
    """The table and row of a case's row name; None for a row that its table does not have (yet)."""
    table_name, _, row_name = name.partition("/")
    table = get_table(table_name)
    experiment = row_names(table).get(row_name)
    for row in (*table.rows, *table.small_rows):
        if (experiment and row.experiment == experiment) or f"{row.method}-{row.backbone}" == row_name:
            return table, row
    return None
