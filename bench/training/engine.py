"""The training loop: the same for every method and any number of processes, resumable to the bit.

Every step seeds the global generator from (seed, iteration), and data order and augmentation are functions of the
same two numbers. So a checkpoint needs no generator state, and on a CPU a run that was killed continues exactly.

Each process and each pass of gradient accumulation computes its images' part of the loss of the whole batch
(`SetCriterion`, `PixelCriterion`); gradients are summed over passes and processes before their norm is clipped. So
neither changes a step, up to the rounding of sums, and up to dropout and drop path, which are drawn anew for each part.
Batch norms that are trained (of per-pixel models, of small ones, of many of timm's backbones under any method) have
statistics of one pass of all processes: `bench.training.shares` refuses several passes for them before a training.
"""

import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from bench.data.transforms import normalisation_of
from bench.errors import BenchError
from bench.experiments.recipe import Recipe
from bench.training.batch_norm import has_batch_norms, synchronise
from bench.training.batches import load_batches
from bench.training.checkpoint import damaged, load_checkpoint, save_checkpoint
from bench.training.distributed import Stopped, World
from bench.training.progress import Meter, Progress, StepReport, TrainingLog, peak_memory
from bench.training.recomputation import recompute_blocks
from bench.training.shares import remedy_of_batch_norms
from bench.training.update import MEMORY_FORMAT, NotFinite, Updater, explain

CHECKPOINT = "checkpoint.pt"
# Between checkpoints, and more where writing one takes long: they get 5 % of the time at most.
CHECKPOINT_SECONDS = 15.0
PAPER_CHECKPOINT_SECONDS = 600.0  # at paper scale, where one has up to 3 GB: a kill costs ten minutes of days
CHECKPOINT_SHARE = 0.05


@dataclass(frozen=True)
class Execution:
    """How a training is executed. Nothing of this is part of the recipe.

    precision: None: the recipe's. micro_batch: images that one process computes at once; None: its whole share.
    workers: processes that load images for each training process; 0: none; None: what the caller of `train` finds
    best, none by default. paper_scale: a checkpoint every ten minutes, not every 15 s. stop: asked after every step.
    """

    world: World = field(default_factory=World)
    precision: str | None = None
    micro_batch: int | None = None
    workers: int | None = None
    tensorboard: bool = False
    paper_scale: bool = False
    stop: Callable[[], bool] = lambda: False

    def passes(self, recipe: Recipe) -> list[range]:
        """Positions in the batch that this process computes at once, pass by pass. Raises BenchError as `share`."""
        own = self.world.share(recipe.batch_size)
        length = min(self.micro_batch or len(own), len(own))
        return [own[i : i + length] for i in range(0, len(own), length)]

    def facts(self, recipe: Recipe) -> dict[str, str | int]:
        """For records and people: what the recipe leaves open. The batch is its, whatever these are."""
        passes = self.passes(recipe)
        return {
            "precision": self.precision or recipe.precision,
            "batch_size": recipe.batch_size,
            "processes": self.world.size,
            "images_at_once": len(passes[0]),
            "passes_a_step": len(passes),
        }


@dataclass(frozen=True)
class TrainingResult:
    """seconds: wall time of all parts of the run together. resumed: how often it was continued after a stop.
    skipped: updates left out because their gradient was not finite."""

    seconds: float
    resumed: int
    final_loss: float
    skipped: int = 0


