"""HC-FCN-32s, HC-PSPNet and HC-DeepLabv3: shapes, decoding by hand, gradients, batches, the pyramid pooling."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.backbones.resnet import ResNet, resnet, small_resnet
from models.clustering import decode, use_form
from models.outputs import PixelPrediction
from models.per_pixel import DeepLabHead, PSPHead, hc_deeplabv3, hc_fcn_32s, hc_pspnet
from tests.reference import relative_error

BUILDERS = {"fcn": hc_fcn_32s, "pspnet": hc_pspnet, "deeplabv3": hc_deeplabv3}
CLASSES = 5


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tiny(name: str, level: int = 3, deformable: bool = True, **sizes) -> nn.Module:
    """On a ResNet of 8 planes with stem pooling: strides 4 to 32, as in the paper."""
    backbone = ResNet((1, 1, 1, 1), 8, nn.BatchNorm2d, level if deformable else 0)
    if name == "deeplabv3":
        sizes = {"channels": 16, "atrous_rates": (1, 2, 3)} | sizes
    return BUILDERS[name](CLASSES, backbone, level, 16, **sizes)


def awake(model: nn.Module) -> nn.Module:
    """Statistics and weights of the batch norms that do something, residual branches included."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("size", [(64, 96), (97, 133), (33, 65)])
def test_shapes(name, size):
    """Logits at stride 4, rounded up, whatever the size; three assignments, coarsest first."""
    with torch.inference_mode():
        prediction = tiny(name).eval()(torch.randn(2, 3, *size))
    assert isinstance(prediction, PixelPrediction) and prediction.auxiliary is None
    strides = [tuple(-(-n // stride) for n in size) for stride in (16, 8, 4)]
    assert prediction.logits.shape == (2, CLASSES, *strides[-1])
    assert [tuple(a.shape) for a in prediction.assignments] == [(2, 9, *s) for s in strides]
    assert prediction.scales.tolist() == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels_count_from_the_coarsest(name, level):
    model = tiny(name, level).eval()
    with torch.inference_mode():
        prediction = model(torch.randn(1, 3, 64, 96))
    assert prediction.logits.shape[-2:] == (2 * 2**level, 3 * 2**level)
    assert len(prediction.assignments) == level and (prediction.scales is None) == (level == 0)


@pytest.mark.parametrize("name", BUILDERS)
def test_cluster_logits_are_decoded(name):
    """Equation 5 level after level on what the head says of the coarsest feature."""
    model, images = awake(tiny(name, 2)).eval(), torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        prediction, features = model(images), model.backbone(images)
        logits = model.head(features.features[-1])
        for module, pair in zip(model.clustering, features.pairs[::-1], strict=False):
            logits = decode(logits, module(*pair))
    torch.testing.assert_close(prediction.logits, logits)


@pytest.mark.parametrize("name", BUILDERS)
def test_pixels_of_one_cluster_with_hard_assignments(name):
    """As s goes to 0 every pixel takes the logits of exactly one cluster (eq. 2)."""
    model = awake(tiny(name, 1)).eval().double()
    nn.init.constant_(model.clustering[0].scale, 1e-9)
    images = torch.randn(1, 3, 64, 96).double()
    with torch.inference_mode():
        pixels = model(images).logits[0].flatten(1).T
        clusters = model.head(model.backbone(images).features[-1])[0].flatten(1).T
    assert torch.cdist(pixels, clusters).min(1).values.max() < 1e-6
    assert len(clusters) == 6 and len(pixels) == 24


@pytest.mark.parametrize("name", BUILDERS)
def test_gradients_reach_everything(name):
    """From a cross-entropy of full-resolution logits, with the auxiliary one: no parameter is left out."""
    model, images = awake(tiny(name, auxiliary=True)).train(), torch.randn(2, 3, 64, 96)
    prediction = model(images)
    truth = torch.randint(CLASSES, (2, 64, 96))
    maps = (prediction.logits, prediction.auxiliary)
    losses = [F.cross_entropy(F.interpolate(m, (64, 96), mode="bilinear"), truth) for m in maps]
    (losses[0] + 0.4 * losses[1]).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    assert prediction.auxiliary.shape == (2, CLASSES, 4, 6)
    assert model.eval()(images).auxiliary is None


@pytest.mark.parametrize("name", BUILDERS)
def test_a_batch_equals_its_images(name):
    model, images = awake(tiny(name)).eval(), torch.randn(3, 3, 65, 97)
    with torch.inference_mode():
        together, single = model(images).logits, [model(image[None]).logits for image in images]
    assert relative_error(together, torch.cat(single)) < 1e-5


@pytest.mark.parametrize("name", BUILDERS)
def test_forms_reach_the_clustering(name):
    model = use_form(tiny(name), "compiled")
    assert {m.form for m in model.modules() if hasattr(m, "form")} == {"compiled"} and model.form == "compiled"


def test_pyramid_pooling_by_hand():
    """Means over 1, 2, 3 and 6 cells a side, a 1x1 convolution each, resized and stacked behind the feature."""
    head = awake(PSPHead(16, CLASSES)).eval()
    x = torch.randn(2, 16, 12, 18)  # 12 and 18: cells of 1, 2, 3 and 6 have whole sizes
    parts = [x]
    for cells, block in zip((1, 2, 3, 6), head.pooling.blocks, strict=True):
        means = x.view(2, 16, cells, 12 // cells, cells, 18 // cells).mean((3, 5))
        conv, norm = block.layers[1].conv, block.layers[1].batch_norm
        assert conv.kernel_size == (1, 1) and conv.out_channels == 4 and conv.bias is None
        parts.append(F.interpolate(F.relu(norm(conv(means))), (12, 18), mode="bilinear"))
    with torch.inference_mode():
        assert relative_error(head(x), head.classifier(torch.cat(parts, 1))) < 1e-5


def test_atrous_convolutions_keep_the_size():
    head = DeepLabHead(16, CLASSES)
    assert [conv[0].dilation[0] for conv in head[0].convs[1:4]] == [12, 24, 36]
    with torch.inference_mode():
        assert head.eval()(torch.randn(1, 16, 5, 7)).shape == (1, CLASSES, 5, 7)


@pytest.mark.parametrize("name", BUILDERS)
def test_paper_size_on_the_meta_device(name):
    with torch.device("meta"):
        model = BUILDERS[name](150, resnet(101, 3, norm=nn.BatchNorm2d)).eval()
        prediction = model(torch.zeros(1, 3, 512, 512))
    assert prediction.logits.shape == (1, 150, 128, 128)


@pytest.mark.parametrize("backbone", [small_resnet(dilated_stages=2), small_resnet()])
def test_a_level_that_the_backbone_lacks_is_refused(backbone):
    level = len(backbone.pair_channels) + 1
    with pytest.raises(ValueError, match=f"hierarchical level {level} is not in 0..{level - 1}"):
        hc_fcn_32s(CLASSES, backbone, level)
