"""The small-scale blocks: small models trained from scratch. The paper's numbers have no place in them."""

from collections.abc import Sequence

from bench.experiments.declaration import SmallBlock
from bench.experiments.recipe import recipe_for
from bench.records import Record
from bench.report.frame import find_value
from bench.report.text import markdown_table, threads, with_range


def small_block(block: SmallBlock, cells: dict, records: dict, reference: dict) -> list[str]:
    """Heading, notes and table. `records` and `reference`: see `by_experiment`; `cells` holds the verdicts."""
    first = block.rows[0].experiment
    height, width = recipe_for(first).crop_size
    title = f"## Small scale: {first.dataset}, {height}x{width} crops, trained from scratch"
    headers = ["method", "run", *(column.label for column in block.columns), "seeds", "verdict"]
    rows = []
    for row in block.rows:
        verdict = cells[row.number, block.columns[0].metric]["verdict"]
        rows.append([row.method, "measured", *_values(block, row, records), verdict])
        values = _values(block, row, reference)
        if any(values[:-1]):
            rows.append([row.method, "reference", *values, ""])
    used = [r for row in block.rows for r in records.get(row.experiment.key, []) if r.kind == "accuracy"]
    return [title, *_notes(block, used), markdown_table(headers, rows)]


def _values(block: SmallBlock, row, groups: dict) -> list[str]:
    """Median with range of every column, and how many of the recipe's seeds are behind them."""
    found = [(find_value(groups, row, column), column.digits) for column in block.columns]
    texts = [with_range(v.value, v.low, v.high, v.n, digits) if v else "" for v, digits in found]
    n = max(v.n if v else 0 for v, _ in found)
    return [*texts, f"{n} of {len(recipe_for(row.experiment).seeds)}"]


def _notes(block: SmallBlock, records: Sequence[Record]) -> list[str]:
    recipe = recipe_for(block.rows[0].experiment)
    each = threads(records)
    timed = ", training in seconds" if any(column.unit == "s" for column in block.columns) else ""
    facts = [
        f"{recipe.iterations} iterations of {recipe.batch_size} images",
        f"learning rate {recipe.learning_rate:g} (the offsets of DCNv2 learn at {recipe.offset_multiplier:g} times it)",
        "no pretraining",
        "tested on whole images",
        *([f"{each} a run"] if each else []),
    ]
    return [
        "Not comparable with the paper's numbers: other data, other models, other scale. One recipe for all methods: "
        f"{', '.join(facts)}. {_models(block)}"
        f"Median (lowest..highest) of the seeds; percent{timed}.",
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
