"""The small-scale blocks: small models trained from scratch. The paper's numbers have no place in them."""

from collections.abc import Sequence

from bench.experiments.recipe import recipe_for
from bench.experiments.table import SmallBlock
from bench.records import Record
from bench.report.cells import BOLD_SMALL, Cell, TableCells
from bench.report.text import align, embolden, markdown_table, number, threads, value_range

NOT_COMPARABLE = "Not comparable with the paper's numbers: other data, other models, other scale."


def small_block(block: SmallBlock, cells: TableCells) -> list[str]:
    """Heading, notes and table, a line a row and another for the reference's; without any value one sentence."""
    first = block.rows[0].experiment
    height, width = recipe_for(first).crop_size
    title = f"## Small scale: {first.dataset}, {height}x{width} crops, trained from scratch"
    of_rows = [cells.of_row(row, block.columns) for row in block.rows]
    if not any(cell.has("measured", "reference") for row in of_rows for cell in row):
        return [title, f"Not measured yet on {first.dataset}: {'; '.join(row.method for row in block.rows)}."]
    lines = [
        (row, source)
        for row in of_rows
        for source in ("measured", "reference")
        if source == "measured" or any(cell.has(source) for cell in row)
    ]
    columns = [_texts([(row[i], source) for row, source in lines]) for i in range(len(block.columns))]
    rows = []
    for (row, source), *texts in zip(lines, *columns, strict=True):
        seeds = max(value.n if (value := getattr(cell, source)) else 0 for cell in row)
        of_recipe = len(recipe_for(row[0].row.experiment).seeds)
        verdict = str(row[0].verdict) if source == "measured" else ""
        rows.append([row[0].row.method, source, *texts, f"{seeds} of {of_recipe}", verdict])
    headers = ["method", "run", *(column.label for column in block.columns), "seeds", "verdict"]
    experiments = [row.experiment for row in block.rows]
    trained = [r for r in cells.records if r.kind == "accuracy" and r.experiment in experiments]
    return [title, *_notes(block, trained), markdown_table(headers, rows)]


def _texts(lines: Sequence[tuple[Cell, str]]) -> list[str]:
    """Median with range of one column, aligned; of every cell the measured or the reference's."""
    values = [getattr(cell, source) for cell, source in lines]
    digits = lines[0][0].column.digits
    medians = [number(value and value.value, digits) for value in values]
    best = [source == "measured" and source in cell.best for cell, source in lines]
    ranges = [value_range(value.low, value.high, digits) if value and value.n > 1 else "" for value in values]
    return align(list(zip(embolden(medians, best), ranges, strict=True)))


def _notes(block: SmallBlock, records: Sequence[Record]) -> list[str]:
    first = block.rows[0].experiment
    recipe, each = recipe_for(first), threads(records)
    facts = [
        f"{recipe.iterations} iterations of {recipe.batch_size} images",
        f"learning rate {recipe.learning_rate:g} (the offsets of DCNv2 learn at {recipe.offset_multiplier:g} times it)",
        "no pretraining",
        "tested on whole images",
        *([f"{each} a run"] if each else []),
    ]
    models = []
    for factor, label in (("num_queries", "queries"), ("decoder_layers", "decoder layers")):
        values = {getattr(row.experiment, factor) for row in block.rows}
        models += [f"{value} {label}" for value in values if value and len(values) == 1]
    shared = f"Models: {', '.join(models)}. " if models else ""
    return [
        NOT_COMPARABLE,
        f"One recipe for all methods: {', '.join(facts)}. {shared}"
        f"Median (lowest..highest) of the seeds; percent. {BOLD_SMALL}",
        *block.notes,
    ]
