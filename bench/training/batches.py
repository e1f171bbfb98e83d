"""Training batches: data order and augmentation as functions of (seed, iteration), whoever makes the batch.

A process makes only its own positions of a batch, and processes that load ahead make the same ones.
"""

import functools
import hashlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from bench.data.parallel import NO_SHARED_MEMORY
from bench.data.transforms import IMAGENET, augment
from bench.errors import BenchError
from bench.experiments.recipe import Recipe
from bench.machine import available_cores
from bench.training.distributed import World

PREFETCHED = 2  # batches that a loading process holds ready
MAX_WORKERS = 8
DRAWS, JITTER_DRAWS = 4, 9  # random numbers that `augment` takes for a sample, and more with colour jitter


@dataclass(frozen=True)
class Batch:
    """Samples of one crop size: images uint8 [n, 3, H, W], of each the labels int64 [N] and masks bool [N, H, W]."""

    images: Tensor
    labels: list[Tensor]
    masks: list[Tensor]

    def pin_memory(self) -> "Batch":
        return Batch(self.images.pin_memory(), *([x.pin_memory() for x in y] for y in (self.labels, self.masks)))

    def share_memory(self) -> None:
        """Move all into memory that other processes can read. Raises BenchError where there is none left."""
        try:
            for tensor in (self.images, *self.labels, *self.masks):
                if tensor.numel():
                    tensor.share_memory_()
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            raise _no_shared_memory() from error


def make_batch(
    dataset, recipe: Recipe, seed: int, iteration: int, positions: Sequence[int] | None = None,
    fill: Sequence[float] = IMAGENET.mean,
) -> Batch:  # fmt: skip
    """The samples at `positions` (default: all) of the batch that belongs to (seed, iteration); `fill` as `augment`."""
    indices = batch_indices(len(dataset), recipe.batch_size, seed, iteration)
    positions = range(recipe.batch_size) if positions is None else positions
    samples = [augment(dataset[indices[p]], _generator(recipe, seed, iteration, p), recipe, fill) for p in positions]
    return Batch(torch.stack([s.image for s in samples]), [s.labels for s in samples], [s.masks for s in samples])


def _generator(recipe: Recipe, seed: int, iteration: int, position: int) -> torch.Generator:
    """Of the augmentation of one sample. The samples of a batch draw one after the other from one sequence, whose
    earlier part is skipped here."""
    generator = torch.Generator().manual_seed(derived_seed("augmentation", seed, iteration))
    torch.rand(position * (DRAWS + JITTER_DRAWS * recipe.colour_jitter), generator=generator)
    return generator


def batch_indices(length: int, batch_size: int, seed: int, iteration: int) -> list[int]:
    """Positions iteration*B ... of an endless sequence of shuffled epochs; a function of its arguments alone."""
    places = (divmod(p, length) for p in range(iteration * batch_size, (iteration + 1) * batch_size))
    return [int(_epoch_order(length, seed, epoch)[offset]) for epoch, offset in places]


@functools.lru_cache(maxsize=4)
def _epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(derived_seed("order", seed, epoch)))


def derived_seed(purpose: str, seed: int, number: int) -> int:
    """A generator's seed for one purpose and step: unrelated for different arguments."""
    digest = hashlib.blake2b(f"{purpose} {seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def loading_processes(world: World) -> int:
    """How many processes load for each training process of this machine: one on a CPU, whose cores have other work,
    and for a GPU its share of the cores, one to eight."""
    if world.device.type == "cpu":
        return 1
    return max(1, min(MAX_WORKERS, available_cores() // world.local_size - 1))


def load_batches(
    dataset, recipe: Recipe, seed: int, start: int, positions: Sequence[int], workers: int, pin: bool,
    fill: Sequence[float],
) -> Iterator[Batch]:  # fmt: skip
    """The batches of iteration `start` to the last. workers: processes that load ahead; 0: loaded here when asked
    for. fill: as of `augment`.

    Raises BenchError for a sample that cannot be read, for a loading process that was killed and where the shared
    memory is too small for what they load.
    """
    batches = _Batches(dataset, recipe, seed, tuple(positions), tuple(fill))
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, recipe.iterations),
        num_workers=workers,
        prefetch_factor=PREFETCHED if workers else None,
        pin_memory=pin,
        worker_init_fn=_leave_signals_alone,
    )
    try:
        iterator = iter(loader)
    except OSError as error:  # of the semaphores, which lie there
        raise _no_shared_memory() from error
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):  # else it is an error in loading
                raise
            killed = "a process that loads images was killed: give this one more memory, or fewer --workers"
            raise (_no_shared_memory() if "Bus error" in str(error) else BenchError(killed)) from error
        if isinstance(batch, str):
            raise BenchError(batch)
        yield batch


class _Batches(Dataset):
    """Item i is the batch of iteration i, or what is wrong with it: exceptions lose their form between processes.

    Loading processes move it to shared memory here: torch would do so later, and wait for ever where there is too
    little.
    """

    def __init__(self, dataset, recipe: Recipe, seed: int, positions: tuple[int, ...], fill: tuple[float, ...]):
        self._arguments = dataset, recipe, seed
        self._positions, self._fill, self._length = positions, fill, recipe.iterations

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, iteration: int) -> Batch | str:
        try:
            batch = make_batch(*self._arguments, iteration, self._positions, self._fill)
            if get_worker_info() is not None:
                batch.share_memory()
            return batch
        except BenchError as error:
            return str(error)


def _no_shared_memory() -> BenchError:
    return BenchError(f"{NO_SHARED_MEMORY} or load without them (bench train --workers 0)")


def _leave_signals_alone(_: int) -> None:
    """The training process decides when to end; a scheduler tells every process of a job."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
