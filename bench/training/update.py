"""One step of a training: each process and pass computes its part of the loss of the batch, then all update alike."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.transforms import normalisation_of, preprocess
from bench.errors import BenchError
from bench.experiments.recipe import Recipe
from bench.training.batches import Batch, batch_indices, derived_seed
from bench.training.criterion import Part, SetCriterion, Target
from bench.training.distributed import World
from bench.training.optimiser import build_optimiser, set_learning_rate
from bench.training.pixel_criterion import PixelCriterion

MEMORY_FORMAT = torch.channels_last  # the faster one for every method; clustering then reads whole rows
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_SKIPPED = 20  # updates in a row: fp16's scale, 2^16 at first, comes down to 1 in 16; bf16 has no reason for two


class NotFinite(Exception):
    """A loss or gradient that is not finite, and no exception; the message says which, at which iteration."""


class Updater:
    """Model and optimiser. passes: positions in the batch that this process computes at once, one pass after the other.

    precision: of the network, a name of `PRECISIONS`; losses are in float32 always. criterion: `SetCriterion` of the
    recipe by default. skipped, skipped_in_a_row: updates left out for a gradient that is not finite, of all and of the
    last ones.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, seed: int, num_classes: int, world: World, passes: list[range],
        precision: str, criterion: nn.Module | None = None,
    ):  # fmt: skip
        self.model, self.recipe, self.seed = model, recipe, seed
        self.world, self.passes = world, passes
        self.device = next(model.parameters()).device
        self.optimiser = build_optimiser(model, recipe)
        criterion = criterion or SetCriterion(
            num_classes,
            recipe.num_points,
            recipe.class_weight,
            recipe.mask_weight,
            recipe.dice_weight,
            recipe.no_object_weight,
            recipe.scale_regularisation,
            recipe.class_loss_images,
        )
        self.criterion = criterion.to(self.device)
        # A border would enter the statistics of per-pixel methods; masks are sampled at places relative to the input.
        self._divisor = 1 if isinstance(criterion, PixelCriterion) else 32
        self.skipped, self.skipped_in_a_row = 0, 0
        self._dtype = PRECISIONS[precision]
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self._dtype == torch.float16)

    def step(self, iteration: int, batch: Batch, stop: bool = False) -> tuple[float, float, bool]:
        """One update on this process's part of the batch that belongs to (seed, iteration).

        Returns the loss of the whole batch, the gradient's norm before clipping (not finite where the update was left
        out), and whether any process said stop. Raises NotFinite before anything is updated.
        """
        set_learning_rate(self.optimiser, self.recipe, iteration)
        self.optimiser.zero_grad(set_to_none=True)
        counts = self._counts(batch)
        first, total = self.passes[0].start, torch.zeros((), dtype=torch.float64, device=self.device)
        for positions in self.passes:
            own = slice(positions.start - first, positions.stop - first)
            names, losses = self._backward(iteration, batch, own, Part(counts, slice(positions.start, positions.stop)))
            total = total + losses
        *parts, loss, stopped = self.world.sum(torch.cat((total, total.new_tensor([stop])))).tolist()
        if not math.isfinite(loss):
            where = ", ".join(name for name, part in zip(names, parts, strict=True) if not math.isfinite(part))
            raise NotFinite(f"the loss is {loss} at iteration {iteration} ({where})")
        return loss, self._update(iteration), stopped > 0

    def state(self) -> dict:
        """What a checkpoint keeps of it."""
        parts = {"model": self.model, "optimiser": self.optimiser, "scaler": self._scaler}
        counts = {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}
        return {**{name: part.state_dict() for name, part in parts.items()}, **counts}

    def load(self, state: dict) -> None:
        """Inverse of `state`; what is wrong with a foreign one raises many kinds of exceptions."""
        for name, part in (("model", self.model), ("optimiser", self.optimiser), ("scaler", self._scaler)):
            part.load_state_dict(state[name])
        # 0: of a checkpoint from before they were counted
        self.skipped, self.skipped_in_a_row = (int(state.get(n, 0)) for n in ("skipped", "skipped_in_a_row"))

    def _counts(self, batch: Batch) -> tuple[int, ...]:
        """What the criterion counts (targets, labelled pixels) of every image of the whole batch."""
        counts = torch.zeros(self.recipe.batch_size, dtype=torch.int64)
        start = self.passes[0].start
        counts[start : start + len(batch.labels)] = torch.tensor(
            [self.criterion.count(*target) for target in zip(batch.labels, batch.masks, strict=True)]
        )
        if self.world.size > 1:
            counts = self.world.sum(counts.to(self.device))
        return tuple(counts.tolist())

    def _backward(self, iteration: int, batch: Batch, own: slice, part: Part) -> tuple[list[str], Tensor]:
        """Add the gradients of some images; names and values of their losses, after which the values' sum."""
        images = list(batch.images[own].to(self.device, non_blocking=True))
        images = preprocess(images, self._divisor, normalisation_of(self.model))
        images = images.to(memory_format=MEMORY_FORMAT)
        targets = [
            Target(labels.to(self.device, non_blocking=True), _padded(masks, images).to(self.device, non_blocking=True))
            for labels, masks in zip(batch.labels[own], batch.masks[own], strict=True)
        ]
        torch.manual_seed(derived_seed(f"model {part.images.start}", self.seed, iteration))
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not None):
            prediction = self.model(images)
        torch.manual_seed(derived_seed("step", self.seed, iteration))  # the points: the same for every part
        losses = self.criterion(prediction, targets, part)
        values = torch.stack(list(losses.values()))
        loss = values.sum()
        self._scaler.scale(loss).backward()
        return list(losses), torch.cat((values, loss[None])).detach().double()

    def _update(self, iteration: int) -> float:
        """Update with the gradients' sum, the same bits and so the same decision in every process; its norm.

        In bf16 and fp16 one that is not finite leaves parameters and optimiser as they are, and the schedule goes on,
        as with detectron2 and torch's GradScaler: a resumed training would meet the same batch again.
        """
        self.world.sum_gradients(list(self.model.parameters()))
        self._scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm).item()
        if math.isfinite(norm):
            self._scaler.step(self.optimiser)
            self.skipped_in_a_row = 0
        elif self._dtype is None:
            raise NotFinite(f"the gradient is {norm} at iteration {iteration}")
        elif self.skipped_in_a_row + 1 == MAX_SKIPPED:
            raise NotFinite(f"the gradient is {norm} at iteration {iteration} and at the {MAX_SKIPPED - 1} before it")
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        self._scaler.update()
        return norm


def _padded(masks: Tensor, images: Tensor) -> Tensor:
    """Masks [N, H, W] at the size of the padded images; what was added to those is of no mask."""
    bottom, right = (padded - own for padded, own in zip(images.shape[-2:], masks.shape[-2:], strict=True))
    return F.pad(masks, (0, right, 0, bottom)) if bottom or right else masks


def explain(
    error: NotFinite, dataset, updater: Updater, precision: str, iteration: int, checkpoint: Path, kept: int
) -> BenchError:
    """The one line for people: also the images of the batch, the last good state, of `kept` iterations, and what may
    help; to go on does not, as it brings the same batches."""
    indices = batch_indices(len(dataset), updater.recipe.batch_size, updater.seed, iteration)
    images = ", ".join(str(dataset.images[i]["id"]) for i in indices)
    last = f"{checkpoint} has the state of iteration {kept}" if kept else "no checkpoint was written yet"
    remedy = "'bench train ROW --seed N' takes another seed, which no table counts"
    if precision != "float32":
        first = f"delete {checkpoint.name}, and " if kept else ""
        remedy += f"; or {first}give that command --precision float32"
    return BenchError(f"{error}, images {images}; {last}, and the same command comes to the same end: {remedy}")
