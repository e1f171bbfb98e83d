"""What a reader must know where the accuracy of a row is that of a checkpoint that somebody else trained."""

from bench.experiments.table import PaperTable
from bench.records import Record
from bench.report.frame import released_stand_in
from bench.report.verdict import RELEASED

LONGEST_NAME = 100


def released_notes(table: PaperTable, records: dict, reference: dict) -> list[str]:
    """A sentence and one line a file, empty without any. `records` and `reference`: see `by_experiment`."""
    files = [
        f"- Row {row.number}, {row.method} {row.backbone}{where}: {_file(record)}"
        for row in table.rows
        for groups, where in ((records, ""), (reference, ", in brackets"))
        if (record := released_stand_in(groups, row))
    ]
    if not files:
        return []
    sentence = (
        f"*{RELEASED}*: trained by others, evaluated here (n = 1), with the difference to the printed value. It tests "
        "the evaluation and the checkpoint, not whether the training reproduces."
    )
    return [sentence, "\n".join(files)]


def _file(record: Record) -> str:
    facts = record.details["weights"]
    text = f"{_code(facts['file'])} (SHA-256 {facts['sha256'][:12]})"
    if facts["source"]:
        digest = f" (SHA-256 {_code(facts['source_sha256'], 12)})" if facts["source_sha256"] else ""
        text += f", made from {_code(facts['source'])}{digest}"
    images = max(metric["n"] for metric in record.metrics.values())
    return f"{text}; {images} images"


def _code(text: object, longest: int = LONGEST_NAME) -> str:
    """A text from somebody's file as one short piece of markdown code, which it cannot leave."""
    line = " ".join(str(text).replace("`", "'").split())
    return f"`{line[:longest]}`"
