"""ResNet against torchvision's, deformable downsampling against torchvision's operator and the reference."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import deform_conv2d

from models.backbones.resnet import DeformableDownsampling, FrozenBatchNorm2d, ResNet, resnet, small_resnet
from tests.reference import reference_outputs, relative_error, strip

STAGES = ("layer1", "layer2", "layer3", "layer4")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def torchvision_resnet50():
    """torchvision's model with batch norms that do something, and its classifier-free state."""
    model = torchvision.models.resnet50().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.0),
                (module.bias, -0.5, 0.5),
            ):
                nn.init.uniform_(value, low, high)
    return model, {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}


def test_features_equal_torchvision():
    """Its state loads one to one (strictly, num_batches_tracked included) and gives its features at an odd size."""
    other, state = torchvision_resnet50()
    model = resnet(50)
    model.load_state_dict(state)
    assert set(model.state_dict()) == {name for name in state if not name.endswith("num_batches_tracked")}
    extractor = create_feature_extractor(other, [*STAGES, "layer2.0", "layer3.0", "layer4.0"])
    images = torch.randn(1, 3, 97, 133)
    with torch.inference_mode():
        output, expected = model(images), extractor(images)
        trained = model.train()(images)
    for i, stage in enumerate(STAGES):
        assert relative_error(output.features[i], expected[stage]) < 1e-5
        assert torch.equal(trained.features[i], output.features[i])  # frozen batch norm: no training mode
    for i, (fine, downsampled) in enumerate(output.pairs):
        assert relative_error(fine, expected[STAGES[i]]) < 1e-5
        assert relative_error(downsampled, expected[f"{STAGES[i + 1]}.0"]) < 1e-5


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("depth", [50, 101])
def test_parameter_count(depth):
    """torchvision's without classifier and batch norms; DCNv2 adds its offset convolutions and a bias each."""
    with torch.device("meta"):
        other = getattr(torchvision.models, f"resnet{depth}")()
        expected = sum(m.weight.numel() for m in other.modules() if isinstance(m, nn.Conv2d))
        assert count(resnet(depth)) == expected
        for level, stages in enumerate([(512,), (512, 256), (512, 256, 128)], 1):
            for planes in stages[-1:]:
                expected += (9 * planes + 1) * 27 + planes  # the 3x3 convolution
                expected += (9 * 2 * planes + 1) * 3 + 4 * planes  # the 1x1 shortcut
            assert count(resnet(depth, level)) == expected


