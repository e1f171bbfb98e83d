"""The page of claims: the paper's claims, each decided by the paper's own figures and by the store's records."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.experiments.claims import get_claims
from bench.records import Record
from bench.report.cells import StoreCells
from bench.report.claim_text import decision_text, details_text, here_text, paper_text, place_text
from bench.report.decisions import DecidedCase, Decision, decide_case
from bench.report.text import head_lines, left_out, machine, markdown_table, threads

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


def render_claims(store: StoreCells) -> str:
    """The whole page as markdown."""
    decided = decide_claims(store)
    compared = {cell.row.experiment for one in decided for side in one.sides for cell in side.cells}
    ignored = [record for record in store.ignored if record.experiment in compared]
    parts = ["# The paper's claims", "\n".join(head_lines(_records(decided))), *left_out(ignored)]
    parts += [SEMANTICS, READING, SMALL_SCALE, _summary(decided), *_failing(decided)]
    for group in dict.fromkeys(one.claim.group for one in decided):
        parts += _group(group, [one for one in decided if one.claim.group == group])
    return "\n\n".join([*parts, NOT_LISTED]) + "\n"


def decide_claims(store: StoreCells) -> list[DecidedCase]:
    """Every case of every claim, in the order of the page."""
    return [decide_case(claim, case, store.tables) for claim in get_claims().values() for case in claim.cases]


def _records(decided: Iterable[DecidedCase]) -> list[Record]:
    """The records behind the figures, each once."""
    records = [record for one in decided for value in one.measured if value for record in value.records]
    return list({(record.key, record.name): record for record in records}.values())


def _summary(decided: Sequence[DecidedCase]) -> str:
    printed = [one for one in decided if one.printed]
    paper = [one for one in decided if one.case.scale == "paper"]
    rows = [
        _counts("the paper's own figures, its sentences", [one.printed for one in printed if one.claim.sections]),
        _counts("the paper's own figures, no sentence", [one.printed for one in printed if not one.claim.sections]),
    ]
    for name, kind in (("counted (FLOPs)", "complexity"), ("timed (latency)", "latency"), ("accuracy", "accuracy")):
        of_kind = [one.outcome.decision for one in paper if one.column.kind == kind]
        rows.append(_counts(f"records, paper scale, {name}", of_kind))
    small = [one.outcome.decision for one in decided if one.case.scale == "small"]
    rows.append(_counts("records, small scale", small))
    return markdown_table(["decision", *Decision, "cases"], rows)


def _counts(name: str, decisions: Sequence[Decision]) -> list[str]:
    counts = Counter(decisions)
    return [name, *(str(counts[decision]) for decision in Decision), str(len(decisions))]


def _failing(decided: Sequence[DecidedCase]) -> list[str]:
    """What does not hold, by name, so that nobody has to look for it."""
    texts = [
        ("Does not hold by the paper's own figures", [one for one in decided if one.printed is Decision.FAILS]),
        ("Does not hold by records", [one for one in decided if one.outcome.decision is Decision.FAILS]),
    ]
    return [f"{text}:\n\n" + "\n".join(_named(failing)) for text, failing in texts if failing]


def _named(failing: Sequence[DecidedCase]) -> list[str]:
    """One item a claim: its cases, and how its sentence was read."""
    of_claims = [[one for one in failing if one.claim is claim] for claim in get_claims().values()]
    cases = [(found, "; ".join(one.case.label for one in found)) for found in of_claims if found]
    return [f"- {found[0].claim.text}: {labels}. {_note(found)}".rstrip() for found, labels in cases]


def _note(of_claim: Sequence[DecidedCase]) -> str:
    """The note of the claim, and where its latencies were timed."""
    timed = [record for record in _records(of_claim) if record.kind == "latency"]
    devices = dict.fromkeys("a CPU" if record.details["device"] == "cpu" else "a GPU" for record in timed)
    how = f"Timed here on {', '.join([' and '.join(devices), *_forms(timed)])}." if timed else ""
    return f"{of_claim[0].claim.note} {how}".strip()


def _forms(timed: Sequence[Record]) -> list[str]:
    """Forms of clustering that latencies are of."""
    forms = dict.fromkeys(record.details.get("clustering") for record in timed)
    return [f"clustering {form}" for form in forms if form]


def _group(title: str, decided: Sequence[DecidedCase]) -> list[str]:
    notes: list[str] = []
    rows, previous = [], None
    for one in decided:
        of_claim = [other for other in decided if other.claim is one.claim]
        text = _with_note(one.claim.text, _note(of_claim), notes) if one.claim is not previous else ""
        previous = one.claim
        here = _with_note(here_text(one), details_text(one), notes)
        rows.append([text, place_text(one), one.case.label, paper_text(one), decision_text(one.printed), here,
                     decision_text(one.outcome.decision, one.outcome.reason)])  # fmt: skip
    headers = ["claim", "place", "case", "paper", "by itself", "here", "decision"]
    footnotes = "\n".join(f"- [{n}] {note}" for n, note in enumerate(notes, start=1))
    parts = [f"## {title}", _units(decided), markdown_table(headers, rows)]
    return [*parts, footnotes] if notes else parts


def _with_note(text: str, note: str, notes: list[str]) -> str:
    """The text with the number of its footnote, which joins `notes` unless it is there already."""
    if not note:
        return text
    if note not in notes:
        notes.append(note)
    return f"{text} [{notes.index(note) + 1}]".strip()


def _units(decided: Sequence[DecidedCase]) -> str:
    """What the figures of the block are in, and of speed on which machine."""
    kinds = {one.column.kind for one in decided}
    if kinds == {"complexity"}:
        return "FLOPs in G, one multiply-add counts one; counted, so one value is enough."
    if kinds != {"latency"}:
        return "Percent."
    timed = _records(decided)
    machines = dict.fromkeys(machine(record.provenance) for record in timed)
    facts = [*machines, *filter(None, [threads(timed)]), *_forms(timed)]
    text = "End to end, ms per image and their ratio (median of the rounds' ratios)."
    return f"{text} Here: {', '.join(facts)}." if timed else text
