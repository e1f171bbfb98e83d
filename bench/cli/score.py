"""`bench score`: the metrics of saved predictions, without the model. `bench compare`: those of two experiments."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.errors import BenchError, plain

if TYPE_CHECKING:
    from bench.evaluation.uncertainty.comparison import Compared, Comparison, Side

Predictions = Annotated[
    Path, typer.Argument(metavar="PREDICTIONS", help="Folder of predictions that an evaluation saved.")
]
Compare = Annotated[
    Path,
    typer.Argument(metavar="STORE_OR_RECORD", help="Record, folder of an experiment's records, or store."),
]
Split = Annotated[str | None, typer.Option(help="Split; default: that of the predictions.")]


def score(
    name: options.DatasetName, predictions: Predictions, data_root: options.DataRoot = None, split: Split = None
) -> None:
    """Compute the metrics of saved predictions again, exactly as their evaluation did."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.data.registry import open_split
    from bench.evaluation.evaluate import make_evaluator
    from bench.evaluation.prediction_writer import open_facts
    from bench.evaluation.saved_predictions import SavedPredictions
    from bench.evaluation.uncertainty.bootstrap import intervals
    from bench.experiments.datasets import get_dataset

    info = get_dataset(name)
    facts = open_facts(predictions)
    if facts["dataset"] != info.name:
        raise BenchError(f"{predictions} holds predictions of {facts['dataset']}, not of {info.name}: name that")
    root = None if info.generated else data_root
    dataset = open_split(info.name, split or facts["split"], root)
    if dataset.split != facts["split"]:
        raise BenchError(
            f"{predictions} holds predictions of split '{facts['split']}', not of '{dataset.split}': leave --split out"
        )
    saved, evaluator = SavedPredictions(predictions, dataset), make_evaluator(dataset)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        for image in bar.track(dataset.images, description="scoring"):
            evaluator.take(evaluator.measure(saved.of(image)))
        values = evaluator.compute()
        bar.add_task("resampling", total=None)
        found = intervals(evaluator.image_counts())
    rows = [
        (name, "" if value != value else repr(value), interval_text(found.get(name)), "%", len(dataset))
        for name, value in values.items()
    ]
    typer.echo(metric_table(rows, "value"))
    typer.echo(plain(f"of {facts['model']}, split {facts['split']}, post-processing {facts['post_processing']}"))


def compare(one: Compare, other: Compare) -> None:
    """Say which of two experiments is better, by how much and how sure that is, over the same images."""
    from rich.console import Console

    from bench.evaluation.uncertainty.comparison import compare as compare_sides
    from bench.evaluation.uncertainty.comparison import find_sides, pair_sides

    sides = find_sides(one), find_sides(other)
    pairs = pair_sides(*sides)
    for number, (a, b) in enumerate(pairs):
        with Console(stderr=True).status(f"resampling images, {number + 1} of {len(pairs)}"):
            comparison = compare_sides(a, b)
        typer.echo(("\n" if number else "") + _comparison_text(comparison))
    left = sum(map(len, sides)) - 2 * len(pairs)
    if left:
        typer.echo(f"\n{left} experiment(s) are on one side alone and are not compared.")


def metric_table(rows: Iterable[tuple[str, str, str, str, int]], header: str) -> str:
    """Of metrics as an evaluation gives them: name, value, interval, unit, n."""
    from tabulate import tabulate

    from bench.evaluation.uncertainty.bootstrap import LEVEL

    headers = ["metric", header, f"{LEVEL} % interval", "unit", "n"]
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", "left", "left", "left", "right"))


def recorded_metrics(metrics: Mapping[str, Mapping], header: str) -> str:
    """The table of a record's metrics, two decimals."""
    rows = [
        (name, f"{metric['value']:.2f}", interval_text(metric.get("interval")), metric["unit"], metric["n"])
        for name, metric in metrics.items()
    ]
    return metric_table(rows, header)


def interval_text(interval: Iterable[float] | None) -> str:
    """ "[1.20, 3.40]", empty for None."""
    return "" if interval is None else "[{:.2f}, {:.2f}]".format(*interval)


def _comparison_text(found: "Comparison") -> str:
    """The answer, what it is of, and a line for each metric."""
    from bench.evaluation.uncertainty.bootstrap import DRAWS, LEVEL
    from bench.report.text import markdown_table

    headers = ["metric", "A", "B", "A - B", "seeds of A", "seeds of B"]
    rows = [
        (m.metric, *(f"{value} {interval_text(interval)}".strip() for value, interval in (
            (f"{m.a:.2f}", m.of_a), (f"{m.b:.2f}", m.of_b), (f"{m.a - m.b:+.2f}", m.of_difference))),
         _spread(m.seeds_a), _spread(m.seeds_b))
        for m in found.metrics
    ]  # fmt: skip
    kept = [index for index in range(len(headers)) if index < 4 or any(row[index] for row in rows)]
    table = markdown_table([headers[i] for i in kept], [[row[i] for i in kept] for row in rows])
    names = [
        f"{letter}: {plain(str(side.paths[0].parent))}, {_models(side)}"
        for letter, side in (("A", found.a), ("B", found.b))
    ]
    notes = []
    if any(m.of_a or m.of_b for m in found.metrics):
        notes.append(f"In brackets: {LEVEL} % intervals over images ({DRAWS} draws with replacement).")
    if found.unpaired:
        notes.append(f"Unpaired, how sure a difference is cannot be said: {found.unpaired}.")
    return "\n".join([_answer(found), "", *names, "", table, "", *notes])


def _answer(found: "Comparison") -> str:
    first, images = found.metrics[0], f"over the same {found.images} images"
    difference = f"A - B is {first.a - first.b:+.2f}"
    low, high = first.of_difference or (0, 0)
    if found.unpaired:
        return f"{difference} in {first.metric}, unpaired{_seeds(first)}"
    if low <= 0 <= high:
        interval = interval_text(first.of_difference)
        return f"no clear difference in {first.metric}: {difference} {interval} {images}{_seeds(first)}"
    better, ends = ("A", (low, high)) if low > 0 else ("B", (-high, -low))
    amount = f"{abs(first.a - first.b):.2f} {interval_text(ends)}"
    return f"{better} is better in {first.metric} by {amount} {images}{_seeds(first)}"


def _seeds(metric: "Compared") -> str:
    seeds = metric.seeds_a, metric.seeds_b
    counts = [str(len(values)) for values in seeds]
    if counts == ["1", "1"]:
        return ""
    spreads = ", ".join(f"{letter} {_spread(values) or 'of one'}" for letter, values in zip("AB", seeds, strict=True))
    overlap = ", which overlap" if max(map(min, seeds)) <= min(map(max, seeds)) else ""
    return f" (median of {' and '.join(dict.fromkeys(counts))} seeds; seeds' spread {spreads}{overlap})"


def _spread(seeds: Sequence[float]) -> str:
    return f"{min(seeds):.2f}..{max(seeds):.2f}" if len(seeds) > 1 else ""


def _models(side: "Side") -> str:
    if side.records[0].kind == "released":
        return f"checkpoint {plain(side.records[0].details['weights']['file'])}"
    return f"seed{'s' if len(side.records) > 1 else ''} {', '.join(str(record.seed) for record in side.records)}"