def deformable_modules(model):
    names = [name for name, module in model.named_modules() if isinstance(module, DeformableDownsampling)]
    return sorted({name.split(".")[0] for name in names}), len(names)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_deformable_level_counts_from_the_coarsest_stage(level):
    model = small_resnet(level)
    assert deformable_modules(model) == (list(STAGES[4 - level :]), 2 * level)


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("size", [(64, 96), (97, 133), (33, 65), (1, 1)])
def test_shapes_and_pairs(level, size):
    """Strides 4 to 32, rounded up; a pair is the last output of a stage and the next stage's first block's."""
    model = ResNet((2, 1, 2, 1), width=32, deformable_level=level).eval()
    outputs = {}
    for stage in STAGES:
        for i, block in enumerate(getattr(model, stage)):
            block.register_forward_hook(lambda *args, key=(stage, i): outputs.__setitem__(key, args[2].clone()))
    with torch.inference_mode():
        result = model(torch.randn(2, 3, *size))
    shapes = [(-(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32)]
    assert model.channels == (128, 256, 512, 1024)
    assert model.pair_channels == ((128, 256), (256, 512), (512, 1024))
    assert [tuple(f.shape) for f in result.features] == [
        (2, c, *s) for c, s in zip(model.channels, shapes, strict=True)
    ]
    last = [("layer1", 1), ("layer2", 0), ("layer3", 1), ("layer4", 0)]
    for feature, key in zip(result.features, last, strict=True):
        assert torch.equal(feature, outputs[key])
    for i, (fine, downsampled) in enumerate(result.pairs):
        assert torch.equal(fine, outputs[last[i]])
        assert torch.equal(downsampled, outputs[STAGES[i + 1], 0])


def test_without_pooling_the_strides_are_half():
    model = ResNet((1, 1, 1, 1), width=16, stem_pool=False).eval()
    with torch.inference_mode():
        features = model(torch.randn(1, 3, 97, 133)).features
    assert [tuple(f.shape[2:]) for f in features] == [(49, 67), (25, 34), (13, 17), (7, 9)]


def random_downsampling(kernel, scale, dtype=torch.float64):
    """4 to 5 channels, stride 2, offsets about `scale` pixels wide."""
    module = DeformableDownsampling(nn.Conv2d(4, 5, kernel, 2, padding=kernel // 2, bias=False)).to(dtype)
    nn.init.normal_(module.offset.weight, std=scale / 6)
    nn.init.normal_(module.offset.bias, std=scale)
    nn.init.normal_(module.deform.bias)
    return module


def operator(module, x):
    """The same with torchvision's operator."""
    prediction = module.offset(x)
    offsets, modulation = prediction.split((2 * module.deform.kernel_size[0] ** 2, prediction.shape[1] // 3), 1)
    conv = module.deform
    return deform_conv2d(x, offsets, conv.weight, conv.bias, conv.stride, conv.padding, mask=modulation.sigmoid())


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("size", "scale"), [((8, 10), 0.5), ((7, 9), 2), ((7, 9), 20), ((1, 1), 0.7), ((1, 6), 3)])
def test_deformable_downsampling_equals_torchvision(kernel, size, scale):
    """Output and gradients, with offsets inside, around and far beyond the border."""
    module = random_downsampling(kernel, scale)
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    result, expected = module(x), operator(module, x)
    torch.testing.assert_close(result, expected)
    assert result.shape[-2:] == tuple((n + 1) // 2 for n in size)
    weights = torch.randn_like(expected)
    inputs = (x, *module.parameters())
    ours = torch.autograd.grad((result * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    assert all(gradient.any() for gradient in theirs) or scale > 2 or size == (1, 1)


def test_deformable_downsampling_in_float32():
    module = random_downsampling(3, 2, torch.float32)
    x = torch.randn(2, 4, 31, 45)
    assert relative_error(module(x), operator(module, x)) < 1e-5


@pytest.mark.parametrize(("unit", "kernel"), [("deform1", 1), ("deform3", 3)])
def test_deformable_downsampling_equals_the_reference(unit, kernel):
    tensors = reference_outputs("units")
    module = DeformableDownsampling(nn.Conv2d(6, 10, kernel, 2, padding=kernel // 2, bias=False))
    module.load_state_dict(strip(tensors, f"{unit}.state."))
    x = tensors[f"{unit}.x"]
    assert relative_error(module.offset(x), tensors[f"{unit}.offset_conv_out"]) < 1e-5
    assert relative_error(module(x), tensors[f"{unit}.out"]) < 1e-5


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (1, 1)])
def test_starts_as_half_the_replaced_convolution(kernel, size):
    """Zero offsets; modulation sigmoid(0) = 1/2."""
    conv = nn.Conv2d(4, 5, kernel, 2, padding=kernel // 2, bias=False)
    x = torch.randn(2, 4, *size)
    torch.testing.assert_close(DeformableDownsampling(conv)(x), conv(x) / 2, rtol=1e-4, atol=1e-5)


def test_new_deformable_backbone_halves_the_replaced_convolutions():
    """Only those of the stage: everything before it is the plain backbone's."""
    plain = ResNet((1, 1, 1, 1), width=16).eval()
    model = ResNet((1, 1, 1, 1), width=16, deformable_level=1).eval()
    state = dict(plain.state_dict())
    for name in ("layer4.0.conv2", "layer4.0.downsample.0"):
        state[f"{name}.deform.weight"] = state.pop(f"{name}.weight")
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(".offset." in name or name.endswith("deform.bias") for name in missing)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, result = plain(images).features, model(images).features
        for module in (plain.layer4[0].conv2, plain.layer4[0].downsample[0]):
            module.weight.mul_(0.5)
        halved = plain(images).features
    assert all(torch.equal(a, b) for a, b in zip(expected[:3], result[:3], strict=True))
    assert relative_error(result[3], halved[3]) < 1e-4


def test_frozen_batch_norm():
    norm = FrozenBatchNorm2d(3).train()
    assert not list(norm.parameters())
    for value in norm.buffers():
        nn.init.uniform_(value, 0.5, 1.5)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = 10 * torch.randn(4, 3, 5, 5) + 3
    expected = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    torch.testing.assert_close(norm(x), expected)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("dilated", [1, 2, 3])
def test_dilated_stages_equal_torchvision(dilated):
    """The strides of that many coarsest stages become dilations; the parameters stay the same."""
    other = torchvision.models.resnet50(replace_stride_with_dilation=[3 - i <= dilated for i in range(3)]).eval()
    model = resnet(50, dilated_stages=dilated)
    model.load_state_dict({name: value for name, value in other.state_dict().items() if not name.startswith("fc.")})
    extractor = create_feature_extractor(other, [*STAGES, "layer2.0", "layer3.0"])
    with torch.inference_mode():
        images = torch.randn(1, 3, 49, 65)
        output, expected = model(images), extractor(images)
    for feature, stage in zip(output.features, STAGES, strict=True):
        assert relative_error(feature, expected[stage]) < 1e-5
    assert len(output.pairs) == len(model.pair_channels) == 3 - dilated
    for i, pair in enumerate(output.pairs):
        for feature, stage in zip(pair, (STAGES[i], f"{STAGES[i + 1]}.0"), strict=True):
            assert relative_error(feature, expected[stage]) < 1e-5
    assert [tuple(c) for c in model.pair_channels] == [(256, 512), (512, 1024)][: 3 - dilated]


def test_dilated_stages_have_nothing_to_deform():
    with pytest.raises(ValueError, match="deformable_level must be 0"):
        resnet(50, deformable_level=1, dilated_stages=2)
    with pytest.raises(ValueError, match="dilated_stages 4"):
        small_resnet(dilated_stages=4)


def test_runs_on_the_meta_device():
    with torch.device("meta"):
        output = resnet(101, 3)(torch.zeros(1, 3, 800, 1333))
    assert output.features[3].shape == (1, 2048, 25, 42) and output.features[3].device.type == "meta"


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="depth 34"):
        resnet(34)
    for level in (-1, 4):
        with pytest.raises(ValueError, match=f"deformable_level {level}"):
            small_resnet(level)
