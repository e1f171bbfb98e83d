"""The comparative claims of the paper, as relations between rows of its tables: `results/published/claims.toml`."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.errors import BenchError, unknown_name
from bench.experiments.experiment import Experiment
from bench.experiments.published import PUBLISHED, checked, load_toml, one_paragraph
from bench.experiments.table import COLUMNS, LABELS
from bench.experiments.tables import table_and_row

PAIRED = ("greater", "less", "at least", "within", "ratio below", "ratio above")  # relations of two figures
RELATIONS = (*PAIRED, "rises", "saturates", "no gain beyond")  # as the head of the file says
BRACES = re.compile(r"\{(.*?)\}")
CLAIM_KEYS = {"text": str, "sections": str, "relation": str, "metric": str, "margin": (int, float), "printed": str,
              "note": str, "cases": list}  # fmt: skip
CASE_KEYS = {"label": str, "metric": str, "margin": (int, float), "rows": (str, list), "minus": (str, list), "for": str}


@dataclass(frozen=True)
class Case:
    """One decision: a relation between the `metric` of some rows (of rows - minus, pair by pair, where given).

    rows, minus: names as `table_and_row` takes them. label: which data set, backbone or factor; starts with "small" at
    that scale.
    """

    label: str
    metric: str
    rows: tuple[str, ...]
    margin: float = 0.0
    minus: tuple[str, ...] = ()

    @property
    def scale(self) -> str:
        """ "paper" or "small"."""
        return "small" if self.label.startswith("small") else "paper"


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper. sections: where it stands (A: abstract, L: limitation in section 5); may be empty.

    relation: one of `RELATIONS`, the same in all cases. note: how the sentence was read, where that is not obvious.
    printed: what the text says where no table has figures.
    """

    id: str
    group: str
    text: str
    sections: str
    relation: str
    cases: tuple[Case, ...]
    note: str = ""
    printed: str = ""


@cache
def get_claims() -> dict[str, Claim]:
    """All claims by id, in the order of their page."""
    return load_claims()


@cache
def compared_latencies() -> dict[Experiment, tuple[Experiment, ...]]:
    """What claims compare the latency of an experiment with, where both are built here."""
    compared: dict[Experiment, tuple[Experiment, ...]] = {}
    for claim in get_claims().values():
        for case in claim.cases:
            first, *others = (table_and_row(name)[1].experiment for name in case.rows)
            if first and COLUMNS[case.metric].kind == "latency":
                compared[first] = (*compared.get(first, ()), *(other for other in others if other))
    return compared


def load_claims(folder: Path = PUBLISHED) -> dict[str, Claim]:
    """All claims by id. Raises BenchError naming the file, and the line or claim at fault."""
    path = folder / "claims.toml"
    claims: dict[str, Claim] = {}
    for group, of_group in load_toml(path).items():
        if not isinstance(of_group, dict):
            raise BenchError(f"{path}: '{group}' stands outside any claim: write it below a line [GROUP.ID]")
        for name, entry in of_group.items():
            try:
                if name in claims:
                    raise BenchError(f"stands in {claims[name].group} too")
                claims[name] = _claim(name, group, entry)
            except BenchError as error:
                raise BenchError(f"{path}, claim {name}: {error}") from error
    return claims


def _claim(name: str, group: str, entry: object) -> Claim:
    entry = checked(entry, CLAIM_KEYS, CLAIM_KEYS.keys() - {"text", "relation", "cases"})
    relation = entry["relation"]
    if relation not in RELATIONS:
        raise unknown_name("relation", relation, RELATIONS)
    common = {key: entry[key] for key in ("metric", "margin") if key in entry}
    cases = tuple(case for of_entry in entry["cases"] for case in _cases(of_entry, common, relation))
    if not cases or len({case.label for case in cases}) < len(cases):
        raise BenchError("needs one case or more, each with a label of its own")
    note = one_paragraph(entry.get("note", ""))
    return Claim(name, group, entry["text"], entry.get("sections", ""), relation, cases, note, entry.get("printed", ""))


def _cases(entry: object, common: dict, relation: str) -> list[Case]:
    """The cases of one line: one, or one for each value of "for"."""
    entry = checked(common | entry if isinstance(entry, dict) else entry, CASE_KEYS, ("margin", "minus", "for"))
    if entry["metric"] not in COLUMNS:
        raise unknown_name("metric", entry["metric"], COLUMNS)
    cases = []
    for value in entry["for"].split() if "for" in entry else ["*"]:
        label = entry["label"].replace("*", LABELS.get(value, value))
        rows, minus = (_rows(entry.get(key, []), value) for key in ("rows", "minus"))
        if len(rows) < 2 or (relation in PAIRED and len(rows) > 2) or len(minus) not in (0, len(rows)):
            raise BenchError(f"case '{label}' has {len(rows)} rows and {len(minus)} minus: '{relation}' compares "
                             f"{'two' if relation in PAIRED else 'two or more'}")  # fmt: skip
        cases.append(Case(label, entry["metric"], rows, float(entry.get("margin", 0.0)), minus))
    return cases


def _rows(patterns: str | list, value: str) -> tuple[str, ...]:
    """Names of rows: "*" stands for the value, "a{b,c}d" for "abd" and "acd". BenchError for one that is not there."""
    names = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        before, *inner = BRACES.split(str(pattern).replace("*", value), maxsplit=1)
        names += [before + middle + inner[1] for middle in inner[0].split(",")] if inner else [before]
    for name in names:
        table_and_row(name)
    return tuple(names)
