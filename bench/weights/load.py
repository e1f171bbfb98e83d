"""Models with the weights of a converted file."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.experiments.backbones import get_backbone
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.methods import get_method
from bench.weights.files import TensorFile, read_tensors
from bench.weights.pickles import quoted

FORMAT = "hcformer-bench weights 1"
KNOWN = {"method": get_method, "backbone": get_backbone, "dataset": get_dataset}
NAMED = 3
TRAINED_FACTS = ("seed", "recipe_hash", "commit", "iteration")
WEIGHTS = "weights.safetensors"  # that a training leaves in its work folder
# How the identity of a training begins, which its checkpoints hold (`bench.measure.accuracy`)
TRAINING = re.compile(r"(?P<key>\S+) seed (?P<seed>\d{1,10}) recipe (?P<recipe>\S+)")


@dataclass(frozen=True)
class Weights:
    """A converted file that holds a whole model: which experiment it is of, and the facts for a record.

    facts: "file", "sha256", "source", "source_sha256", "format"; of a training here also "seed", "recipe_hash",
    "commit", "iteration".
    """

    experiment: Experiment
    facts: dict[str, str]
    tensors: dict[str, Tensor]

    def build(self) -> nn.Module:
        """The model in evaluation mode, on the CPU."""
        from bench.zoo import build_model

        model = build_model(self.experiment)
        model.load_state_dict(self.tensors)
        return model.eval()


def pack(facts: Mapping) -> dict[str, str]:
    """Facts about a converted file as its metadata: one entry, because safetensors writes several in any order."""
    return {FORMAT: json.dumps(facts, sort_keys=True)}


def trained_facts(what: Experiment, seed: int, recipe_hash: str, commit: str | None, iteration: int) -> dict:
    """Facts about the weights of a training here, for `pack`. commit: of the code, None where nobody knows."""
    facts = {"source": f"trained here, seed {seed}", "source_sha256": "", "format": "hcformer-bench"}
    facts |= {"content": "model", "experiment": what.to_dict(), "key": what.key}
    return facts | {"seed": seed, "recipe_hash": recipe_hash, "commit": commit, "iteration": iteration}


def is_trained_here(file: TensorFile) -> bool:
    """Whether the file is the checkpoint of a training here, which `bench weights export` reads."""
    return bool(TRAINING.match(str(file.values.get("identity", "")))) and "optimiser" in file.other


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Whether a safetensors file with this metadata was written by this program, of any version."""
    return any(name.startswith("hcformer-bench weights ") for name in metadata)


def open_weights(path: Path, **given: int | str) -> Weights:
    """Read a converted file. given: factors that it must agree with; those that its method lacks are ignored.

    Raises BenchError for a file that is not converted, damaged, incomplete or of another experiment.
    """
    from bench.zoo import build_model

    if not path.exists():
        raise BenchError(
            f"no weight file {path}: check its path; 'bench weights export ROW --seed N' names that of a training, "
            "'bench weights convert' makes one of a published checkpoint"
        )
    file = read_tensors(path)
    if is_trained_here(file):
        raise BenchError(f"{path} is the checkpoint of a training: make its weights with 'bench weights export {path}'")
    chosen, content, facts = facts_of(file)
    check_agreement(f"{path}", chosen, given)
    if content == "backbone":
        raise BenchError(f"{path} holds an ImageNet backbone only: a whole model is needed")
    with torch.device("meta"):
        _check(file, build_model(chosen).state_dict())
    return Weights(chosen, {"file": path.name, "sha256": file.sha256, **facts}, file.tensors)


def check_agreement(what: str, held: Experiment, given: Mapping[str, int | str]) -> None:
    """Raises BenchError where a factor that was given is not that of the experiment; `what` names the file."""
    for name, find in KNOWN.items():
        if name in given:
            find(given[name])
    models = {name: given[name] for name in KNOWN if name in given and given[name] != getattr(held, name)}
    asked = held if models else Experiment.from_dict(held.to_dict() | given)
    for name in given:
        has, says = getattr(held, name), models.get(name, getattr(asked, name))
        if has != says:
            option = "--" + name.replace("_", "-")
            raise BenchError(f"{what} has {name.replace('_', ' ')} {has}, {option} says {says}: leave it out")


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises BenchError (without the file's name) for the first tensor with a value that is no number."""
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise BenchError(f"{name} holds values that are not finite: take the file from its source again")


def facts_of(file: TensorFile) -> tuple[Experiment, str, dict[str, str]]:
    """Experiment, content ("model" or "backbone") and source of a converted file. Raises BenchError for others."""
    if not is_ours(file.metadata):
        raise BenchError(
            f"{file.path} is not converted: make it usable with 'bench weights convert {file.path} -o OUT.safetensors'"
        )
    if FORMAT not in file.metadata:
        raise BenchError(f"{file.path} was written by another version of this program: convert the source again")
    try:
        facts = json.loads(file.metadata[FORMAT])
        sources = {name: str(facts[name]) for name in ("source", "source_sha256", "format")}
        content = str(facts["content"])
        sources |= {name: str(facts[name]) for name in TRAINED_FACTS if facts.get(name) is not None}
        if "seed" in facts:  # a training of this program
            sources |= {name: str(int(facts[name])) for name in ("seed", "iteration")} | {
                "recipe_hash": sources["recipe_hash"]
            }
        chosen = Experiment.from_dict(facts["experiment"])
    except (KeyError, ValueError, TypeError, RecursionError, BenchError) as error:
        raise BenchError(f"{file.path} does not say what it is of: convert the source again") from error
    if facts.get("key", chosen.key) != chosen.key:
        raise BenchError(
            f"{file.path} is of {quoted(str(facts['key']))}, a model of other sizes than today's: train it again"
        )
    return chosen, content, sources


def _check(file: TensorFile, expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in file.tensors]
    if missing:
        raise BenchError(
            f"{file.path} is incomplete, it lacks {len(missing)} tensors such as {', '.join(missing[:NAMED])}: "
            "convert a whole checkpoint"
        )
    wrong = [n for n, value in file.tensors.items() if n not in expected or value.shape != expected[n].shape]
    if wrong:
        raise BenchError(f"{file.path} does not fit its model ({', '.join(wrong[:NAMED])}): convert the source again")
    try:
        check_finite(file.tensors)
    except BenchError as error:
        raise BenchError(f"{file.path}: {error}") from error
