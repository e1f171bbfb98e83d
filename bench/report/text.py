"""Pieces of text that reports are made of: aligned tables, numbers, and where records come from."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from bench.records import Record

LEFT_ALIGNED = ("#", "method", "backbone", "run", "verdict", "store", "tables")


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


def value_cells(lines: Sequence[dict], digits: int, paper: bool = True) -> list[str]:
    """ "paper → measured [reference]" of one column, the parts aligned below each other."""
    parts = [
        [
            f"{number(line['published'], digits if line['unit'] == '%' else 0)} →" if paper else "",
            number(line["measured"], digits),
            f"[{number(line['reference'], digits)}]".replace("[]", ""),
        ]
        for line in lines
    ]
    parts = [part if any(p.strip(" →") for p in part) else ["", "", ""] for part in parts]
    widths = [max(map(len, texts)) for texts in zip(*parts, strict=True)]
    return [" ".join(t.rjust(w) for t, w in zip(part, widths, strict=True) if w) for part in parts]


def head_lines(records: Sequence[Record]) -> list[str]:
    """List of machine, commit, date and record counts; says so where records come from several of them."""
    if not records:
        return ["- No records yet."]
    sources = [record.provenance for record in records]
    counts = Counter(record.kind for record in records)
    dirty = sum(bool(source["dirty"]) for source in sources)
    commits = _several("commits", [source["commit"][:12] for source in sources])
    dates = sorted(source["start"] for source in sources)
    tree = f", with uncommitted changes for {dirty} of {len(records)} records" if dirty else ""
    return [
        f"- Machine: {_several('machines', [machine(source) for source in sources])}",
        f"- Software: {_several('set-ups', [_software(source) for source in sources])}",
        f"- Commit: {commits}{tree}",
        f"- Measured: {' to '.join(dict.fromkeys((dates[0], dates[-1])))}",
        f"- Records: {len(records)} ({', '.join(f'{counts[kind]} {kind}' for kind in sorted(counts))})",
    ]


def machine(source: dict) -> str:
    """One line for the machine of a provenance."""
    place = f"{source['cpu']}, {source.get('cores', '?')} cores, {source.get('threads', '?')} threads"
    return f"{place}, {source['gpu'] or 'no GPU'}"


def _software(source: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in source["versions"].items() if version)


def _several(plural: str, values: Sequence[str]) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return values[0]
    return f"{len(counts)} different {plural}: " + "; ".join(f"{v} ({n} records)" for v, n in counts.most_common())
