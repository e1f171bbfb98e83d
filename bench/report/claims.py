"""`<store>/claims.md`: the paper's claims, each decided by the paper's own figures and by the store's records."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from textwrap import fill

from bench.experiments.claim import GROUPS, Case, Claim, find_claim_row
from bench.experiments.claims import CLAIMS
from bench.experiments.declaration import PaperTable, Row
from bench.records import Record, Store, write_atomically
from bench.report.decisions import COLUMNS, DECISIONS, FAILS, RATIOS, Outcome, decide, decide_printed, printed_values
from bench.report.frame import by_experiment
from bench.report.published import load_published
from bench.report.text import head_lines, machine, markdown_table, number, threads, with_range

SEMANTICS = (
    "A claim *holds* (*does not hold*) where every choice of one measured value from each side, of one seed where it "
    "is an accuracy, says so (contradicts it), and a claim of speed where nine in ten rounds of one run on one machine "
    "do. It is *undecided* where the choices disagree (the ranges overlap), where an accuracy has fewer than three "
    "seeds, is that of a released checkpoint or of a part of the data, and where latencies are not of one run of three "
    "rounds or more; *no records*: a side was not measured here."
)
READING = (
    "Place: sections (A abstract, L limitation in section 5), then the table that holds the figures; without a "
    "section: no sentence says it, the table shows it. A case is at the paper's scale unless it starts with *small*. "
    "`paper`: the printed figures, and what they decide by themselves. `here`: this store's medians, in brackets the "
    "range of the seeds or rounds."
)
SMALL_SCALE = (
    "*small*: small models trained from scratch, on synthetic scenes (AP is AP_pan_th there, mIoU of Tables 3, V and "
    "VII mIoU_pan), CamVid or nuclei. A decision there says nothing about the paper's scale, and little about a "
    "ranking of methods: recipe and backbone were chosen on the same synthetic validation set, which favours HCFormer "
    "(see the notes in the pages of Table 1 and of small real data)."
)
NOT_LISTED = (
    "Not listed, for want of printed or measured figures to compare: K-Net on instances and semantics, MaskFormer "
    "with one decoder layer, fewer iterations, undersegmentation, interpretability, and what the paper prefers or "
    "recommends."
)
WIDTH = 120  # of prose, in a terminal
LONGEST_WITH_RANGES = 2  # figures side by side; of more the ranges go to a footnote


@dataclass(frozen=True)
class Line:
    """One case of a claim, decided: `printed` by the paper's own figures, `outcome` by records."""

    claim: Claim
    case: Case
    values: Sequence[float]
    printed: str
    outcome: Outcome


def write_claims(store: Store) -> Path:
    """Write the page from records alone; returns its path. Raises BenchError on a damaged record or published file."""
    path = store.path / "claims.md"
    write_atomically(path, render_claims(store))
    return path


def render_claims(store: Store) -> str:
    """The whole page as markdown."""
    lines = decide_claims(store)
    used = _records(lines)
    parts = ["# The paper's claims", "\n".join(head_lines(used)), *_stale(store)]
    parts += [*map(_wrapped, (SEMANTICS, READING, SMALL_SCALE)), _summary(lines), *_failing(lines)]
    for group in GROUPS:
        parts += _group(group, [line for line in lines if line.claim.group == group])
    return "\n\n".join([*parts, _wrapped(NOT_LISTED)]) + "\n"


def decide_claims(store: Store) -> list[Line]:
    """Every case of every claim, in the order of the page."""
    groups = by_experiment(store)
    tables = {table.name: table for table, _ in _rows()}
    published = {name: load_published(name) for name, table in tables.items() if table.rows}
    return [
        Line(claim, case, printed_values(case, published), decide_printed(claim, case, published),
             decide(claim, case, groups))
        for claim in CLAIMS.values()
        for case in claim.cases
    ]  # fmt: skip


def _rows() -> list[tuple[PaperTable, Row]]:
    """Tables and rows that any claim compares."""
    names = {name for claim in CLAIMS.values() for case in claim.cases for name in (*case.rows, *case.minus)}
    return [found for found in map(find_claim_row, sorted(names)) if found]


def _stale(store: Store) -> list[str]:
    keys = {row.experiment.key for _, row in _rows() if row.experiment}
    stale = sum(r.experiment.key in keys and not r.is_current for r in store.load_all())
    return [f"Left out: {stale} accuracy record(s), made with another recipe than today's."] if stale else []


def _wrapped(text: str) -> str:
    return fill(text, WIDTH, subsequent_indent="  " if text.startswith("- ") else "", break_on_hyphens=False)