def train(
    model: nn.Module, recipe: Recipe, seed: int, dataset, folder: Path, identity: str, progress: Progress,
    execution: Execution | None = None, criterion: nn.Module | None = None,
) -> TrainingResult:  # fmt: skip
    """Train `model` in place for recipe.iterations steps, with checkpoints in `folder` and a log there.

    A checkpoint of the same identity is continued. In several processes all call this with equal arguments; the first
    writes and reports. criterion: the recipe's `SetCriterion` by default.
    Raises Stopped, with a checkpoint of the last step, when `execution.stop` says so in any of them.
    Raises BenchError if the checkpoint is damaged, belongs to another run or cannot be written, if the loss is not
    finite or the gradient (in float32; in bf16 and fp16 `MAX_SKIPPED` times in a row), and for a sample that cannot be
    read.
    """
    execution = execution or Execution()
    world = execution.world
    synchronise(model, world)
    if recipe.activation_checkpointing:
        recompute_blocks(model.backbone)
    precision, classes = execution.precision or recipe.precision, len(dataset.categories)
    updater = Updater(model, recipe, seed, classes, world, execution.passes(recipe), precision, criterion)
    interval = PAPER_CHECKPOINT_SECONDS if execution.paper_scale else CHECKPOINT_SECONDS
    state = _State(updater, folder / CHECKPOINT, identity, interval)
    state.resume()
    model.train().to(memory_format=MEMORY_FORMAT)
    if state.iteration < recipe.iterations:
        positions, pin = world.share(recipe.batch_size), world.device.type == "cuda"
        fill = normalisation_of(model).mean
        batches = load_batches(dataset, recipe, seed, state.iteration, positions, execution.workers or 0, pin, fill)
        log = TrainingLog(folder, state.iteration, execution.tensorboard) if world.is_main else nullcontext()
        with closing(batches), log:
            try:
                _run(state, batches, execution.stop, _reporter(state, log, progress))
            except NotFinite as error:
                raise world.common(
                    explain(error, dataset, updater, precision, state.iteration, state.path, state.saved)
                ) from None
    return TrainingResult(state.seconds, state.resumed, state.loss, updater.skipped)


def _run(state: "_State", batches, stop: Callable[[], bool], report: Callable[[float, float], None]) -> None:
    updater, world = state.updater, state.updater.world
    while state.iteration < updater.recipe.iterations:
        asked = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - asked
        try:
            state.loss, norm, stopped = updater.step(state.iteration, batch, stop())
        except torch.OutOfMemoryError as error:
            at_once, remedy = len(updater.passes[0]), "'bench train --micro-batch N' computes fewer"
            if has_batch_norms(updater.model):
                remedy = remedy_of_batch_norms(updater.recipe.batch_size, world.size)
            raise BenchError(f"out of memory with {at_once} image(s) at once: {remedy}") from error
        state.iteration += 1
        ended = state.iteration == updater.recipe.iterations
        if world.is_main:
            report(norm, waited)
            state.save(now=stopped or ended)
        if stopped and not ended:
            world.wait()  # for the checkpoint: the first process to end would end the others
            raise Stopped


def _reporter(state: "_State", log: TrainingLog, progress: Progress) -> Callable[[float, float], None]:
    recipe, meter = state.updater.recipe, Meter(state.updater.recipe.batch_size)

    def report(norm: float, waited: float) -> None:
        rate = max(group["lr"] for group in state.updater.optimiser.param_groups)
        memory = peak_memory(state.updater.device)
        speed, skipped = meter.step(waited), state.updater.skipped
        step = StepReport(state.iteration, recipe.iterations, state.loss, rate, norm, *speed, memory, skipped)
        log.write(step)
        progress(step)

    return report


class _State:
    """How far a training is, and its checkpoint.

    iteration: steps done. saved: steps that the checkpoint holds, 0 without one. interval: seconds between two of
    them; 0: one a step.
    """

    def __init__(self, updater: Updater, path: Path, identity: str, interval: float):
        self.updater, self.path, self._identity = updater, path, identity
        self.iteration, self.saved, self.resumed, self.loss = 0, 0, 0, float("nan")
        self.seconds, self._least, self._interval = 0.0, interval, interval

    def resume(self) -> None:
        """Load the checkpoint, if there is one. Raises BenchError as `load_checkpoint`."""
        state = load_checkpoint(self.path, self._identity)
        if state is not None:
            try:
                self.updater.load(state)
                self.iteration, self.seconds, self.loss = state["iteration"], state["seconds"], state["loss"]
                self.resumed = state["resumed"] + 1
            except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise damaged(self.path, error) from error
        self.saved, self._spent = self.iteration, self.seconds
        self._begun = self._written = time.monotonic()
        if len(set(self.updater.world.gather(self.iteration))) > 1:
            raise BenchError(f"not every process sees {self.path}: put the store on a disk that all machines share")

    def save(self, now: bool) -> None:
        """Write the checkpoint now, or if the time for one has come."""
        begun = time.monotonic()
        if not now and begun - self._written < self._interval:
            return
        self.seconds = self._spent + begun - self._begun
        facts = {name: getattr(self, name) for name in ("iteration", "seconds", "resumed", "loss")}
        save_checkpoint(self.path, {**self.updater.state(), **facts, "identity": self._identity})
        self.saved, self._written = self.iteration, time.monotonic()
        if self._least:
            self._interval = max(self._least, (self._written - begun) / CHECKPOINT_SHARE)
