"""FCN-32s, PSPNet, DeepLabv3 and FPN, against torchvision's models, its published counts and counts by hand."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import segmentation

from baselines.fpn import fpn
from baselines.per_pixel import deeplabv3, fcn_32s, pspnet
from bench.errors import BenchError
from bench.experiments import Experiment, experiment
from bench.experiments.methods import METHODS
from bench.measure.complexity.counter import count_flops
from bench.zoo import build_model
from models.backbones.resnet import ResNet, resnet
from models.deformable import DeformableDownsampling
from models.outputs import PixelPrediction
from models.per_pixel import hc_fcn_32s
from tests.models.test_per_pixel import awake
from tests.reference import relative_error

META = torch.device("meta")
ON_RESNETS = [m.name for m in METHODS.values() if m.predicts == "pixels" and "resnet" in m.backbones]
# The strides of the logits; DeepLabv3 and FCN have their torchvision counterparts.
STRIDES = {"fcn_32s": 32, "pspnet": 8, "deeplabv3": 8, "fpn": 4}
BUILDERS = {"fcn_32s": fcn_32s, "pspnet": pspnet, "deeplabv3": deeplabv3, "fpn": fpn}
TORCHVISION = {"fcn_32s": segmentation.fcn_resnet101, "deeplabv3": segmentation.deeplabv3_resnet101}
PUBLISHED = {
    "fcn_32s": segmentation.FCN_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1,
    "deeplabv3": segmentation.DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1,
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tiny(name: str, classes: int = 5, **options) -> nn.Module:
    dilated = 2 if STRIDES[name] == 8 else 0
    backbone = ResNet((1, 1, 1, 1), 8, nn.BatchNorm2d, dilated_stages=dilated)
    if name == "fpn":
        options["channels"] = 32
    return awake(BUILDERS[name](classes, backbone, **options))


def dilated_resnet101() -> nn.Module:
    """Output stride 8, as in all of torchvision's segmentation models."""
    return resnet(101, dilated_stages=2, norm=nn.BatchNorm2d)


