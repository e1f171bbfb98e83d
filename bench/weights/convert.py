"""From a public checkpoint to a safetensors file under our names, every tensor accounted for."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import BenchError, one_line
from bench.experiments.experiment import Experiment
from bench.files import whole_file
from bench.weights.files import TensorFile, read_tensors
from bench.weights.formats import detect
from bench.weights.hub_folder import Config
from bench.weights.identify import Given, before_reading, identify
from bench.weights.imagenet import DEFORMABLE_EXTRAS, for_deformable
from bench.weights.load import check_finite, is_ours, is_trained_here, pack
from bench.weights.rules import Format

NAMED = 5  # tensors that an error names before it only counts
NO_PLACE = "no place in the model"


@dataclass(frozen=True)
class Fit:
    """How a file fits the model of its experiment.

    content: "model" or "backbone". used: tensors of the file that were taken. unused: name in the file -> reason.
    missing: our tensors that the file must hold and lacks, misshapen: those with another shape, as text. fresh: all of
    ours that the file does not fill. state: tensors as the model takes them, float32.
    """

    experiment: Experiment
    title: str
    content: str
    used: int
    unused: dict[str, str]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    fresh: tuple[str, ...]
    state: dict[str, Tensor] = field(repr=False)


def convert(
    path: Path, out: Path, method: str | None = None, backbone: str | None = None, dataset: str | None = None,
    partial: bool = False, **factors: int | str,
) -> Fit:  # fmt: skip
    """Write the weights of `path` to `out`, as the model of an experiment at paper scale.

    method, backbone, dataset, factors: what shall hold; what is left out is read from the file. An ImageNet backbone
    fills the backbone alone. partial: allow missing and mis-shaped tensors. Raises BenchError, and writes
    nothing, for a file that cannot be read or is no known checkpoint, for another method, backbone, class count or
    factor than asked for, and for missing or mis-shaped tensors.
    """
    if out.suffix != ".safetensors":
        raise BenchError(f"{out}: name the output OUT.safetensors with -o")
    check_place(path, out, "-o")
    names = {"method": method, "backbone": backbone, "dataset": dataset}
    given = {name: value for name, value in names.items() if value is not None} | factors
    config = before_reading(path, given)
    file = read_tensors(path)
    try:
        fit = examine(file, config, given)
        if (fit.missing or fit.misshapen) and not partial:
            parts = [_some("lacks", fit.missing)] if fit.missing else []
            parts += [_some("has other shapes:", fit.misshapen)] if fit.misshapen else []
            raise BenchError(f"{'; '.join(parts)}: is it the right checkpoint? --partial takes what fits")
        check_finite(fit.state)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error
    facts = {"source": path.name, "source_sha256": file.sha256, "format": fit.title}
    write_weights(fit.state, pack(facts | {"content": fit.content, "experiment": fit.experiment.to_dict()}), out)
    return fit


def examine(file: TensorFile, config: Config, given: Given) -> Fit:
    """Which model the file is of, and how it fits it. Raises BenchError (without the file's name) as `identify`, and
    for a file that needs no conversion or another command."""
    if is_ours(file.metadata):
        raise BenchError("is converted already: use it as it is, in 'bench predict' or 'bench run', with --weights")
    if is_trained_here(file):
        raise BenchError("is the checkpoint of a training here: use 'bench weights export' instead")
    kind = detect(file.tensors)
    ours = kind.to_ours(file.tensors)
    return _fit(file, kind, ours, identify(kind, ours, config, given))


def _fit(file: TensorFile, kind: Format, ours: Mapping[str, Tensor], chosen: Experiment) -> Fit:
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
    shapes = [f"{_both(our, names)} is {list(ours[our].shape)}, expected {list(expected[our])}" for our in wrong]
    state = {our: ours[our].float() for our in expected if our in ours and our not in wrong}
    left = {our: names.get(our, our) for our in ours if our not in expected}
    unused = {theirs: kind.why_not_needed(theirs) or NO_PLACE for theirs in left.values()}
    unused |= {names.get(our, our): f"shape {list(ours[our].shape)} does not fit" for our in wrong}
    unused |= {name: "not a tensor of the model" for name in file.other}
    used = len(file.tensors) - sum(name in file.tensors for name in unused)
    content = "model" if kind.method else "backbone"
    fresh = tuple(our for our in expected if our not in state)
    return Fit(chosen, kind.title, content, used, unused, tuple(missing), tuple(shapes), fresh, state)


def _not_imagenets(name: str) -> bool:
    """Whether an ImageNet backbone has no such tensor: heads, DCNv2's offsets and biases, Swin's output norms."""
    return not name.startswith("backbone.") or name.endswith(DEFORMABLE_EXTRAS) or name.startswith("backbone.norm")


def _both(our: str, names: Mapping[str, str]) -> str:
    theirs = names.get(our, our)
    return our if theirs == our else f"{theirs} (ours: {our})"


def _some(verb: str, parts: tuple[str, ...]) -> str:
    more = len(parts) - NAMED
    return f"{verb} {', '.join(parts[:NAMED])}" + (f" and {more} more" if more > 0 else "")


def check_place(path: Path, out: Path, option: str) -> None:
    """Raises BenchError where `out`, named by the option, cannot be written or would replace a file that was not
    written by this program."""
    try:
        if path.exists() and out.exists() and (out.samefile(path) or not _is_converted(out)):
            raise BenchError(
                f"{out} is there already and was not written by this command: give another file with {option}"
            )
    except OSError as error:
        raise BenchError(f"cannot write {out} ({error.strerror}): give another file with {option}") from error
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise BenchError(f"cannot write {out} ({folder} is no folder to write to): give another file with {option}")


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
