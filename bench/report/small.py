"""The small-scale blocks: small models trained from scratch. The paper's numbers have no place in them."""

from collections.abc import Sequence

from bench.experiments.recipe import recipe_for
from bench.experiments.table import Column, Row, SmallBlock
from bench.records import Record
from bench.report.best import BOLD_SMALL
from bench.report.frame import find_value
from bench.report.text import align, embolden, markdown_table, number, threads, value_range

NOT_COMPARABLE = "Not comparable with the paper's numbers: other data, other models, other scale."
Run = tuple[Row, str, dict]  # "measured" or "reference", and the records to take the values from


def small_block(block: SmallBlock, cells: dict, bold: frozenset, records: dict, reference: dict) -> list[str]:
    """Heading, notes and table; without any value the heading and one sentence.

    `records` and `reference`: see `by_experiment`; `cells` holds the verdicts, `bold` is that of `best_cells`.
    """
    first = block.rows[0].experiment
    height, width = recipe_for(first).crop_size
    title = f"## Small scale: {first.dataset}, {height}x{width} crops, trained from scratch"
    runs = [
        (row, name, groups)
        for row in block.rows
        for name, groups in (("measured", records), ("reference", reference))
        if name == "measured" or _seeds(block, row, groups)
    ]
    if not any(_seeds(block, row, groups) for row, _, groups in runs):
        return [title, f"Not measured yet on {first.dataset}: {'; '.join(row.method for row in block.rows)}."]
    headers = ["method", "run", *(column.label for column in block.columns), "seeds", "verdict"]
    columns = [_texts(column, runs, bold) for column in block.columns]
    rows = []
    for (row, name, groups), *texts in zip(runs, *columns, strict=True):
        seeds = f"{_seeds(block, row, groups)} of {len(recipe_for(row.experiment).seeds)}"
        verdict = cells[row.number, block.columns[0].metric]["verdict"] if name == "measured" else ""
        rows.append([row.method, name, *texts, seeds, verdict])
    used = [r for row in block.rows for r in records.get(row.experiment.key, []) if r.kind == "accuracy"]
    return [title, *_notes(block, used), markdown_table(headers, rows)]


def _seeds(block: SmallBlock, row: Row, groups: dict) -> int:
    """How many of the recipe's seeds are behind the row's values."""
    found = [find_value(groups, row, column) for column in block.columns]
    return max(value.n if value else 0 for value in found)


def _texts(column: Column, runs: Sequence[Run], bold: frozenset) -> list[str]:
    """Median with range of every run, aligned."""
    values = [find_value(groups, row, column) for row, _, groups in runs]
    medians = [number(value and value.value, column.digits) for value in values]
    best = [name == "measured" and (row.number, column.metric, name) in bold for row, name, _ in runs]
    ranges = [value_range(v.low, v.high, column.digits) if v and v.n > 1 else "" for v in values]
    return align(list(zip(embolden(medians, best), ranges, strict=True)))


def _notes(block: SmallBlock, records: Sequence[Record]) -> list[str]:
    recipe = recipe_for(block.rows[0].experiment)
    each = threads(records)
    facts = [
        f"{recipe.iterations} iterations of {recipe.batch_size} images",
        f"learning rate {recipe.learning_rate:g} (the offsets of DCNv2 learn at {recipe.offset_multiplier:g} times it)",
        "no pretraining",
        "tested on whole images",
        *([f"{each} a run"] if each else []),
    ]
    return [
        NOT_COMPARABLE,
        f"One recipe for all methods: {', '.join(facts)}. {_models(block)}"
        f"Median (lowest..highest) of the seeds; percent. {BOLD_SMALL}",
        *block.notes,
    ]


def _models(block: SmallBlock) -> str:
    """The sizes that all models of the block share, as a sentence; empty without any."""
    models = [row.experiment for row in block.rows]
    shared = []
    for what, values in (
        ("queries", {m.num_queries for m in models}),
        ("decoder layers", {m.decoder_layers for m in models}),
    ):
        if len(values) == 1 and any(values):
            shared.append(f"{values.pop()} {what}")
    return f"Models: {', '.join(shared)}. " if shared else ""
