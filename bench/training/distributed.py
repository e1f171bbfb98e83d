"""The processes of one training: which of them this one is, and the one thing that they exchange, sums of tensors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.errors import BenchError, one_line
from bench.machine import default_device
from bench.training.shares import share_length

PATIENCE = timedelta(hours=1)  # for the slowest process of a node that still compiles, loads or evaluates
BUCKET = 25_000_000  # elements of gradients that are summed at once: 100 MB


class Stopped(Exception):
    """Asked to stop: what was done is saved, the same call goes on from there."""


@dataclass(frozen=True)
class World:
    """rank: number of this process among `size`. local_size: processes on this machine. Alone by default."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = field(default_factory=default_device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, total: int) -> range:
        """The positions of `total` that are this process's: blocks of equal length, by rank.

        Raises BenchError where they cannot be equal.
        """
        length = share_length(total, self.size)
        return range(self.rank * length, (self.rank + 1) * length)

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by the sum over all processes, the same bits in each of them; returns it."""
        if self.size > 1:
            try:
                dist.all_reduce(tensor)
            except RuntimeError as error:  # the backends have no better type
                raise BenchError(
                    f"process {self.rank} lost the others, see what they say ({one_line(error)})"
                ) from error
        return tensor

    def gather(self, value: float) -> list[float]:
        """The values that all processes gave, by rank."""
        values = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        values[self.rank] = value
        return self.sum(values).tolist()

    def wait(self) -> None:
        """Return when all processes are here."""
        self.gather(0.0)

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace all gradients by their sums, a few large pieces at a time, in an order that never changes."""
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        gradients = [p.grad for p in parameters if p.grad is not None]
        for i, gradient in enumerate(gradients):
            bucket.append(gradient)
            if i + 1 == len(gradients) or sum(g.numel() for g in bucket) + gradients[i + 1].numel() > BUCKET:
                flat = self.sum(torch.cat([g.reshape(-1) for g in bucket]))
                for target, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                    target.copy_(part.view(target.shape))
                bucket = []

    def common(self, error: BenchError) -> BaseException:
        """What a process raises for an error that all of them have: the first one says it, the others are quiet."""
        return error if self.is_main else SystemExit(2)


@contextmanager
def join() -> Iterator[World]:
    """The world that torchrun describes in RANK, WORLD_SIZE and LOCAL_RANK; this process alone where it does not.

    NCCL with one GPU a process where there are GPUs, gloo otherwise. Raises BenchError where the variables make no
    sense, the others cannot be reached or this machine has fewer GPUs than processes.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield World()
        return
    try:
        rank, size, local_rank = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    except ValueError:
        raise BenchError("RANK, WORLD_SIZE and LOCAL_RANK must be numbers: start the processes with torchrun") from None
    cuda = torch.cuda.is_available()
    if cuda and local_rank >= torch.cuda.device_count():
        gpus = torch.cuda.device_count()
        raise BenchError(
            f"{local_size} processes on a machine with {gpus} GPU(s): --nproc_per_node must be at most {gpus}"
        )
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    world = World(rank, size, local_size, device)
    if size == 1:
        yield world
        return
    try:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise BenchError(f"cannot reach the other processes ({one_line(error)}): start them with torchrun") from error
    yield world
    world.wait()  # not reached after an error: the others may be gone
    dist.destroy_process_group()
