"""Decides one case of a claim, from the paper's printed figures and from records."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

from bench.experiments.claims import Case, Claim
from bench.experiments.published import Published
from bench.experiments.table import COLUMNS
from bench.experiments.tables import table_and_row
from bench.records import Record
from bench.report.frame import Value, find_value, partial_data
from bench.report.latency import round_ratios
from bench.report.verdict import RELEASED, REQUIRED_SEEDS

HOLDS, FAILS, UNDECIDED, NO_RECORDS = DECISIONS = ("holds", "does not hold", "undecided", "no records")
AGREEING_ROUNDS = 0.9  # of a run, for a decision: a single slow round does not make a ratio undecided
ROUNDING = 1e-9  # 47.7 - 47.2 is a little more than 0.5 in floating point
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
class Figure:
    """One side of a case as measured: median and range, and the single values (of the seeds) it may take.

    n: seeds behind an accuracy, of a difference the fewer; rounds of a latency; 1 for what is counted.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    values: tuple[float, ...]
    cells: tuple[Value, ...]


@dataclass(frozen=True)
class Outcome:
    """A case decided from records: one of `DECISIONS` with its reason, and what it rests on.

    figures: one a side, None where nothing was measured. ratios: of latencies timed together, round by round.
    """

    decision: str
    reason: str
    figures: tuple[Figure | None, ...]
    ratios: tuple[float, ...] = ()


def printed_values(case: Case, published: Mapping[str, Mapping[tuple[int, str], Published]]) -> list[float]:
    """The paper's figures, side by side; empty where it does not print all. published: by table."""
    values = []
    for name, minus in _sides(case):
        pair = [_printed(n, case.metric, published) for n in (name, minus) if n]
        if None in pair:
            return []
        values.append(pair[0] - sum(pair[1:]))
    return values


def decide_printed(claim: Claim, case: Case, published: Mapping) -> str:
    """Whether the claim follows from the paper's own figures: "holds", "does not hold", empty without figures."""
    values = printed_values(case, published)
    if not values:
        return ""
    return HOLDS if TESTS[claim.relation](values, case.margin) else FAILS


def decide(claim: Claim, case: Case, groups: Mapping[str, list[Record]]) -> Outcome:
    """The case as `groups` (see `by_experiment`) decide it.

    Accuracy and complexity: over every choice of one value from each side. Latency: over the rounds of one run.
    """
    figures = tuple(_figure(case, name, minus, groups) for name, minus in _sides(case))
    found = [figure for figure in figures if figure]
    if len(found) < len(figures):
        reason = f"of {len(figures) - len(found)} of {len(figures)}" if found else ""
        return Outcome(NO_RECORDS, reason, figures)
    if COLUMNS[case.metric].kind == "latency":
        return _decide_latency(claim, case, figures)
    if doubt := _doubt(found):
        return Outcome(UNDECIDED, doubt, figures)
    test = TESTS[claim.relation]
    votes = {test(choice, case.margin) for choice in product(*(figure.values for figure in found))}
    if len(votes) == 2:
        return Outcome(UNDECIDED, "overlap", figures)
    return Outcome(HOLDS if votes.pop() else FAILS, "", figures)


def _decide_latency(claim: Claim, case: Case, figures: tuple[Figure, ...]) -> Outcome:
    records = [cell.records[0] for figure in figures for cell in figure.cells]
    ratios = tuple(round_ratios(*records, case.metric))
    if len(ratios) < REQUIRED_SEEDS:
        reason = f"{len(ratios)} of {REQUIRED_SEEDS} rounds" if ratios else "not of one run"
        return Outcome(UNDECIDED, reason, figures, ratios)
    agreeing = sum(TESTS[claim.relation]((ratio, 1.0), case.margin) for ratio in ratios) / len(ratios)
    if agreeing >= AGREEING_ROUNDS:
        return Outcome(HOLDS, "", figures, ratios)
    if agreeing <= 1 - AGREEING_ROUNDS + ROUNDING:
        return Outcome(FAILS, "", figures, ratios)
    return Outcome(UNDECIDED, "rounds disagree", figures, ratios)


def _doubt(figures: Sequence[Figure]) -> str:
    """Why accuracies cannot decide anything yet; empty otherwise, and for what is counted."""
    cells = [cell for figure in figures for cell in figure.cells]
    kinds = {record.kind for cell in cells for record in cell.records}
    if "released" in kinds:
        return RELEASED
    if any(map(partial_data, cells)):
        return "part of the data"
    fewest = min(figure.n for figure in figures)
    return f"{fewest} of {REQUIRED_SEEDS} seeds" if "accuracy" in kinds and fewest < REQUIRED_SEEDS else ""


def _sides(case: Case) -> list[tuple[str, str]]:
    return list(zip(case.rows, case.minus or [""] * len(case.rows), strict=True))


def _printed(name: str, metric: str, published: Mapping) -> float | None:
    table, row = table_and_row(name)
    if row in table.small_rows:
        return None
    entry = published[table.name].get((row.number, metric)) if table.rows else None
    return entry.value if entry else None


def _figure(case: Case, name: str, minus: str, groups: Mapping) -> Figure | None:
    cells = [_cell(n, case.metric, groups) for n in (name, minus) if n]
    if None in cells:
        return None
    rows = [_values(cell, case.metric) for cell in cells]
    values = tuple(sorted(a - b for a in rows[0] for b in rows[1])) if minus else rows[0]
    middle = median(rows[0]) - (median(rows[1]) if minus else 0)
    counted = COLUMNS[case.metric].kind == "complexity"
    low, high = (cells[0].low, cells[0].high) if not minus else (values[0], values[-1])
    n = 1 if counted else min(cell.n for cell in cells)
    return Figure(_label(name), middle, low, high, n, values, tuple(cells))


def _cell(name: str, metric: str, groups: Mapping) -> Value | None:
    return find_value(groups, table_and_row(name)[1], COLUMNS[metric])


def _values(cell: Value, metric: str) -> tuple[float, ...]:
    if cell.records[0].kind == "latency":
        return (cell.value,)  # its rounds count in ratios only
    return tuple(record.metrics[metric]["value"] for record in cell.records)


def _label(name: str) -> str:
    """ "HCFormer R50"; of an ablation's row the factor alone, "level 2"."""
    row = table_and_row(name)[1]
    method, _, factor = row.method.partition(", ")
    return factor or f"{method} {row.backbone}"
