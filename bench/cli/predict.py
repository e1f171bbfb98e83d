"""`bench predict`: a model's results for image files."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.errors import BenchError, plain


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...", help="Image files, folders of them, or patterns in quotation marks ('*.jpg')."
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Of a training, or from 'bench weights convert'.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the results.")] = Path(
        "predictions"
    ),
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="0..1",
            help="Show what scores more: the class probability of a panoptic segment (by default more than 0.8), "
            "the score of an instance (0.5).",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1; the GPU if there is one.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Also write class and mask logits as .npz.")] = False,
    native_size: Annotated[
        bool, typer.Option("--native-size", help="Do not resize to the data set's test size.")
    ] = False,
    method: options.OptionalMethod = None,
    backbone: options.OptionalBackbone = None,
    dataset: options.OptionalDataset = None,
    hierarchical_level: options.HierarchicalLevel = None,
    decoder_layers: options.DecoderLayers = None,
    num_queries: options.NumQueries = None,
    downsampling: options.Downsampling = None,
    transformer_decoder: options.TransformerDecoder = None,
) -> None:
    """Segment images: for each one the result (PNG and JSON in COCO's formats) and a picture with the segments."""
    if weights is None:
        raise BenchError(
            "no weights, give them with --weights: 'bench weights export ROW --seed N' names those of a training, "
            "'bench weights convert' makes them of a published checkpoint"
        )
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.data.images import find_images
    from bench.experiments.datasets import get_dataset
    from bench.machine import get_device
    from bench.measure.inference import prepare_for_inference
    from bench.measure.predict import Prediction, check_images, check_threshold, predict_images
    from bench.weights.load import open_weights

    factors = options.given(
        method=method,
        backbone=backbone,
        dataset=dataset,
        hierarchical_level=hierarchical_level,
        decoder_layers=decoder_layers,
        num_queries=num_queries,
        downsampling=downsampling,
        transformer_decoder=transformer_decoder,
    )
    place = get_device(device)
    opened = open_weights(weights, **factors)
    experiment = opened.experiment
    check_threshold(threshold, experiment.dataset)
    found = find_images(images)
    check_images(found, out, get_dataset(experiment.dataset).task, raw)  # before a progress bar
    model = opened.build()
    model = prepare_for_inference(model, place, fold=experiment.scale == "paper", many_images=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    done: list[Prediction] = []
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(plain(found[0].name), total=len(found))
            for prediction in predict_images(model, experiment, found, out, raw, native_size, threshold):
                done.append(prediction)
                bar.update(task, completed=len(done), description=plain(prediction.image.name))
    finally:
        for prediction in done:
            typer.echo(f"{plain(str(prediction.image))}: {prediction.found}; {plain(str(out / prediction.picture))}")
    kinds = ", ".join(plain(name) for name in done[-1].files)
    typer.echo(f"{len(done)} image(s), results in {plain(str(out))}: of the last {kinds}")
