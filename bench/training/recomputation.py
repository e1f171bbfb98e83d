"""Activation checkpointing: the backbone's blocks keep their inputs only and are computed again going backward."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck

from bench.errors import BenchError


def recompute_blocks(backbone: nn.Module) -> None:
    """Less memory for about a third more time; the gradients stay the same, also with drop path.

    Blocks of Swin (every module of `blocks`) and bottlenecks of ResNet, other than those with a trainable batch norm,
    whose statistics would count every batch twice. Raises BenchError where that leaves none.
    """
    stages = [
        module.blocks for module in backbone.modules() if isinstance(getattr(module, "blocks", None), nn.ModuleList)
    ]
    blocks = [block for stage in stages for block in stage]
    blocks += [module for module in backbone.modules() if isinstance(module, Bottleneck)]
    blocks = [
        block for block in blocks if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in block.modules())
    ]
    if not blocks:
        raise BenchError(
            "activation checkpointing has no block to work on in this backbone: leave it out of the recipe"
        )
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)


def _recomputed(block: nn.Module, forward: Callable, *inputs):
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
