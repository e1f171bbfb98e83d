"""The small-scale block: our models trained on synthetic images. The paper's numbers have no place in it."""

from collections.abc import Sequence

from bench.experiments.recipe import recipe_for
from bench.experiments.tables import PaperTable
from bench.records import Record
from bench.report.frame import find_value
from bench.report.text import markdown_table, threads, with_range

# How the recipe came about: who reads a ranking must know it.
TUNING = (
    "Do not read a ranking of the methods from this block: recipe and backbone were chosen by the PQ of seed 0 on this "
    "same validation set, in 27 trial runs (12 of MaskFormer, 7 of HCFormer, 5 of HCFormer+, 3 of Mask2Former), so "
    "that every method learns. The choice favours HCFormer: it gained most from leaving out the stem's pooling "
    "(strides 2 to 16) and from the low rate of the offsets; with strides 4 to 32 MaskFormer did better than here."
)


def small_block(table: PaperTable, cells: dict, records: dict, reference: dict) -> list[str]:
    """Heading, note and table. `records` and `reference`: see `by_experiment`; `cells` holds the verdicts."""
    if not table.small_rows:
        return []
    first = table.small_rows[0].experiment
    height, width = recipe_for(first).crop_size
    title = f"## Small scale: {first.dataset}, {height}x{width} crops, trained from scratch"
    headers = ["method", "run", *(column.label for column in table.small_columns), "seeds", "verdict"]
    rows = []
    for row in table.small_rows:
        verdict = cells[row.number, table.small_columns[0].metric]["verdict"]
        rows.append([row.method, "measured", *_values(table, row, records), verdict])
        values = _values(table, row, reference)
        if any(values[:-1]):
            rows.append([row.method, "reference", *values, ""])
    used = [r for row in table.small_rows for r in records.get(row.experiment.key, []) if r.kind == "accuracy"]
    return [title, *_notes(table, used), markdown_table(headers, rows)]


def _values(table: PaperTable, row, groups: dict) -> list[str]:
    """Median with range of every column, and how many of the recipe's seeds are behind them."""
    found = [(find_value(groups, row, column), column.digits) for column in table.small_columns]
    texts = [with_range(v.value, v.low, v.high, v.n, digits) if v else "" for v, digits in found]
    n = max(v.n if v else 0 for v, _ in found)
    return [*texts, f"{n} of {len(recipe_for(row.experiment).seeds)}"]


def _notes(table: PaperTable, records: Sequence[Record]) -> list[str]:
    experiment = table.small_rows[0].experiment
    recipe = recipe_for(experiment)
    each = threads(records)
    facts = [
        f"{recipe.iterations} iterations of {recipe.batch_size} images",
        f"learning rate {recipe.learning_rate:g} (the offsets of DCNv2 learn at {recipe.offset_multiplier:g} times it)",
        "no pretraining",
        "tested on whole images",
        *([f"{each} a run"] if each else []),
    ]
    return [
        "Not comparable with the rows above: other data, other models, other scale. One recipe for all methods: "
        f"{', '.join(facts)}. "
        f"Models: {experiment.num_queries} queries, {experiment.decoder_layers} decoder layers. "
        "Median (lowest..highest) of the seeds; percent, training in seconds.",
        "PQ counts a segment only from queries whose class probability is above 0.8 (the paper's rule): after so few "
        "steps PQ_th measures confidence as well as segmentation; AP_pan_th does not depend on that threshold.",
        TUNING,
    ]
