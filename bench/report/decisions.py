"""Decides one case of a claim, from the paper's printed figures and from records."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from bench.experiments.claims import Case, Claim
from bench.experiments.table import Column
from bench.experiments.tables import table_and_row
from bench.report.cells import Cell, MeasuredValue, TableCells
from bench.report.latency import round_ratios
from bench.report.verdict import REQUIRED_SEEDS, ROUNDING, VerdictKind


class Decision(StrEnum):
    """In the order of the page."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    NO_RECORDS = "no records"


AGREEING_ROUNDS = 0.9  # of a run, for a decision: a single slow round does not make a ratio undecided
RATIOS = ("ratio below", "ratio above")

TESTS: dict[str, Callable[[Sequence[float], float], bool]] = {
    "greater": lambda v, m: v[0] - v[1] > m + ROUNDING,
    "less": lambda v, m: v[1] - v[0] > m + ROUNDING,
    "at least": lambda v, m: v[0] - v[1] >= -m - ROUNDING,
    "within": lambda v, m: abs(v[0] - v[1]) <= m + ROUNDING,
    "rises": lambda v, m: all(b - a > m + ROUNDING for a, b in zip(v, v[1:], strict=False)),
    "saturates": lambda v, m: all(abs(later - v[0]) <= m + ROUNDING for later in v[1:]),
    "no gain beyond": lambda v, m: max(v[1:]) - v[0] <= m + ROUNDING,
    "ratio below": lambda v, m: v[0] / v[1] < m - ROUNDING,
    "ratio above": lambda v, m: v[0] / v[1] > m + ROUNDING,
}


@dataclass(frozen=True)
class Side:
    """One side of a case: a cell, or two of which the second is taken from the first. label: "HCFormer R50"."""

    label: str
    cells: tuple[Cell, ...]

    @property
    def printed(self) -> float | None:
        """The paper's figure; None where it does not print all."""
        values = [cell.value("published") for cell in self.cells]
        return None if None in values else values[0] - sum(values[1:])

    @property
    def measured(self) -> MeasuredValue | None:
        """None where a record is missing; of two cells every difference of their values."""
        first, *minus = (cell.measured for cell in self.cells)
        if first is None or None in minus:
            return None
        for other in minus:
            values = tuple(sorted(a - b for a in first.values for b in other.values))
            middle, n = first.value - other.value, min(first.n, other.n)
            first = MeasuredValue(middle, values[0], values[-1], n, values, first.records + other.records)
        return first


@dataclass(frozen=True)
class Outcome:
    """A case decided from records, with the reason for that and, of latencies timed together, the rounds' ratios."""

    decision: Decision
    reason: str = ""
    ratios: tuple[float, ...] = ()


@dataclass(frozen=True)
class DecidedCase:
    """A case of a claim: `printed` is what the paper's own figures decide (None without figures), `outcome` records.

    values: the paper's figures, one a side, empty where it does not print all. measured: one a side, None where
    nothing was.
    """

    claim: Claim
    case: Case
    sides: tuple[Side, ...]
    values: tuple[float, ...]
    printed: Decision | None
    measured: tuple[MeasuredValue | None, ...]
    outcome: Outcome

    @property
    def column(self) -> Column:
        return self.sides[0].cells[0].column


def decide_case(claim: Claim, case: Case, tables: Mapping[str, TableCells]) -> DecidedCase:
    """The case as the cells of the tables decide it."""
    names = zip(case.rows, case.minus, strict=True) if case.minus else ((name,) for name in case.rows)
    sides = tuple(_side(case.metric, of_side, tables) for of_side in names)
    values = tuple(side.printed for side in sides)
    if None in values:
        values, printed = (), None
    else:
        printed = Decision.HOLDS if TESTS[claim.relation](values, case.margin) else Decision.FAILS
    measured = tuple(side.measured for side in sides)
    return DecidedCase(claim, case, sides, values, printed, measured, _outcome(claim, case, sides, measured))


def _outcome(claim: Claim, case: Case, sides: Sequence[Side], measured: Sequence[MeasuredValue | None]) -> Outcome:
    """Accuracy and complexity: over every choice of one value from each side. Latency: over the rounds of one run."""
    if missing := measured.count(None):
        return Outcome(Decision.NO_RECORDS, f"of {missing} of {len(measured)}" if missing < len(measured) else "")
    cells = [cell for side in sides for cell in side.cells]
    if cells[0].column.kind == "latency":
        busy = any(cell.verdict.kind is VerdictKind.BUSY for cell in cells)
        return _latency_outcome(claim, case, tuple(round_ratios(*cells)), busy)
    if doubt := _doubt(cells):
        return Outcome(Decision.UNDECIDED, doubt)
    test = TESTS[claim.relation]
    votes = {test(choice, case.margin) for choice in product(*(side.values for side in measured))}
    if len(votes) == 2:
        return Outcome(Decision.UNDECIDED, "overlap")
    return Outcome(Decision.HOLDS if votes.pop() else Decision.FAILS)


def _latency_outcome(claim: Claim, case: Case, ratios: tuple[float, ...], busy: bool) -> Outcome:
    if busy:
        return Outcome(Decision.UNDECIDED, VerdictKind.BUSY)
    if len(ratios) < REQUIRED_SEEDS:
        reason = f"{len(ratios)} of {REQUIRED_SEEDS} rounds" if ratios else "not of one run"
        return Outcome(Decision.UNDECIDED, reason, ratios)
    agreeing = sum(TESTS[claim.relation]((ratio, 1.0), case.margin) for ratio in ratios) / len(ratios)
    if agreeing >= AGREEING_ROUNDS:
        return Outcome(Decision.HOLDS, ratios=ratios)
    if agreeing <= 1 - AGREEING_ROUNDS + ROUNDING:
        return Outcome(Decision.FAILS, ratios=ratios)
    return Outcome(Decision.UNDECIDED, "rounds disagree", ratios)


def _doubt(cells: Sequence[Cell]) -> str:
    """Why accuracies cannot decide anything yet; empty otherwise, and for what is counted."""
    if any(cell.measured.kind == "released" for cell in cells):
        return VerdictKind.RELEASED
    if any(cell.verdict.kind is VerdictKind.PART for cell in cells):
        return VerdictKind.PART
    fewest = min(cell.measured.n for cell in cells)
    counted = cells[0].column.kind == "complexity"
    return "" if counted or fewest >= REQUIRED_SEEDS else f"{fewest} of {REQUIRED_SEEDS} seeds"


def _side(metric: str, names: Sequence[str], tables: Mapping[str, TableCells]) -> Side:
    """names: of one row, or of two."""
    found = [table_and_row(name) for name in names]
    method, _, factor = found[0][1].method.partition(", ")  # of an ablation's row the factor alone, "level 2"
    cells = tuple(tables[table.name].cells[row.number, metric] for table, row in found)
    return Side(factor or f"{method} {found[0][1].backbone}", cells)
