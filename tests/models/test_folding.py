"""Folded batch norms: the same predictions for every method, what is folded, and what is left alone."""

from copy import deepcopy

import pytest
import torch
import torchvision
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.experiments.experiment import experiment
from bench.experiments.methods import METHODS
from bench.zoo import build_model
from models.backbones.resnet import FrozenBatchNorm2d, resnet
from models.backbones.timm_pyramid import timm_pyramid
from models.deformable import DeformableDownsampling
from models.folding import fold_batch_norms
from models.outputs import BackboneOutput, PixelPrediction
from tests.reference import relative_error

CHANNELS_LAST = {"memory_format": torch.channels_last}
OTHERS = {  # methods without a small model
    "segformer": ("mit_b2", "ade20k", "paper"),
    "mask_rcnn": ("r50", "coco_instance", "paper"),
}


def image(*size: int) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) or "FrozenBatchNorm" in type(module).__name__


def norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if is_norm(module)]


def with_statistics(model: nn.Module) -> nn.Module:
    """In evaluation mode, with norms (and deformable offsets) as after a training."""
    generator = torch.Generator().manual_seed(2)
    for module in norms(model):
        for name, low, high in (("running_mean", -0.3, 0.3), ("running_var", 0.5, 2), ("weight", 0.3, 1.2),
                                ("bias", -0.3, 0.3)):  # fmt: skip
            if (value := getattr(module, name)) is not None:
                value.data.uniform_(low, high, generator=generator)
    for module in model.modules():
        if isinstance(module, DeformableDownsampling):
            module.offset.weight.data.normal_(std=0.02, generator=generator)
            module.deform.bias.data.uniform_(-0.3, 0.3, generator=generator)
    return model.eval()


def arrays(output: object) -> list[Tensor]:
    if isinstance(output, PixelPrediction):
        return [output.logits]
    if isinstance(output, BackboneOutput):
        return [*output.features, *(x for pair in output.pairs for x in pair)]
    if isinstance(output, dict):  # maps by name
        return list(output.values())
    return [output] if isinstance(output, Tensor) else [output.class_logits, output.mask_logits]


@torch.inference_mode()
def check(model: nn.Module, images: Tensor) -> nn.Module:
    """Without any norm the model says the same, of other images than the probe; what was given is as it was."""
    before = deepcopy(model.state_dict())
    folded = fold_batch_norms(model, image(64, 96))
    assert norms(model) and not norms(folded)
    for ours, expected in zip(arrays(folded(images)), arrays(model(images)), strict=True):
        assert ours.shape == expected.shape and expected.abs().max() > 0
        assert relative_error(ours, expected) < 1e-5
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    return folded


@pytest.mark.parametrize("name", METHODS)
def test_every_method_predicts_the_same(name):
    data = "synthetic_semantic" if METHODS[name].predicts == "pixels" else "synthetic_panoptic"
    what = experiment(name, *OTHERS.get(name, ("small", data, "small")))
    model = with_statistics(build_model(what, seed=0)).to(**CHANNELS_LAST)
    if name == "mask_rcnn":  # which finds nothing with random weights
        model = nn.Sequential(model.backbone, model.pyramid).eval()
    folded = check(model, image(96, 64).contiguous(**CHANNELS_LAST))
    kernels = [m.weight for m in folded.modules() if isinstance(m, nn.Conv2d)]
    assert all(weight.is_contiguous(**CHANNELS_LAST) for weight in kernels)


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d, nn.BatchNorm2d, "no affine"])
@pytest.mark.parametrize("level", [0, 3])
def test_resnet_with_and_without_dcnv2(norm, level):
    build = (lambda channels: nn.BatchNorm2d(channels, affine=False)) if norm == "no affine" else norm
    check(with_statistics(resnet(50, level, norm=build)), image(70, 90))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_large_100"])
@pytest.mark.parametrize("frozen", [False, True])
def test_timm_backbones_keep_their_activations(name, frozen):
    torch.manual_seed(0)
    check(with_statistics(timm_pyramid(name, freeze_norms=frozen)), image(70, 90))


