"""From a public checkpoint to a safetensors file under our names, every tensor accounted for."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import BenchError, one_line
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment, experiment
from bench.files import whole_file
from bench.weights import shown
from bench.weights.files import TensorFile, read_tensors
from bench.weights.formats import detect
from bench.weights.imagenet import DEFORMABLE_EXTRAS, for_deformable
from bench.weights.load import check_agreement, check_finite, is_ours, pack
from bench.weights.rules import Format

NAMED = 5  # tensors that an error names before it only counts


@dataclass(frozen=True)
class Conversion:
    """What became of a file. used: tensors of the file that were taken. unused: name in the file -> reason.

    fresh: our tensors that the file lacks and need not hold, or lacks with `partial`; they keep their initial values.
    """

    experiment: Experiment
    title: str
    content: str  # "model" or "backbone"
    used: int
    unused: dict[str, str]
    fresh: tuple[str, ...]


def convert(
    path: Path, out: Path, method: str, backbone: str, dataset: str, partial: bool = False, **factors: int | str
) -> Conversion:
    """Write the weights of `path` to `out`, as the model of an experiment at paper scale.

    factors: those of `experiment` that shall hold; the others are read from the file. An ImageNet backbone fills the
    backbone alone. partial: allow missing and mis-shaped tensors. Raises BenchError, and writes nothing, for a file
    that cannot be read or is no known checkpoint, for another method, backbone, class count or factor than asked for,
    and for missing or mis-shaped tensors.
    """
    _check_out(path, out)
    experiment(method, backbone, dataset, "paper", **factors)  # a mistyped name shows before a large file is read
    file = read_tensors(path)
    try:
        if is_ours(file.metadata):
            raise BenchError("is converted already: use it as it is")
        kind = detect(file.tensors)
        ours = kind.to_ours(file.tensors)
        chosen = _experiment(kind, ours, method, backbone, dataset, factors)
        state, conversion = _fit(file, kind, ours, chosen, partial)
        check_finite(state)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error
    facts = {"source": path.name, "source_sha256": file.sha256, "format": kind.title}
    write_weights(state, pack(facts | {"content": conversion.content, "experiment": chosen.to_dict()}), out)
    return conversion


def _experiment(
    kind: Format, ours: Mapping[str, Tensor], method: str, backbone: str, dataset: str, given: dict
) -> Experiment:
    """The experiment that the file is of; BenchError where it contradicts what was asked for."""
    found = shown.backbone(ours)
    if found and found != backbone:
        raise BenchError(f"holds a {found} backbone, --backbone says {backbone}")
    if kind.method is None:
        return experiment(method, backbone, dataset, "paper", **given)
    if kind.method != method:
        raise BenchError(f"holds {kind.holds}, --method says {method}: use --method {kind.method}")
    _check_classes(ours.get(kind.class_head), dataset)
    in_file = kind.factors(ours)
    held = experiment(method, backbone, dataset, "paper", **in_file)
    # A file with fewer layers or levels than asked for lacks tensors, which is said with their names.
    counts = ("hierarchical_level", "decoder_layers")
    fewer = {name: given[name] for name in counts if name in given and given[name] > getattr(held, name)}
    check_agreement("it", held, {name: value for name, value in given.items() if name not in fewer})
    return experiment(method, backbone, dataset, "paper", **(in_file | fewer))


def _check_classes(head: Tensor | None, dataset: str) -> None:
    expected = get_dataset(dataset).num_classes
    if head is not None and head.ndim == 2 and len(head) != expected + 1:
        raise BenchError(
            f"the class embedding has {len(head) - 1} classes and 'no object', {dataset} has {expected}: "
            "name the data set that it was trained on with --dataset"
        )


def _fit(
    file: TensorFile, kind: Format, ours: Mapping[str, Tensor], chosen: Experiment, partial: bool
) -> tuple[dict[str, Tensor], Conversion]:
    """The tensors that the model takes, and the account of all others."""
    from bench.zoo import build_model

    with torch.device("meta"):
        model = build_model(chosen)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if kind.method is None:
        ours = for_deformable(ours, expected)
    names = {our: name for name in file.tensors for our in kind.to_ours({name: file.tensors[name]})}
    wrong = [our for our, shape in expected.items() if our in ours and tuple(ours[our].shape) != shape]
    missing = [our for our in expected if our not in ours and not (kind.method is None and _not_imagenets(our))]
    if (missing or wrong) and not partial:
        parts = [_some("lacks", missing)] if missing else []
        shapes = [f"{_both(our, names)} is {list(ours[our].shape)}, expected {list(expected[our])}" for our in wrong]
        parts += [_some("has other shapes:", shapes)] if wrong else []
        raise BenchError(f"{'; '.join(parts)}: is it the right checkpoint? --partial takes what fits")
    state = {our: ours[our].float() for our in expected if our in ours and our not in wrong}
    left = {our: names.get(our, our) for our in ours if our not in expected}
    unused = {theirs: kind.why_not_needed(theirs) or "no place in the model" for theirs in left.values()}
    unused |= {names.get(our, our): f"shape {list(ours[our].shape)} does not fit" for our in wrong}
    unused |= {name: "not a tensor of the model" for name in file.other}
    used = len(file.tensors) - sum(name in file.tensors for name in unused)
    content = "model" if kind.method else "backbone"
    fresh = tuple(our for our in expected if our not in state)
    return state, Conversion(chosen, kind.title, content, used, unused, fresh)


def _not_imagenets(name: str) -> bool:
    """Whether an ImageNet backbone has no such tensor: heads, DCNv2's offsets and biases, Swin's output norms."""
    return not name.startswith("backbone.") or name.endswith(DEFORMABLE_EXTRAS) or name.startswith("backbone.norm")


def _both(our: str, names: Mapping[str, str]) -> str:
    theirs = names.get(our, our)
    return our if theirs == our else f"{theirs} (ours: {our})"


def _some(verb: str, parts: list[str]) -> str:
    more = len(parts) - NAMED
    return f"{verb} {', '.join(parts[:NAMED])}" + (f" and {more} more" if more > 0 else "")


def _check_out(path: Path, out: Path) -> None:
    if out.suffix != ".safetensors":
        raise BenchError(f"{out}: name the output OUT.safetensors with -o")
    try:
        if path.exists() and out.exists() and (out.samefile(path) or not _is_converted(out)):
            raise BenchError(f"{out} is there already and was not written by this command: give another file with -o")
    except OSError as error:
        raise BenchError(f"cannot write {out} ({error.strerror}): give another file with -o") from error
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise BenchError(f"cannot write {out} ({folder} is no folder to write to): give another file with -o")


def _is_converted(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return is_ours(file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def write_weights(state: Mapping[str, Tensor], metadata: dict[str, str], out: Path) -> None:
    """A converted file, whole or not at all; metadata: `bench.weights.load.pack`. Raises BenchError."""
    try:
        with whole_file(out) as temporary:
            save_file({name: value.contiguous() for name, value in state.items()}, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise BenchError(
            f"cannot write {out} ({one_line(error)}): free space, or give another file or store"
        ) from error
