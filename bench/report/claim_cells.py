"""The cells of one line of the page of claims, as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.experiments.claims import Case, Claim
from bench.report.decisions import COLUMNS, FAILS, RATIOS, Outcome
from bench.report.text import number, with_range

LONGEST_WITH_RANGES = 2  # figures side by side; of more the ranges go to a footnote


@dataclass(frozen=True)
class Line:
    """One case of a claim, decided: `printed` by the paper's own figures, `outcome` by records."""

    claim: Claim
    case: Case
    values: Sequence[float]
    printed: str
    outcome: Outcome


def place_text(line: Line) -> str:
    """Sections of the claim and the table of the case's first row, "3.2, E.2; Tab. 3 (a)", unless none prints it."""
    if line.claim.printed:
        return line.claim.sections
    name = line.case.rows[0].partition("/")[0]
    table = name.removeprefix("table") if name.startswith("table") else ""
    if table[-1:] in ("a", "b"):
        table = f"{table[:-1]} ({table[-1]})"
    return "; ".join(filter(None, (line.claim.sections, f"Tab. {table}" if table else "")))


def marked_text(decision: str, reason: str = "") -> str:
    text = f"**{decision}**" if decision == FAILS else decision
    if reason.startswith("of "):
        return f"{text} {reason}"
    return f"{text}: {reason}" if reason else text


def paper_text(line: Line) -> str:
    column = COLUMNS[line.case.metric]
    if not line.values:
        return line.claim.printed if line.case.scale == "paper" else ""
    digits = column.digits if column.kind != "complexity" else 0
    texts = [number(value, digits) for value in line.values]
    if line.claim.relation in RATIOS:
        return f"{' / '.join(texts)} = {number(line.values[0] / line.values[1], 2)}"
    return _compared(texts, line.values)


def here_text(line: Line) -> str:
    """Figures side by side, "?" for a missing one, with ranges where there is room for them."""
    figures, digits = line.outcome.figures, COLUMNS[line.case.metric].digits
    if not any(figures):
        return ""
    latency = COLUMNS[line.case.metric].kind == "latency"
    short = latency or len(figures) > LONGEST_WITH_RANGES
    texts = ["?" if f is None else with_range(f.value, f.low, f.high, 1 if short else f.n, 0 if latency else digits)
             for f in figures]  # fmt: skip
    if line.claim.relation in RATIOS:
        return f"{' / '.join(texts)}{_ratio(line)}"
    return _compared(texts, [f and round(f.value, digits) for f in figures])


def _ratio(line: Line) -> str:
    """Of latencies the median of the rounds' ratios; empty where there is none to form."""
    ratios = line.outcome.ratios
    if COLUMNS[line.case.metric].kind == "complexity" and all(line.outcome.figures):
        first, second = line.outcome.figures
        ratios = (first.value / second.value,)
    return f" = {with_range(median(ratios), min(ratios), max(ratios), len(ratios), 2)}" if ratios else ""


def _compared(texts: Sequence[str], values: Sequence[float | None]) -> str:
    """The figures with the signs between them that are true of what is shown."""
    parts = [texts[0]]
    for text, a, b in zip(texts[1:], values, values[1:], strict=False):
        sign = "," if a is None or b is None else "<" if a < b else ">" if a > b else "="
        parts += [sign, text]
    return " ".join(parts).replace(" , ", ", ")


def details_text(line: Line) -> str:
    """The footnote of a case: ranges that found no room, and seeds where the sides have different numbers."""
    figures = [figure for figure in line.outcome.figures if figure]
    column = COLUMNS[line.case.metric]
    if column.kind != "accuracy":
        return ""
    texts = []
    if len(figures) == len(line.outcome.figures) > LONGEST_WITH_RANGES and any(figure.n > 1 for figure in figures):
        ranges = [f"{f.name} {number(f.low, column.digits)}..{number(f.high, column.digits)}" for f in figures]
        texts.append(f"Ranges: {', '.join(ranges)}.")
    if len({figure.n for figure in figures}) > 1:
        texts.append(f"Seeds: {', '.join(f'{figure.name} {figure.n}' for figure in figures)}.")
    return " ".join(texts)
