"""`<store>/claims.md`: the paper's claims, each decided by the paper's own figures and by the store's records."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.experiments.claims import get_claims
from bench.experiments.published import load_published
from bench.experiments.table import PaperTable, Row
from bench.experiments.tables import table_and_row
from bench.records import Record, Store, write_atomically
from bench.report.claim_cells import Line, details_text, here_text, marked_text, paper_text, place_text
from bench.report.decisions import COLUMNS, DECISIONS, FAILS, decide, decide_printed, printed_values
from bench.report.frame import by_experiment, left_out
from bench.report.text import head_lines, machine, markdown_table, threads, wrap_prose

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


def write_claims(store: Store) -> Path:
    """Write the page from records alone; returns its path. Raises BenchError on a damaged record or published file."""
    path = store.path / "claims.md"
    write_atomically(path, wrap_prose(render_claims(store)))
    return path


def render_claims(store: Store) -> str:
    """The whole page as markdown."""
    lines = decide_claims(store)
    used = _records(lines)
    parts = ["# The paper's claims", "\n".join(head_lines(used)), *_left_out(store)]
    parts += [SEMANTICS, READING, SMALL_SCALE, _summary(lines), *_failing(lines)]
    for group in dict.fromkeys(line.claim.group for line in lines):
        parts += _group(group, [line for line in lines if line.claim.group == group])
    return "\n\n".join([*parts, NOT_LISTED]) + "\n"


def decide_claims(store: Store) -> list[Line]:
    """Every case of every claim, in the order of the page."""
    groups = by_experiment(store)
    tables = {table.name: table for table, _ in _rows()}
    published = {name: load_published(name) for name, table in tables.items() if table.rows}
    return [
        Line(claim, case, printed_values(case, published), decide_printed(claim, case, published),
             decide(claim, case, groups))
        for claim in get_claims().values()
        for case in claim.cases
    ]  # fmt: skip


def _rows() -> list[tuple[PaperTable, Row]]:
    """Tables and rows that any claim compares."""
    names = {name for claim in get_claims().values() for case in claim.cases for name in (*case.rows, *case.minus)}
    return list(map(table_and_row, sorted(names)))


def _left_out(store: Store) -> list[str]:
    keys = {row.experiment.key for _, row in _rows() if row.experiment}
    return left_out(record for record in store.load_all() if record.experiment.key in keys)


def _records(lines: Sequence[Line]) -> list[Record]:
    """The records behind the figures, each once."""
    cells = [cell for line in lines for figure in line.outcome.figures if figure for cell in figure.cells]
    return list({(r.experiment.key, r.name): r for cell in cells for r in cell.records}.values())


def _summary(lines: Sequence[Line]) -> str:
    printed = [line for line in lines if line.printed]
    rows = [
        _counts("the paper's own figures, its sentences", [line.printed for line in printed if line.claim.sections]),
        _counts("the paper's own figures, no sentence", [line.printed for line in printed if not line.claim.sections]),
    ]
    scales = {scale: [line for line in lines if line.case.scale == scale] for scale in ("paper", "small")}
    for name, kind in (("counted (FLOPs)", "complexity"), ("timed (latency)", "latency"), ("accuracy", "accuracy")):
        of_kind = [line for line in scales["paper"] if COLUMNS[line.case.metric].kind == kind]
        rows.append(_counts(f"records, paper scale, {name}", [line.outcome.decision for line in of_kind]))
    rows.append(_counts("records, small scale", [line.outcome.decision for line in scales["small"]]))
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
    return [f"{text}:\n\n" + "\n".join(_named(failing)) for text, failing in texts if failing]


def _named(lines: Sequence[Line]) -> list[str]:
    """One item a claim: its cases, and how its sentence was read."""
    of_claims = [[line for line in lines if line.claim is claim] for claim in get_claims().values()]
    cases = [(found, "; ".join(line.case.label for line in found)) for found in of_claims if found]
    return [f"- {found[0].claim.text}: {labels}. {_note(found)}".rstrip() for found, labels in cases]


def _note(lines: Sequence[Line]) -> str:
    """The note of the claim of these lines, and where its latencies were timed."""
    timed = [record for record in _records(lines) if record.kind == "latency"]
    devices = dict.fromkeys("a CPU" if record.details["device"] == "cpu" else "a GPU" for record in timed)
    how = f"Timed here on {', '.join([' and '.join(devices), *_forms(timed)])}." if timed else ""
    return f"{lines[0].claim.note} {how}".strip()


def _forms(timed: Sequence[Record]) -> list[str]:
    """Forms of clustering that latencies are of."""
    forms = dict.fromkeys(record.details.get("clustering") for record in timed)
    return [f"clustering {form}" for form in forms if form]


def _group(title: str, lines: Sequence[Line]) -> list[str]:
    notes: list[str] = []
    rows, previous = [], None
    for line in lines:
        of_claim = [other for other in lines if other.claim is line.claim]
        text = _with_note(line.claim.text, _note(of_claim), notes) if line.claim is not previous else ""
        previous = line.claim
        here = _with_note(here_text(line), details_text(line), notes)
        rows.append([text, place_text(line), line.case.label, paper_text(line), marked_text(line.printed), here,
                     marked_text(line.outcome.decision, line.outcome.reason)])  # fmt: skip
    headers = ["claim", "place", "case", "paper", "by itself", "here", "decision"]
    footnotes = "\n".join(f"- [{n}] {note}" for n, note in enumerate(notes, start=1))
    parts = [f"## {title}", _units(lines), markdown_table(headers, rows)]
    return [*parts, footnotes] if notes else parts


def _with_note(text: str, note: str, notes: list[str]) -> str:
    """The text with the number of its footnote, which joins `notes` unless it is there already."""
    if not note:
        return text
    if note not in notes:
        notes.append(note)
    return f"{text} [{notes.index(note) + 1}]".strip()


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
    facts = [*machines, *filter(None, [threads(timed)]), *_forms(timed)]
    text = "End to end, ms per image and their ratio (median of the rounds' ratios)."
    return f"{text} Here: {', '.join(facts)}." if timed else text
