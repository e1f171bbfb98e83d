"""`bench weights convert` and `bench weights inspect`."""

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


def _factors(experiment) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in experiment.to_dict().items())