@pytest.mark.parametrize("name", STRIDES)
@pytest.mark.parametrize("size", [(64, 96), (97, 133), (33, 65)])
def test_shapes(name, size):
    with torch.inference_mode():
        prediction = tiny(name).eval()(torch.randn(2, 3, *size))
    assert isinstance(prediction, PixelPrediction)
    assert prediction.logits.shape == (2, 5, *(-(-n // STRIDES[name]) for n in size))
    assert (prediction.auxiliary, prediction.assignments, prediction.scales) == (None, (), None)


@pytest.mark.parametrize("name", TORCHVISION)
def test_equals_torchvision_with_the_same_weights(name):
    """Prediction and auxiliary head; their names differ in the heads' alone."""
    theirs = awake(TORCHVISION[name](weights=None, weights_backbone=None, num_classes=5, aux_loss=True)).eval()
    ours = BUILDERS[name](5, dilated_resnet101(), auxiliary=True).eval()
    renamed = {"classifier": "head", "aux_classifier": "auxiliary_head", "backbone": "backbone"}
    state = {renamed[(parts := key.split(".", 1))[0]] + "." + parts[1]: v for key, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    images = torch.randn(1, 3, 49, 65)
    with torch.inference_mode():
        expected, prediction = theirs(images), ours(images)
        features = ours.backbone(images).features
        auxiliary = ours.auxiliary_head(features[-2])
    assert prediction.logits.shape[-2:] == (7, 9)
    for logits, key in ((prediction.logits, "out"), (auxiliary, "aux")):
        assert relative_error(F.interpolate(logits, (49, 65), mode="bilinear"), expected[key]) < 1e-5


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters_and_operations(name):
    """Those of torchvision's checkpoints: 21 classes, auxiliary head, and multiply-adds at 520x520 in its table."""
    meta = PUBLISHED[name].meta
    with META:
        model = BUILDERS[name](21, dilated_resnet101(), auxiliary=True).eval()
        assert sum(p.numel() for p in model.parameters()) == meta["num_params"]
        _, flops = count_flops(model, (torch.zeros(1, 3, 520, 520),))
        _, auxiliary = count_flops(model.auxiliary_head, (torch.zeros(1, 1024, 65, 65),))
    assert (flops["conv"] + auxiliary["conv"]) / 1e9 == pytest.approx(meta["_ops"], abs=6e-4)


def test_parameters_of_pspnet_by_hand():
    """From the description of Zhao et al. (figure 3), with 150 classes."""
    with META:
        model = pspnet(150, dilated_resnet101())
        backbone = torchvision.models.resnet101()
    pooling = 4 * (2048 * 512 + 2 * 512)
    last = 4096 * 512 * 9 + 2 * 512 + 512 * 150 + 150
    expected = sum(p.numel() for p in backbone.parameters()) - (2048 * 1000 + 1000) + pooling + last
    assert sum(p.numel() for p in model.parameters()) == expected


def test_parameters_of_fpn_by_hand():
    with META:
        model, backbone = fpn(19, resnet(101)), resnet(101)
    sides = (2048 * 9 + (256 + 512 + 1024)) * 256 + 3 * 256 * 256 * 9  # top, laterals, smoothing; each normalised
    last = 256 * 256 * 9 + 256 + 256 * 19 + 19
    expected = sum(p.numel() for p in backbone.parameters()) + sides + 7 * 2 * 256 + last
    assert sum(p.numel() for p in model.parameters()) == expected


def test_flops_of_the_heads_by_hand():
    """FCN-32s at 512x512: 16x16 clusters, 3x3 convolution to 512 channels, linear classifier."""
    with META:
        model = fcn_32s(150, resnet(101, norm=nn.BatchNorm2d)).eval()
        _, flops = count_flops(model.head, (torch.zeros(1, 2048, 16, 16),))
        _, pooled = count_flops(pspnet(150, dilated_resnet101()).eval().head, (torch.zeros(1, 2048, 64, 64),))
    assert flops == {"conv": 256 * (2048 * 512 * 9 + 512 * 150), "batch_norm": 2 * 256 * 512}
    cells = 1 + 4 + 9 + 36
    assert pooled["conv"] == cells * 2048 * 512 + 4096 * (4096 * 512 * 9 + 512 * 150)
    assert pooled["adaptive_avg_pool2d"] == 4 * 2048 * 4096
    assert pooled["upsample_bilinear2d"] == 4 * 4 * 512 * 4096
    assert pooled["batch_norm"] == 2 * 512 * (cells + 4096)


def test_level_0_is_the_plain_model():
    """HC-FCN-32s without clustering modules is FCN-32s, names and all."""
    plain = tiny("fcn_32s").eval()
    other = hc_fcn_32s(5, ResNet((1, 1, 1, 1), 8, nn.BatchNorm2d), 0).eval()
    other.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(plain(images).logits, other(images).logits)


@pytest.mark.parametrize("name", STRIDES)
def test_gradients_reach_everything(name):
    model = tiny(name, auxiliary=True).train()
    prediction = model(torch.randn(2, 3, 64, 96))
    assert prediction.auxiliary.shape[:2] == (2, 5)
    (prediction.logits.square().mean() + prediction.auxiliary.square().mean()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", STRIDES)
def test_a_batch_equals_its_images(name):
    model, images = tiny(name).eval(), torch.randn(3, 3, 65, 97)
    with torch.inference_mode():
        together, single = model(images).logits, [model(image[None]).logits for image in images]
    assert relative_error(together, torch.cat(single)) < 1e-5


@pytest.mark.parametrize("method", ON_RESNETS)
def test_small_experiments_build(method):
    what = experiment(method, "small", "synthetic_panoptic", "small")
    assert Experiment.from_dict(what.to_dict()) == what
    model = build_model(what, 0).eval()
    assert sum(p.numel() for p in model.parameters()) < 4e6
    with torch.inference_mode():
        prediction = model(torch.zeros(1, 3, 64, 64))
    stride = {"fcn_32s": 16, "pspnet": 4, "deeplabv3": 4}.get(method, 2)  # no pooling in the stem: half of the paper's
    assert prediction.logits.shape == (1, 10, 64 // stride, 64 // stride)
    assert len(prediction.assignments) == (3 if method.startswith("hc_") else 0)


@pytest.mark.parametrize("method", ON_RESNETS)
def test_paper_experiments(method):
    """Trained batch norms; DCNv2 with clustering alone; two dilated stages in PSPNet and DeepLabv3."""
    what = experiment(method, "r101", "cityscapes", "paper")
    clustered = method.startswith("hc_")
    assert (what.hierarchical_level, what.downsampling) == ((3, "deformable") if clustered else (0, "conv"))
    assert (what.decoder_layers, what.num_queries, what.encoder_layers) == (0, 0, 0)
    assert experiment(method, "r101", "cityscapes", "paper", num_queries=7, decoder_layers=3) == what
    with META:
        backbone = build_model(what).backbone
    assert isinstance(backbone.layer4[2].bn3, nn.BatchNorm2d)
    assert len(backbone.pair_channels) == (1 if method in ("pspnet", "deeplabv3") else 3)
    deformable = [m for m in backbone.modules() if isinstance(m, DeformableDownsampling)]
    assert len(deformable) == (6 if clustered else 0)


def test_backbones_without_dilation_are_refused():
    with pytest.raises(BenchError, match="pspnet is not built on swin_s: use 'r101'"):
        experiment("pspnet", "swin_s", "ade20k", "paper")
