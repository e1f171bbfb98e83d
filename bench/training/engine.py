"""The training loop: the same for every method, resumable to the bit.

Every step seeds the global generator from (seed, iteration), and data order and augmentation are functions of the
same two numbers. So a checkpoint needs no generator state, and on a CPU a run that was killed continues exactly.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.data.coco import CocoPanoptic
from bench.data.transforms import augment, preprocess
from bench.errors import BenchError
from bench.experiments.recipe import Recipe
from bench.training.criterion import SetCriterion, Target
from bench.training.optimiser import build_optimiser, set_learning_rate

CHECKPOINT_SECONDS = 15.0
REMEDY = "delete it to train this run from its start"
MEMORY_FORMAT = torch.channels_last  # the faster one for every method; clustering then reads whole rows
Progress = Callable[[int, int, float], None]  # iteration, iterations, loss


@dataclass(frozen=True)
class TrainingResult:
    """seconds: wall time of all parts of the run together. resumed: how often it was continued after a stop."""

    seconds: float
    resumed: int
    final_loss: float


def train(
    model: nn.Module, recipe: Recipe, seed: int, dataset: CocoPanoptic, folder: Path, identity: str, progress: Progress
) -> TrainingResult:
    """Train `model` in place for recipe.iterations steps, with a checkpoint in `folder` every 15 s.

    A checkpoint of the same identity is continued. Raises BenchError if the checkpoint is damaged or belongs to
    another run, and if the loss is not finite.
    """
    optimiser = build_optimiser(model, recipe)
    criterion = SetCriterion(
        len(dataset.categories),
        recipe.num_points,
        recipe.class_weight,
        recipe.mask_weight,
        recipe.dice_weight,
        recipe.no_object_weight,
        recipe.scale_regularisation,
    ).to(next(model.parameters()).device)
    checkpoint = folder / "checkpoint.pt"
    state = load_checkpoint(checkpoint, identity)
    start, spent, resumed, loss = 0, 0.0, 0, float("nan")
    if state is not None:
        try:
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            start, spent, resumed, loss = state["iteration"], state["seconds"], state["resumed"] + 1, state["loss"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise _damaged(checkpoint, error) from error
    model.train().to(memory_format=MEMORY_FORMAT)
    begun = saved = time.monotonic()
    for iteration in range(start, recipe.iterations):
        loss = step(model, criterion, optimiser, recipe, seed, iteration, dataset)
        progress(iteration + 1, recipe.iterations, loss)
        now, done = time.monotonic(), iteration + 1
        if now - saved >= CHECKPOINT_SECONDS or done == recipe.iterations:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "identity": identity}
            state |= {"iteration": done, "seconds": spent + now - begun, "resumed": resumed, "loss": loss}
            save_checkpoint(checkpoint, state)
            saved = time.monotonic()
    return TrainingResult(spent + time.monotonic() - begun, resumed, loss)


def step(model, criterion, optimiser, recipe: Recipe, seed: int, iteration: int, dataset: CocoPanoptic) -> float:
    """One update on the batch that belongs to (seed, iteration); returns the total loss."""
    torch.manual_seed(derived_seed("step", seed, iteration))
    set_learning_rate(optimiser, recipe, iteration)
    images, targets = make_batch(dataset, recipe, seed, iteration)
    device = next(model.parameters()).device
    images = images.to(device, memory_format=MEMORY_FORMAT)
    targets = [Target(target.labels.to(device), target.masks.to(device)) for target in targets]
    with torch.autocast("cuda", torch.bfloat16, enabled=recipe.precision == "amp" and device.type == "cuda"):
        prediction = model(images)
    losses = criterion(prediction, targets)
    total = torch.stack(list(losses.values())).sum()
    value = total.item()
    if not math.isfinite(value):
        parts = ", ".join(name for name, part in losses.items() if not part.isfinite())
        raise BenchError(f"the loss is {value} at iteration {iteration} ({parts}): lower the learning rate")
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    if not math.isfinite(norm.item()):
        raise BenchError(f"the gradient is {norm.item()} at iteration {iteration}: lower the learning rate")
    optimiser.step()
    return value


def make_batch(dataset: CocoPanoptic, recipe: Recipe, seed: int, iteration: int) -> tuple[Tensor, list[Target]]:
    """The images [B, 3, H, W] and targets of a step: shuffled epochs, augmentation drawn from (seed, iteration)."""
    generator = torch.Generator().manual_seed(derived_seed("augmentation", seed, iteration))
    samples = [
        augment(dataset[index], generator, recipe.crop_size[0], recipe.scale_range)
        for index in batch_indices(len(dataset), recipe.batch_size, seed, iteration)
    ]
    images = preprocess([sample.image for sample in samples])
    return images, [Target(sample.labels, sample.masks) for sample in samples]


def batch_indices(length: int, batch_size: int, seed: int, iteration: int) -> list[int]:
    """Positions iteration*B ... of an endless sequence of shuffled epochs; a function of its arguments alone."""
    indices = []
    for position in range(iteration * batch_size, (iteration + 1) * batch_size):
        epoch, offset = divmod(position, length)
        generator = torch.Generator().manual_seed(derived_seed("order", seed, epoch))
        order = torch.randperm(length, generator=generator)
        indices.append(int(order[offset]))
    return indices


def derived_seed(purpose: str, seed: int, number: int) -> int:
    """A generator's seed for one purpose and step: unrelated for different arguments."""
    digest = hashlib.blake2b(f"{purpose} {seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def save_checkpoint(path: Path, state: dict) -> None:
    """Write to a temporary name, flush to disk, rename: a kill leaves the old checkpoint or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")  # one name: what a kill leaves is overwritten; a run has one process
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path, identity: str) -> dict | None:
    """The checkpoint's state, None if there is none. Raises BenchError for a damaged file or another run's."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError("not a dictionary")
        found = state["identity"]
    except Exception as error:  # torch raises many kinds for a truncated or foreign file
        raise _damaged(path, error) from error
    if found != identity:
        raise BenchError(f"checkpoint {path} belongs to another run ({found}): {REMEDY}")
    return state


def _damaged(path: Path, error: Exception) -> BenchError:
    return BenchError(f"checkpoint {path} is damaged ({type(error).__name__}): {REMEDY}")
