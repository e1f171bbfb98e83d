"""Batch norm over several processes (threads here) against torch's over the whole batch."""

import copy
import threading
from dataclasses import dataclass, field

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from bench.training.batch_norm import SynchronisedBatchNorm, synchronise
from bench.training.distributed import World


@dataclass
class Meeting:
    """What the threads of a world share."""

    size: int
    given: dict = field(default_factory=dict)

    def __post_init__(self):
        self.barrier = threading.Barrier(self.size, timeout=20)


@dataclass(frozen=True)
class Threads(World):
    """A world of threads: `sum` as between processes."""

    meeting: Meeting | None = None

    def sum(self, tensor):
        self.meeting.given[self.rank] = tensor.clone()
        self.meeting.barrier.wait()
        total = sum(self.meeting.given[rank] for rank in range(self.size))
        self.meeting.barrier.wait()
        return tensor.copy_(total)


def in_threads(size, work):
    """work(world) in as many threads; their results by rank."""
    meeting, results, cpu = Meeting(size), {}, torch.device("cpu")

    def start(rank):
        results[rank] = work(Threads(rank, size, size, cpu, meeting))

    threads = [threading.Thread(target=start, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == size, "a thread failed"
    return [results[rank] for rank in range(size)]


def model(norm):
    torch.manual_seed(0)
    after = nn.ReLU() if norm is nn.BatchNorm2d else nn.Identity()  # timm's has a ReLU of its own
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Sequential(norm(5, momentum=0.3)), after)
    nn.init.normal_(layers[1][0].weight)
    return layers


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BatchNormAct2d])
@pytest.mark.parametrize("size", [2, 3])
def test_output_gradient_and_statistics_are_those_of_the_whole_batch(size, norm):
    images = torch.randn(6, 3, 9, 7, generator=torch.Generator().manual_seed(1)) * 3 + 1
    weight = torch.randn(6, 5, 7, 5, generator=torch.Generator().manual_seed(2))

    start = model(norm)

    def work(world):
        net, own = copy.deepcopy(start), world.share(6)
        synchronise(net, world)
        assert (world.size == 1) != isinstance(net[1][0], SynchronisedBatchNorm)
        for _ in range(2):
            net.zero_grad()
            x = images[own.start : own.stop].clone().requires_grad_()
            y = net(x)
            (y * weight[own.start : own.stop]).sum().backward()
        grads = {name: p.grad.clone() for name, p in net.named_parameters()}
        return y.detach(), x.grad, grads, net.state_dict(), net.eval()(images).detach()

    whole = work(World(device=torch.device("cpu")))
    parts = in_threads(size, work)
    for i in range(2):
        torch.testing.assert_close(torch.cat([part[i] for part in parts]), whole[i], rtol=1e-4, atol=1e-5)
    for name, gradient in whole[2].items():
        torch.testing.assert_close(sum(part[2][name] for part in parts), gradient, rtol=1e-4, atol=1e-3)
    for part in parts:
        assert part[3].keys() == whole[3].keys()
        for name, value in whole[3].items():
            torch.testing.assert_close(part[3][name], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(part[4], whole[4], rtol=1e-4, atol=1e-5)