def _records(lines: Sequence[Line]) -> list[Record]:
    """The records behind the figures, each once."""
    cells = [cell for line in lines for figure in line.outcome.figures if figure for cell in figure.cells]
    return list({(r.experiment.key, r.name): r for cell in cells for r in cell.records}.values())


def _summary(lines: Sequence[Line]) -> str:
    rows = [_counts("the paper's own figures", [line.printed for line in lines if line.printed])]
    for scale in ("paper", "small"):
        decisions = [line.outcome.decision for line in lines if line.case.scale == scale]
        rows.append(_counts(f"records, {scale} scale", decisions))
    return markdown_table(["decision", *DECISIONS, "cases"], rows)


def _counts(name: str, decisions: Sequence[str]) -> list[str]:
    counts = Counter(decisions)
    return [name, *(str(counts[decision]) for decision in DECISIONS), str(len(decisions))]


def _failing(lines: Sequence[Line]) -> list[str]:
    """What does not hold, by name, so that nobody has to look for it."""
    texts = [
        ("Does not hold by the paper's own figures", [line for line in lines if line.printed == FAILS]),
        ("Does not hold by records", [line for line in lines if line.outcome.decision == FAILS]),
    ]
    return [f"{text}:\n\n" + "\n".join(map(_wrapped, _named(failing))) for text, failing in texts if failing]


def _named(lines: Sequence[Line]) -> list[str]:
    cases: dict[str, list[str]] = {}
    for line in lines:
        cases.setdefault(line.claim.text, []).append(line.case.label)
    return [f"- {text}: {'; '.join(labels)}" for text, labels in cases.items()]


def _group(title: str, lines: Sequence[Line]) -> list[str]:
    notes: list[str] = []
    rows, previous = [], None
    for line in lines:
        text = _with_note(line.claim.text, line.claim.note, notes) if line.claim is not previous else ""
        previous = line.claim
        here = _with_note(_here(line), _details(line), notes)
        rows.append([text, _place(line), line.case.label, _paper(line), _marked(line.printed), here,
                     _marked(line.outcome.decision, line.outcome.reason)])  # fmt: skip
    headers = ["claim", "place", "case", "paper", "by itself", "here", "decision"]
    parts = [f"## {title}", _wrapped(_units(lines)), markdown_table(headers, rows)]
    return [part for part in (*parts, "\n".join(_wrapped(f"- {note}") for note in notes)) if part]


def _with_note(text: str, note: str, notes: list[str]) -> str:
    """The text with the number of its footnote, which joins `notes` unless it is there already."""
    if not note:
        return text
    known = [existing.split("] ", 1)[1] for existing in notes]
    if note not in known:
        notes.append(f"[{len(notes) + 1}] {note}")
        known.append(note)
    return f"{text} [{known.index(note) + 1}]".strip()


def _units(lines: Sequence[Line]) -> str:
    """What the figures of the block are in, and of speed on which machine."""
    columns = [COLUMNS[line.case.metric] for line in lines]
    kinds = {column.kind for column in columns}
    if kinds == {"complexity"}:
        return "FLOPs in G, one multiply-add counts one; counted, so one value is enough."
    if kinds != {"latency"}:
        return "Percent."
    timed = _records(lines)
    machines = dict.fromkeys(machine(record.provenance) for record in timed)
    forms = dict.fromkeys(str(r.details["clustering"]) for r in timed if r.details.get("clustering"))
    facts = [*machines, *filter(None, [threads(timed)]), *(f"clustering {form}" for form in forms)]
    text = "End to end, ms per image and their ratio (median of the rounds' ratios)."
    return f"{text} Here: {', '.join(facts)}." if timed else text


def _place(line: Line) -> str:
    """Sections of the claim and the table of the case's first row: "3.2, E.2; Tab. 3 (a)"."""
    name = line.case.rows[0].partition("/")[0]
    table = name.removeprefix("table") if name.startswith("table") else ""
    if table[-1:] in ("a", "b"):
        table = f"{table[:-1]} ({table[-1]})"
    return "; ".join(filter(None, (line.claim.sections, f"Tab. {table}" if table else "")))


def _marked(decision: str, reason: str = "") -> str:
    text = f"**{decision}**" if decision == FAILS else decision
    if reason.startswith("of "):
        return f"{text} {reason}"
    return f"{text}: {reason}" if reason else text


def _paper(line: Line) -> str:
    column = COLUMNS[line.case.metric]
    if not line.values:
        return line.claim.printed if line.case.scale == "paper" else ""
    digits = column.digits if column.kind != "complexity" else 0
    texts = [number(value, digits) for value in line.values]
    if line.claim.relation in RATIOS:
        return f"{' / '.join(texts)} = {number(line.values[0] / line.values[1], 2)}"
    return _compared(texts, line.values)


def _here(line: Line) -> str:
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


def _details(line: Line) -> str:
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
