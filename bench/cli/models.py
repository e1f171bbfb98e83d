"""`bench weights`: `convert` and `inspect` public checkpoints, `export` those of trainings."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options, stores
from bench.errors import BenchError, plain

if TYPE_CHECKING:
    from bench.experiments.experiment import Experiment
    from bench.weights.convert import Fit
    from bench.weights.files import TensorFile

weights = typer.Typer(no_args_is_help=True, help="Weights of public checkpoints and of trainings.")
WeightFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A .pkl, .pth, .bin or .safetensors file, an index of shards, a hub folder."),
]
Tensors = Annotated[bool, typer.Option("--tensors", help="Name every tensor.")]


@weights.command()
def convert(
    file: WeightFile,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.safetensors", help="File to write.")],
    method: options.OptionalMethod = None,
    backbone: options.OptionalBackbone = None,
    dataset: options.OptionalDataset = None,
    hierarchical_level: options.HierarchicalLevel = None,
    decoder_layers: options.DecoderLayers = None,
    num_queries: options.NumQueries = None,
    downsampling: options.Downsampling = None,
    transformer_decoder: options.TransformerDecoder = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take what fits, also of an incomplete file.")] = False,
    tensors: Tensors = False,
) -> None:
    """Convert a published checkpoint or an ImageNet backbone for this program. The format is detected.

    Method, backbone, data set and factors are read from the file; what is typed must agree with it. Every tensor is
    used or reported. Missing and mis-shaped ones are an error unless --partial is given.
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
    typer.echo(f"{plain(str(file))}: {done.title}")
    typer.echo(_verdict(done))
    typer.echo(_account(done, tensors))
    typer.echo(f"written: {out}")
    if done.content == "model" and not done.fresh:
        typer.echo(_use(out, done.experiment))


@weights.command()
def inspect(file: WeightFile, tensors: Tensors = False) -> None:
    """Say what a weight file is, whether all of it fits a model here, and what to do with it."""
    from tabulate import tabulate

    from bench.weights.files import read_tensors

    content = read_tensors(file)
    typer.echo("\n".join(f"{plain(line)}" for line in _answer(file, content, tensors)))
    facts = {
        "container": content.container,
        "tensors": len(content.tensors),
        "elements": f"{sum(t.numel() for t in content.tensors.values()):,}",
        "bytes": f"{content.size:,}",
        "SHA-256": content.sha256,
    }
    facts |= {"other entries": ", ".join(map(plain, content.other))} if content.other else {}
    facts |= {f"metadata {plain(name)}": plain(value) for name, value in content.metadata.items()}
    typer.echo("\n" + tabulate(facts.items(), tablefmt="plain", disable_numparse=True))
    if tensors:
        rows = [(plain(name), list(t.shape), str(t.dtype).removeprefix("torch."), t.numel() * t.element_size())
                for name, t in content.tensors.items()]  # fmt: skip
        typer.echo("\n" + tabulate(rows, ["tensor", "shape", "type", "bytes"]))


@weights.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A checkpoint.pt, the work folder of a training, or a row "
                                       "(TABLE/METHOD-BACKBONE) with --seed.")],
    out: Annotated[Path | None, typer.Argument(metavar="[OUT]", help="The .safetensors file to write.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the row's training.")] = None,
    store: options.Store = None,
) -> None:  # fmt: skip
    """Make a weight file of a training's checkpoint, also of an unfinished one; of a finished one, say where it is."""
    from bench.weights.export import export as export_weights
    from bench.weights.export import find_run

    done = export_weights(find_run(run, seed, stores.open_store(store)), out)
    of = f" of {done.iterations}" if done.iterations is not None else ", by a recipe that has changed since"
    typer.echo(f"{_named(done.experiment)}, seed {done.seed}: step {done.iteration}{of}")
    typer.echo(f"weights: {done.path}")
    typer.echo(_use(done.path, done.experiment))


def _answer(file: Path, content: "TensorFile", tensors: bool) -> list[str]:
    """What it is, whether everything fits, what to do next."""
    from bench.weights.convert import examine
    from bench.weights.formats import detect
    from bench.weights.identify import before_reading
    from bench.weights.load import facts_of, is_ours, is_trained_here

    if is_ours(content.metadata):
        chosen, what, facts = facts_of(content)
        if what == "backbone":
            return [f"{file}: converted by this program, the backbone {chosen.backbone} alone, of {facts['source']}"]
        return [f"{file}: converted by this program, of {facts['source']}", _experiment(chosen), _use(file, chosen)]
    if is_trained_here(content):
        step = content.values.get("iteration")
        return [f"{file}: checkpoint of a training here, at step {step}: {content.values['identity']}",
                f"next: bench weights export {file}"]  # fmt: skip
    try:
        title = detect(content.tensors).title
    except BenchError as error:
        return [f"{file}: unknown, it {error}"]
    command = f"next: bench weights convert {file} -o {file.stem}.safetensors"
    try:
        fit = examine(content, before_reading(file, {}), {})
    except BenchError as error:
        return [f"{file}: {title}", f"unclear: {str(error).removeprefix(f'{file}: ')}", command]
    return [f"{file}: {title}", *_verdict(fit).splitlines(), *_account(fit, tensors).splitlines(),
            command + (" --partial" if fit.missing or fit.misshapen else "")]  # fmt: skip


def _verdict(fit: "Fit") -> str:
    """Which model, and whether everything fits."""
    if fit.content == "backbone":
        return f"backbone {fit.experiment.backbone}, for {fit.experiment.method}; no whole model"
    from bench.weights.convert import NO_PLACE

    strange = sum(reason == NO_PLACE for reason in fit.unused.values())
    if fit.missing or fit.misshapen:
        counts = f"{len(fit.missing)} tensors are missing, {len(fit.misshapen)} have another shape"
        return f"{_experiment(fit.experiment)}\nincomplete: {counts}"
    whole = "everything fits" if not strange else f"the model is complete, {strange} tensors have no place in it"
    return f"{_experiment(fit.experiment)}\n{whole}"


def _account(fit: "Fit", tensors: bool) -> str:
    """Where each tensor of the file and of the model is, by count; `tensors`: by name."""
    lines = [f"used: {fit.used} tensors"]
    for reason, count in Counter(fit.unused.values()).items():
        names = ", ".join(plain(name) for name, why in fit.unused.items() if why == reason)
        lines.append(f"not used, {reason}: {count}" + (f": {names}" if tensors else ""))
    if fit.content == "backbone":
        heads = sum(not name.startswith("backbone.") for name in fit.fresh)
        lines.append(f"a backbone alone: {heads} tensors of the heads are not in it")
    fresh = [name for name in fit.fresh if fit.content == "model" or name.startswith("backbone.")]
    if fresh:
        lines.append(f"not in the file: {len(fresh)}" + (f": {', '.join(fresh)}" if tensors else ""))
    return "\n".join(lines)


def _use(path: Path, experiment: "Experiment") -> str:
    from bench.experiments.datasets import get_dataset

    data = "" if get_dataset(experiment.dataset).generated else " --data-root FOLDER"
    return f"next: bench predict --weights {path} IMAGE... or bench run --weights {path}{data}"


def _named(experiment: "Experiment") -> str:
    return f"{experiment.method} {experiment.backbone} on {experiment.dataset}"


def _experiment(experiment: "Experiment") -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in experiment.to_dict().items())
