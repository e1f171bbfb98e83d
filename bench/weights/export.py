"""Weights of a training's checkpoint as a file that `bench predict` and `bench run --weights` take.

A checkpoint is a file that this program wrote, but it comes over disks and networks like any other: it is read as
strictly as a public one.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.errors import BenchError
from bench.experiments.experiment import Experiment
from bench.experiments.recipe import recipe_for
from bench.experiments.tables import experiment_of, find_row
from bench.files import whole_file
from bench.records import Store
from bench.training.engine import CHECKPOINT
from bench.weights.convert import check_place, write_weights
from bench.weights.files import TensorFile, read_tensors
from bench.weights.load import (
    TRAINING,
    WEIGHTS,
    check_finite,
    facts_of,
    is_ours,
    is_trained_here,
    pack,
    trained_facts,
)

TRAINED_ALONE = ("auxiliary_head.",)  # what is trained beside the model and is no part of it
SUFFIXES = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class Exported:
    """path: the weights. iteration of iterations: of the training; iterations: None where its recipe has changed."""

    experiment: Experiment
    path: Path
    seed: int
    iteration: int
    iterations: int | None


def find_run(run: str, seed: int | None, store: Store) -> Path:
    """The file that has the weights of a training: its checkpoint, or what it left at its end.

    run: a checkpoint, the work folder of a training, or a row or key with its seed in the store. Raises BenchError
    where there is none.
    """
    path = Path(run)
    if path.is_file():
        return path
    if not path.is_dir():
        if path.suffix in SUFFIXES:
            raise BenchError(f"no checkpoint {path}: check its path")
        key = find_row(run).key if "/" in run else experiment_of(run).key
        if seed is None:
            raise BenchError(f"{run} has a training for each seed: say which with --seed")
        path = store.path / "work" / key / f"accuracy-{seed}"
    found = next((path / name for name in (CHECKPOINT, WEIGHTS) if (path / name).is_file()), None)
    if found is None:
        raise BenchError(
            f"no training in {path} (neither {CHECKPOINT} nor {WEIGHTS}): 'bench train ROW --seed N' makes one, "
            "--store names another store"
        )
    return found


def export(source: Path, out: Path | None) -> Exported:
    """Write the weights of a checkpoint to `out` (default: beside it), or copy those that a training left.

    Raises BenchError, and writes nothing, for a file of anything else, a damaged one, one of a model that is no more,
    and a place that cannot be written.
    """
    if out is not None and out.suffix != ".safetensors":
        raise BenchError(f"{out}: name the output OUT.safetensors")
    file = read_tensors(source)
    if is_ours(file.metadata):
        chosen, _, facts = facts_of(file)
        if "seed" not in facts:
            raise BenchError(f"{source} is no checkpoint but converted weights: use it as it is, with --weights")
        if out is not None:
            check_place(source, out, "OUT")
            with whole_file(out) as temporary:
                shutil.copyfile(source, temporary)
        return _exported(chosen, out or source, facts["recipe_hash"], int(facts["seed"]), int(facts["iteration"]))
    match = TRAINING.match(str(file.values.get("identity", "")))
    if match is None or not is_trained_here(file):
        raise BenchError(
            f"{source} is no checkpoint of a training here: for a published one use 'bench weights convert'"
        )
    out = out or source.with_suffix(".safetensors")
    check_place(source, out, "OUT")
    try:
        chosen, iteration = experiment_of(match["key"]), file.values.get("iteration")
        if not isinstance(iteration, int):
            raise BenchError("does not say how long it was trained: is it damaged?")
        state = _state(chosen, file)
    except BenchError as error:
        raise BenchError(f"{source}: {error}") from error
    seed = int(match["seed"])
    write_weights(state, pack(trained_facts(chosen, seed, match["recipe"], None, iteration)), out)
    return _exported(chosen, out, match["recipe"], seed, iteration)


def _exported(chosen: Experiment, path: Path, recipe_hash: str, seed: int, iteration: int) -> Exported:
    recipe = recipe_for(chosen)
    return Exported(chosen, path, seed, iteration, recipe.iterations if recipe.hash == recipe_hash else None)


def _state(chosen: Experiment, file: TensorFile) -> dict[str, torch.Tensor]:
    """The tensors of the model, all of them and no others."""
    from bench.zoo import build_model

    with torch.device("meta"):
        expected = {name: value.shape for name, value in build_model(chosen).state_dict().items()}
    state = {name: value for name, value in file.tensors.items() if not name.startswith(TRAINED_ALONE)}
    wrong = [name for name in state if name not in expected or state[name].shape != expected[name]]
    wrong += [name for name in expected if name not in state]
    if wrong:
        raise BenchError(
            f"does not fit the model {chosen.key} ({len(wrong)} tensors such as {wrong[0]}): train it again"
        )
    check_finite(state)
    return state
