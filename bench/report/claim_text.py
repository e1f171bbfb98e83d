"""The places of one line of the page of claims, as text."""

from collections.abc import Sequence
from statistics import median

from bench.report.decisions import RATIOS, DecidedCase, Decision
from bench.report.text import number, value_range, with_range

LONGEST_WITH_RANGES = 2  # figures side by side; of more the ranges go to a footnote


def place_text(decided: DecidedCase) -> str:
    """Sections of the claim and the table of the case's first row, "3.2, E.2; Tab. 3 (a)", unless none prints it."""
    if decided.claim.printed:
        return decided.claim.sections
    name = decided.case.rows[0].partition("/")[0]
    table = name.removeprefix("table") if name.startswith("table") else ""
    if table[-1:] in ("a", "b"):
        table = f"{table[:-1]} ({table[-1]})"
    return "; ".join(filter(None, (decided.claim.sections, f"Tab. {table}" if table else "")))


def decision_text(decision: Decision | None, reason: str = "") -> str:
    if decision is None:
        return ""
    text = f"**{decision}**" if decision is Decision.FAILS else decision
    between = " " if decision is Decision.NO_RECORDS else ": "
    return f"{text}{between}{reason}" if reason else text


def paper_text(decided: DecidedCase) -> str:
    """The printed figures side by side, or what the text says where no table has figures."""
    values = decided.values
    if not values:
        return decided.claim.printed if decided.case.scale == "paper" else ""
    texts = [number(value, decided.sides[0].cells[0].digits("published")) for value in values]
    if decided.claim.relation in RATIOS:
        return f"{' / '.join(texts)} = {number(values[0] / values[1], 2)}"
    return _compared(texts, values)


def here_text(decided: DecidedCase) -> str:
    """Medians side by side, "?" for a missing one, with the ranges of seeds where there is room for them."""
    measured, column = decided.measured, decided.column
    if not any(measured):
        return ""
    digits = 0 if column.kind == "latency" else column.digits
    if column.kind == "accuracy" and len(measured) <= LONGEST_WITH_RANGES:
        texts = [with_range(value, digits) or "?" for value in measured]
    else:
        texts = [number(value.value if value else None, digits) or "?" for value in measured]
    if decided.claim.relation in RATIOS:
        return f"{' / '.join(texts)}{_ratio(decided)}"
    return _compared(texts, [round(value.value, digits) if value else None for value in measured])


def _ratio(decided: DecidedCase) -> str:
    """Of latencies the median of the rounds' ratios; empty where there is none to form."""
    ratios = decided.outcome.ratios
    if decided.column.kind == "complexity" and all(decided.measured):
        first, second = decided.measured
        ratios = (first.value / second.value,)
    if not ratios:
        return ""
    text = f" = {number(median(ratios), 2)}"
    return f"{text} {value_range(min(ratios), max(ratios), 2)}" if len(ratios) > 1 else text


def _compared(texts: Sequence[str], values: Sequence[float | None]) -> str:
    """The figures with the signs between them that are true of what is shown."""
    parts = texts[0]
    for text, a, b in zip(texts[1:], values, values[1:], strict=False):
        parts += ", " if a is None or b is None else " < " if a < b else " > " if a > b else " = "
        parts += text
    return parts


def details_text(decided: DecidedCase) -> str:
    """The footnote of a case: ranges that found no room, and seeds where the sides have different numbers."""
    if decided.column.kind != "accuracy":
        return ""
    found = [(side.label, value) for side, value in zip(decided.sides, decided.measured, strict=True) if value]
    texts, digits = [], decided.column.digits
    if len(found) == len(decided.sides) > LONGEST_WITH_RANGES and any(value.n > 1 for _, value in found):
        ranges = [f"{label} {number(value.low, digits)}..{number(value.high, digits)}" for label, value in found]
        texts.append(f"Ranges: {', '.join(ranges)}.")
    if len({value.n for _, value in found}) > 1:
        texts.append(f"Seeds: {', '.join(f'{label} {value.n}' for label, value in found)}.")
    return " ".join(texts)
