"""The commands that name a model: `bench weights convert`, `bench weights inspect`, `bench predict`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.errors import BenchError, plain

weights = typer.Typer(no_args_is_help=True, help="Weights of public checkpoints.")
WeightFile = Annotated[Path, typer.Argument(metavar="FILE", help="A .pkl, .pth or .safetensors file.")]


@weights.command()
def convert(
    file: WeightFile,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.safetensors", help="File to write.")],
    method: options.Method,
    backbone: options.Backbone,
    dataset: options.Dataset,
    hierarchical_level: options.HierarchicalLevel = None,
    decoder_layers: options.DecoderLayers = None,
    num_queries: options.NumQueries = None,
    downsampling: options.Downsampling = None,
    transformer_decoder: options.TransformerDecoder = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take what fits, also of an incomplete file.")] = False,
) -> None:
    """Convert a published checkpoint or an ImageNet backbone for this program. The format is detected.

    Every tensor is used or reported. Missing and mis-shaped ones are an error unless --partial is given.
    """
    from bench.weights.convert import convert as convert_file

    factors = options.given(
        hierarchical_level=hierarchical_level,
        decoder_layers=decoder_layers,
        num_queries=num_queries,
        downsampling=downsampling,
        transformer_decoder=transformer_decoder,
    )
    done = convert_file(file, out, method, backbone, dataset, partial, **factors)
    typer.echo(f"{file.name}: {done.title}")
    typer.echo(_factors(done.experiment) if done.content == "model" else f"backbone {backbone}, for {method}")
    typer.echo(f"used: {done.used} tensors")
    for reason in dict.fromkeys(done.unused.values()):
        names = [plain(name) for name, why in done.unused.items() if why == reason]
        typer.echo(f"not used, {reason} ({len(names)}): {', '.join(names)}")
    if done.content == "backbone":
        heads = sum(not name.startswith("backbone.") for name in done.fresh)
        typer.echo(f"a backbone alone: {heads} tensors of the heads are not in it")
    fresh = [name for name in done.fresh if done.content == "model" or name.startswith("backbone.")]
    if fresh:
        typer.echo(f"not in the file ({len(fresh)}): {', '.join(fresh)}")
    typer.echo(f"written: {out}")


@weights.command()
def inspect(file: WeightFile) -> None:
    """Say what a weight file is: format, checksum, and its tensors with their sizes."""
    from tabulate import tabulate

    from bench.weights.files import read_tensors
    from bench.weights.formats import detect
    from bench.weights.load import is_ours

    content = read_tensors(file)
    try:
        title = "converted by this program" if is_ours(content.metadata) else detect(content.tensors).title
    except BenchError as error:
        title = f"not known: it {error}"
    rows = [(plain(name), list(t.shape), str(t.dtype).removeprefix("torch."), t.numel() * t.element_size())
            for name, t in content.tensors.items()]  # fmt: skip
    typer.echo(tabulate(rows, ["tensor", "shape", "type", "bytes"]))
    typer.echo()
    facts = {
        "file": file,
        "container": content.container,
        "content": title,
        "tensors": len(rows),
        "elements": f"{sum(t.numel() for t in content.tensors.values()):,}",
        "bytes": f"{file.stat().st_size:,}",
        "SHA-256": content.sha256,
    }
    facts |= {"other entries": ", ".join(map(plain, content.other))} if content.other else {}
    facts |= {f"metadata {plain(name)}": plain(value) for name, value in content.metadata.items()}
    typer.echo(tabulate(facts.items(), tablefmt="plain", disable_numparse=True))


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    weights: Annotated[Path, typer.Option("--weights", metavar="FILE", help="From 'bench weights convert'.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the results.")] = Path(
        "predictions"
    ),
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
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.experiments.datasets import get_dataset
    from bench.measure.inference import prepare_for_inference
    from bench.measure.predict import check_images, predict_images
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
    opened = open_weights(weights, **factors)
    experiment = opened.experiment
    check_images(images, out, get_dataset(experiment.dataset).task, raw)  # before a progress bar
    out.mkdir(parents=True, exist_ok=True)
    model = opened.build()
    if experiment.scale == "paper":
        model = prepare_for_inference(model, "cpu", fold=True, many_images=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(plain(images[0].name), total=len(images))
        written = predict_images(
            model, experiment, images, out, raw, native_size,
            lambda done, total, label: bar.update(task, completed=done, total=total, description=plain(label)),
        )  # fmt: skip
    typer.echo("\n".join(plain(str(path)) for path in written))


def _factors(experiment) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in experiment.to_dict().items())
