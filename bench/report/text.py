"""Pieces of text that reports are made of: aligned tables, numbers, and where records come from."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill

from bench.experiments.table import Row
from bench.records import Record
from bench.report.cells import Cell, MeasuredValue

LEFT_ALIGNED: tuple[str, ...] = ("#", "method", "backbone", "run", "verdict", "store", "tables")
LEFT_ALIGNED += ("table", "row", "metric", "pages", "files", "why")
LEFT_ALIGNED += ("claim", "place", "case", "by itself", "decision")
WIDTH = 120  # of prose, in a terminal
MOST_SOURCES = 3  # machines or commits named in the head of a page


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


def row_table(rows: Sequence[Row], columns: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Pipe table of rows of a paper table, which their number and names introduce; columns: header and texts."""
    names = [("#", [str(r.number) for r in rows]), ("method", [r.method for r in rows])]
    headers, texts = zip(*names, ("backbone", [r.backbone for r in rows]), *columns, strict=True)
    return markdown_table(headers, list(zip(*texts, strict=True)))


def wrap_prose(page: str) -> str:
    """A page of markdown with its prose wrapped; headings and tables stay as they are."""
    lines = [line if line.startswith(("#", "|")) or not line else _wrapped(line) for line in page.split("\n")]
    return "\n".join(lines)


def _wrapped(line: str) -> str:
    indent = "  " if line.startswith("- ") else ""
    return fill(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def number(value: float | None, digits: int) -> str:
    """Fixed decimals; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def value_range(low: float, high: float, digits: int) -> str:
    """ "(lowest..highest)"."""
    return f"({number(low, digits)}..{number(high, digits)})"


def with_range(measured: MeasuredValue | None, digits: int) -> str:
    """ "median (lowest..highest)"; the value alone where only one was taken, empty where none was."""
    if measured is None:
        return ""
    text = number(measured.value, digits)
    return f"{text} {value_range(measured.low, measured.high, digits)}" if measured.n > 1 else text


def in_brackets(value: float | None, digits: int) -> str:
    """The reference's number, "[1.2]"; empty for None."""
    return "" if value is None else f"[{number(value, digits)}]"


def numbers(cells: Sequence[Cell | None], source: str) -> list[str]:
    """The "published" or "measured" numbers of a column, the best in bold."""
    texts = [number(cell.value(source), cell.digits(source)) if cell else "" for cell in cells]
    return embolden(texts, [cell is not None and source in cell.best for cell in cells])


def embolden(texts: Sequence[str], best: Sequence[bool]) -> list[str]:
    """The best in bold; where there are any, spaces take the place of the marks, so that digits stay aligned."""
    if not any(best):
        return list(texts)
    return [f"**{text}**" if bold else f"  {text}  " if text else "" for text, bold in zip(texts, best, strict=True)]


def align(parts: Sequence[Sequence[str]]) -> list[str]:
    """Join the parts of every line, each part right-aligned below its predecessor; a part empty everywhere drops."""
    widths = [max(map(len, texts)) for texts in zip(*parts, strict=True)]
    return [" ".join(t.rjust(w) for t, w in zip(part, widths, strict=True) if w) for part in parts]


def head_lines(records: Sequence[Record], most: int | None = MOST_SOURCES) -> list[str]:
    """List of machine, commit, date and record counts; says so where records come from several of them.

    most: machines, set-ups and commits named one by one, beginning with those of most records; None: all.
    """
    if not records:
        return ["- No records yet."]
    sources = [record.provenance for record in records]
    counts = Counter(record.kind for record in records)
    return [
        f"- Machine: {_several('machines', [machine(source) for source in sources], most)}",
        f"- Software: {_several('set-ups', [_software(source) for source in sources], most)}",
        f"- Commit: {_commits(sources, most)}",
        f"- Measured: {_dates(sources)}",
        f"- Records: {len(records)} ({', '.join(f'{counts[kind]} {kind}' for kind in sorted(counts))})",
    ]


def left_out(ignored: Sequence[Record]) -> list[str]:
    """What a page says of records that do not count, a line each kind."""
    extra = sum(record.is_current for record in ignored)
    stale = len(ignored) - extra
    return [
        *(
            [f"Left out: {stale} record(s), made with another recipe, padding, post-processing or model."]
            if stale
            else []
        ),
        *([f"Left out: {extra} accuracy record(s) of seeds that are not the recipe's."] if extra else []),
    ]


def reference_line(records: Sequence[Record]) -> str:
    """Machine, commit and date of the reference's records, as a line of the head."""
    sources = [record.provenance for record in records]
    machines = _several("machines", [machine(source) for source in sources])
    return f"- Reference: {machines}; commit {_commits(sources)}; {_dates(sources)}"


def _commits(sources: Sequence[Mapping], most: int | None = MOST_SOURCES) -> str:
    dirty = sum(bool(source["dirty"]) for source in sources)
    tree = f", with uncommitted changes for {dirty} of {len(sources)} records" if dirty else ""
    return _several("commits", [source["commit"][:12] for source in sources], most) + tree


def _dates(sources: Sequence[Mapping]) -> str:
    dates = sorted(source["start"] for source in sources)
    return " to ".join(dict.fromkeys((dates[0], dates[-1])))


def machine(source: Mapping) -> str:
    """One line for the machine of a provenance; kinds of measurement on it may use different numbers of threads."""
    return f"{source['cpu']}, {source.get('cores', '?')} cores, {source['gpu'] or 'no GPU'}"


def threads(records: Iterable[Record]) -> str:
    """ "one thread" or "2 threads" where all records agree, else empty."""
    counts = {record.provenance.get("threads") for record in records}
    count = counts.pop() if len(counts) == 1 else None
    return {None: "", 1: "one thread"}.get(count, f"{count} threads")


def _software(source: Mapping) -> str:
    return ", ".join(f"{name} {version}" for name, version in source["versions"].items() if version)


def _several(plural: str, values: Sequence[str], most: int | None = MOST_SOURCES) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return values[0]
    named = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    texts = [f"{value} ({n} record{'s' if n > 1 else ''})" for value, n in named]
    if others := len(counts) - len(named):
        n = len(values) - sum(n for _, n in named)
        texts.append(f"{others} other{'s' if others > 1 else ''} ({n} record{'s' if n > 1 else ''})")
    return f"{len(counts)} different {plural}: " + "; ".join(texts)
