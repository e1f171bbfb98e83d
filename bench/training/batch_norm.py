"""Batch normalisation over the images of all processes, so that their number does not change a training.

The statistics are of one pass of all processes; that this is the whole batch, `bench.training.shares` sees to.
"""

import torch
from torch import Tensor, nn

from bench.training.distributed import World


def has_batch_norms(model: nn.Module) -> bool:
    """Whether in training it normalises by statistics of the images: frozen batch norms, of another class, do not."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def synchronise(model: nn.Module, world: World) -> None:
    """Let the trainable batch norms of `model` use the statistics of all processes; names and values stay."""
    if world.size == 1:
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                new = _synchronised(child, world)
                if hasattr(child, "act"):  # timm's BatchNormAct2d: dropout and activation are part of it
                    new.drop, new.act = child.drop, child.act
                    new.register_forward_hook(_activate)
                setattr(parent, name, new)


def _synchronised(norm: nn.modules.batchnorm._BatchNorm, world: World) -> nn.Module:
    if world.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    new = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.world = world
    new.weight, new.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(new, name, buffer)
    return new.train(norm.training)


def _activate(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return norm.act(norm.drop(output))


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """What nn.SyncBatchNorm is on a GPU, for CPUs. Every process must give as many images."""

    world = World(device=torch.device("cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape and type; statistics are in float32, as nn.SyncBatchNorm's."""
        if not self.training:
            return super().forward(x)
        dtype, x = x.dtype, x.float()
        count = x.numel() / x.shape[1] * self.world.size
        mean = _Sum.apply(x.sum((0, 2, 3)), self.world) / count
        centred = x - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3)), self.world) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None]).to(dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.sum(x.clone())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.world.sum(gradient.clone()), None
