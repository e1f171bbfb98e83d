"""Models with the weights of a converted file."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.experiments.experiment import Experiment
from bench.weights.files import TensorFile, read_tensors

FORMAT = "hcformer-bench weights 1"
NAMED = 3


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Whether a safetensors file with this metadata was written by `bench weights convert`."""
    return metadata.get("format", "").startswith("hcformer-bench weights")


def option(factor: str) -> str:
    """How the command line calls a factor of an experiment."""
    return "--" + factor.replace("_", "-")


def build_from_weights(path: Path, **given: int | str) -> tuple[Experiment, nn.Module, dict[str, str]]:
    """The experiment that a converted file is of, its model in evaluation mode, and the facts for a record.

    given: factors that the file must agree with. facts: "file", "sha256", "source", "source_sha256", "format".
    Raises BenchError for a file that is not converted, incomplete or of another experiment.
    """
    from bench.zoo import build_model

    file, chosen = _open(path, given)
    with torch.device("meta"):
        model = build_model(chosen)
    _check(file, model.state_dict())
    model = build_model(chosen)
    model.load_state_dict(file.tensors)
    origin = {name: file.metadata.get(name, "unknown") for name in ("source", "source_sha256")}
    facts = {"file": path.name, "sha256": file.sha256, **origin, "format": file.metadata.get("source_format", "")}
    return chosen, model.eval(), facts


def experiment_of(path: Path, **given: int | str) -> Experiment:
    """The experiment that a converted file is of; as `build_from_weights`, without a model."""
    return _open(path, given)[1]


def _open(path: Path, given: Mapping[str, int | str]) -> tuple[TensorFile, Experiment]:
    file = read_tensors(path)
    chosen = _experiment(file)
    asked = Experiment.from_dict(chosen.to_dict() | given)
    for name in given:
        has, says = getattr(chosen, name), getattr(asked, name)
        if has != says:
            raise BenchError(f"{path} has {name.replace('_', ' ')} {has}, {option(name)} says {says}: leave it out")
    return file, chosen


def _experiment(file: TensorFile) -> Experiment:
    if not is_ours(file.metadata):
        raise BenchError(f"{file.path} is not converted: make it usable with 'bench weights convert {file.path} ...'")
    if file.metadata["format"] != FORMAT:
        raise BenchError(f"{file.path} was written by another version of this program: convert the source again")
    try:
        return Experiment.from_dict(json.loads(file.metadata["experiment"]))
    except (KeyError, ValueError, TypeError, RecursionError, BenchError) as error:
        raise BenchError(f"{file.path} does not say what it is of: convert the source again") from error


def _check(file: TensorFile, expected: Mapping[str, Tensor]) -> None:
    if file.metadata.get("content") == "backbone":
        raise BenchError(f"{file.path} holds an ImageNet backbone only: a whole model is needed")
    missing = [name for name in expected if name not in file.tensors]
    if missing:
        raise BenchError(
            f"{file.path} is incomplete, it lacks {len(missing)} tensors such as {', '.join(missing[:NAMED])}: "
            "convert a whole checkpoint"
        )
    wrong = [n for n, value in file.tensors.items() if n not in expected or value.shape != expected[n].shape]
    if wrong:
        raise BenchError(f"{file.path} does not fit its model ({', '.join(wrong[:NAMED])}): convert the source again")