@pytest.mark.parametrize("norm", [BatchNormAct2d, FrozenBatchNormAct2d])
@pytest.mark.parametrize("apply_act", [False, True])
def test_norms_of_timm(norm, apply_act):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), norm(8, apply_act=apply_act), nn.Conv2d(8, 8, 3, groups=4))
    folded = check(with_statistics(model), image(9, 11))
    assert isinstance(folded[1], nn.ReLU if apply_act else nn.Sequential)


def test_swin_has_nothing_to_fold():
    model = build_model(experiment("hcformer", "swin_s", "coco_panoptic", "paper")).eval()
    assert fold_batch_norms(model, image(64, 64)) is model


def test_a_pass_in_the_fast_form_is_probed_in_the_reference_form():
    model = with_statistics(build_model(experiment("hcformer", "small", "synthetic_panoptic", "small"), seed=0))
    model.form = "triton"  # which cannot run here
    folded = fold_batch_norms(model, image(64, 64))
    assert folded.form == model.form == "triton" and not norms(folded)


def test_training_mode_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    model[1].train()
    with pytest.raises(ValueError, match="training mode"):
        fold_batch_norms(model, image(8, 8))


class Pair(nn.Module):
    """A convolution and a norm, put together by `join`."""

    def __init__(self, join, convolution: nn.Module | None = None, norm: nn.Module | None = None):
        super().__init__()
        self.convolution = convolution or nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm, self.join = norm or nn.BatchNorm2d(3), join

    def forward(self, x: Tensor) -> object:
        return self.join(self.convolution, self.norm, x)


def returned_too(convolution, norm, x):
    output = convolution(x)
    return output, norm(output)


def added_again(convolution, norm, x):
    output = convolution(x)
    return norm(output) + output


def viewed(convolution, norm, x):
    output = convolution(x)
    view = output[:, :1]
    return norm(output) + view


def changed_before(convolution, norm, x):
    return norm(convolution(x).relu_())


UNCLEAR = {
    "returned too": Pair(returned_too),
    "added again": Pair(added_again),
    "viewed": Pair(viewed),
    "changed before": Pair(changed_before),
    "not directly": Pair(lambda convolution, norm, x: norm(convolution(x) * 2)),
    "convolution twice": Pair(lambda convolution, norm, x: norm(convolution(convolution(x)))),
    "norm twice": Pair(lambda convolution, norm, x: norm(norm(convolution(x)))),
    "norm first": Pair(lambda convolution, norm, x: convolution(norm(x))),
    "never called": Pair(lambda convolution, norm, x: x + 1),
    "statistics of the batch": Pair(
        lambda convolution, norm, x: norm(convolution(x)), norm=nn.BatchNorm2d(3, track_running_stats=False)
    ),
    "another kind of convolution": Pair(
        lambda convolution, norm, x: norm(convolution(x)),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1)),
    ),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_unclear_stays(name):
    model = UNCLEAR[name].eval()
    assert fold_batch_norms(model, image(8, 8)) is model


def test_a_hooked_module_stays():
    model = Pair(lambda convolution, norm, x: norm(convolution(x))).eval()
    handle = model.convolution.register_forward_hook(lambda module, inputs, output: output * 2)
    assert fold_batch_norms(model, image(8, 8)) is model
    handle.remove()
    assert not norms(fold_batch_norms(model, image(8, 8)))


def test_relu_in_place_after_the_norm_and_other_precisions():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    model = with_statistics(model)
    check(model, image(9, 11))
    half = fold_batch_norms(deepcopy(model).bfloat16(), image(8, 8).bfloat16())
    assert half[0].weight.dtype == half[0].bias.dtype == torch.bfloat16
    double = fold_batch_norms(model.double(), image(8, 8).double())
    assert relative_error(double(image(9, 9).double()), model(image(9, 9).double())) < 1e-14
