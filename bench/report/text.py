"""Pieces of text that reports are made of: aligned tables, numbers, and where records come from."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from bench.records import Record

LEFT_ALIGNED = ("#", "method", "backbone", "run", "verdict", "store", "tables")
LEFT_ALIGNED += ("claim", "place", "case", "by itself", "decision")


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Pipe table, aligned as plain text too: columns of words to the left, columns of numbers to the right."""
    widths = [max(3, *(len(line[i]) for line in (headers, *rows))) for i in range(len(headers))]
    left = [header in LEFT_ALIGNED for header in headers]
    rule = ["-" * width if side else "-" * (width - 1) + ":" for width, side in zip(widths, left, strict=True)]
    lines = []
    for line in (headers, rule, *rows):
        cells = zip(line, widths, left, strict=True)
        lines.append(" | ".join(text.ljust(w) if side else text.rjust(w) for text, w, side in cells))
    return "\n".join(f"| {line} |" for line in lines)


def number(value: float | None, digits: int) -> str:
    """Fixed decimals; empty for None and NaN."""
    return "" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def with_range(value: float | None, low: float, high: float, n: int, digits: int) -> str:
    """ "median (lowest..highest)"; the value alone where only one was taken, empty where none was."""
    text = number(value, digits)
    return f"{text} ({number(low, digits)}..{number(high, digits)})" if text and n > 1 else text


def value_cells(lines: Sequence[dict], digits: int) -> list[str]:
    """ "paper → measured [reference]" of one column, the parts aligned below each other."""
    parts = [
        [
            f"{number(line['published'], digits if line['unit'] == '%' else 0)} →",
            number(line["measured"], digits),
            f"[{number(line['reference'], digits)}]".replace("[]", ""),
        ]
        for line in lines
    ]
    return align([part if any(p.strip(" →") for p in part) else ["", "", ""] for part in parts])


def align(parts: Sequence[Sequence[str]]) -> list[str]:
    """Join the parts of every line, each part right-aligned below its predecessor; a part empty everywhere drops."""
    widths = [max(map(len, texts)) for texts in zip(*parts, strict=True)]
    return [" ".join(t.rjust(w) for t, w in zip(part, widths, strict=True) if w) for part in parts]


def head_lines(records: Sequence[Record]) -> list[str]:
    """List of machine, commit, date and record counts; says so where records come from several of them."""
    if not records:
        return ["- No records yet."]
    sources = [record.provenance for record in records]
    counts = Counter(record.kind for record in records)
    return [
        f"- Machine: {_several('machines', [machine(source) for source in sources])}",
        f"- Software: {_several('set-ups', [_software(source) for source in sources])}",
        f"- Commit: {_commits(sources)}",
        f"- Measured: {_dates(sources)}",
        f"- Records: {len(records)} ({', '.join(f'{counts[kind]} {kind}' for kind in sorted(counts))})",
    ]


def reference_line(records: Sequence[Record]) -> str:
    """Machine, commit and date of the reference's records, as a line of the head."""
    sources = [record.provenance for record in records]
    machines = _several("machines", [machine(source) for source in sources])
    return f"- Reference: {machines}; commit {_commits(sources)}; {_dates(sources)}"


def _commits(sources: Sequence[dict]) -> str:
    dirty = sum(bool(source["dirty"]) for source in sources)
    tree = f", with uncommitted changes for {dirty} of {len(sources)} records" if dirty else ""
    return _several("commits", [source["commit"][:12] for source in sources]) + tree


def _dates(sources: Sequence[dict]) -> str:
    dates = sorted(source["start"] for source in sources)
    return " to ".join(dict.fromkeys((dates[0], dates[-1])))


def machine(source: dict) -> str:
    """One line for the machine of a provenance; kinds of measurement on it may use different numbers of threads."""
    return f"{source['cpu']}, {source.get('cores', '?')} cores, {source['gpu'] or 'no GPU'}"


def threads(records: Iterable[Record]) -> str:
    """ "one thread" or "2 threads" where all records agree, else empty."""
    counts = {record.provenance.get("threads") for record in records}
    count = counts.pop() if len(counts) == 1 else None
    return {None: "", 1: "one thread"}.get(count, f"{count} threads")


def _software(source: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in source["versions"].items() if version)


def _several(plural: str, values: Sequence[str]) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return values[0]
    return f"{len(counts)} different {plural}: " + "; ".join(f"{v} ({n} records)" for v, n in counts.most_common())
