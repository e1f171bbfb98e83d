"""`bench score`: the metrics of saved predictions, without the model."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.errors import BenchError, plain

Predictions = Annotated[
    Path, typer.Argument(metavar="PREDICTIONS", help="Folder of predictions that an evaluation saved.")
]
Split = Annotated[str | None, typer.Option(help="Split; default: that of the predictions.")]


def score(
    name: options.DatasetName, predictions: Predictions, data_root: options.DataRoot = None, split: Split = None
) -> None:
    """Compute the metrics of saved predictions again, exactly as their evaluation did."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from tabulate import tabulate

    from bench.data.registry import open_split
    from bench.evaluation.evaluate import make_evaluator
    from bench.evaluation.prediction_writer import open_facts
    from bench.evaluation.saved_predictions import SavedPredictions
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
    metrics = evaluator.compute()
    rows = [(metric, "" if value != value else repr(value), "%", len(dataset)) for metric, value in metrics.items()]
    typer.echo(tabulate(rows, ["metric", "value", "unit", "n"], disable_numparse=True, colalign=("left", "left")))
    typer.echo(plain(f"of {facts['model']}, split {facts['split']}, post-processing {facts['post_processing']}"))
