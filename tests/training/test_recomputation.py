"""Activation checkpointing: the same gradients, less kept; blocks that must not run twice are left alone."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from bench.errors import BenchError
from bench.training.recomputation import recompute_blocks
from models.backbones.resnet import FrozenBatchNorm2d, ResNet
from models.backbones.swin import Swin


def swin():
    return Swin(16, (2, 2, 2, 2), (1, 2, 4, 8), 4, drop_path_rate=0.5)


def resnet(norm=FrozenBatchNorm2d):
    return ResNet((2, 1, 2, 1), 8, norm, deformable_level=1, stem_pool=False)


def gradients(build, recompute):
    """Gradients of one pass (with drop path), and the bytes that the graph keeps."""
    torch.manual_seed(0)
    backbone = build().train()
    if recompute:
        recompute_blocks(backbone)
    torch.manual_seed(1)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = backbone(torch.randn(2, 3, 40, 56))
    loss = sum(feature.square().mean() for feature in output.features) + output.pairs[0][1].abs().mean()
    loss.backward()
    return {name: p.grad for name, p in backbone.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize("build", [swin, resnet])
def test_gradients_are_the_same(build):
    expected, everything = gradients(build, False)
    found, kept = gradients(build, True)
    assert found.keys() == expected.keys() and kept < 0.6 * everything
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)


def test_evaluation_runs_each_block_once(monkeypatch):
    calls = []
    monkeypatch.setattr("bench.training.recomputation.checkpoint", lambda *args, **kwargs: calls.append(args))
    backbone = swin().eval()
    recompute_blocks(backbone)
    with torch.inference_mode():
        backbone(torch.randn(1, 3, 32, 32))
    assert calls == []


def test_names_and_values_of_the_model_stay():
    backbone = swin()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    recompute_blocks(backbone)
    assert backbone.state_dict().keys() == before.keys()


def test_trainable_batch_norm_is_not_run_twice():
    """Its running statistics would count every batch twice."""
    with pytest.raises(BenchError, match="^activation checkpointing has no block"):
        recompute_blocks(resnet(nn.BatchNorm2d))
    mixed = nn.ModuleList([resnet(), resnet(nn.BatchNorm2d)])
    recompute_blocks(mixed)
    changed = ["forward" in vars(block) for block in mixed.modules() if isinstance(block, Bottleneck)]
    assert changed == [True] * 6 + [False] * 6
