"""ImageNet weights: torchvision's state dict fits our ResNets, and what goes wrong is one line."""

from urllib.error import HTTPError, URLError

import pytest
import torch
import torchvision
from torch import nn

from bench.errors import BenchError
from bench.experiments.backbones import get_backbone
from bench.weights.imagenet import load_imagenet, load_torchvision_state
from models.backbones.resnet import DeformableDownsampling, resnet, small_resnet
from models.backbones.swin import swin


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """torchvision's ResNet-50 with random weights and random normalisation."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


@torch.inference_mode()
def test_plain_resnet_computes_what_torchvisions_does(original):
    ours = resnet(50).eval()
    load_torchvision_state(ours, original.state_dict())
    images = torch.randn(1, 3, 64, 96)
    x = original.maxpool(original.relu(original.bn1(original.conv1(images))))
    for i, feature in enumerate(ours(images).features, start=1):
        x = getattr(original, f"layer{i}")(x)
        torch.testing.assert_close(feature, x)


def test_deformable_downsamplings_take_the_weights_they_replace(original):
    ours, state = resnet(50, deformable_level=2), original.state_dict()
    kept = dict(state)
    load_torchvision_state(ours, state)
    assert list(kept) == list(state), "the caller's state dict was changed"
    replaced = {n: m for n, m in ours.named_modules() if isinstance(m, DeformableDownsampling)}
    assert set(replaced) == {f"layer{i}.0.{name}" for i in (3, 4) for name in ("conv2", "downsample.0")}
    for name, module in replaced.items():
        assert torch.equal(module.deform.weight, state[f"{name}.weight"])
        assert not module.offset.weight.any() and not module.deform.bias.any()
    assert torch.equal(ours.layer2[0].conv2.weight, state["layer2.0.conv2.weight"])
    assert torch.equal(ours.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])


def test_state_that_does_not_fit(original):
    state = original.state_dict()
    lacking = {name: value for name, value in state.items() if name != "layer3.2.conv1.weight"}
    for wrong, word in ((lacking, "layer3.2.conv1.weight"), (state | {"other": torch.zeros(1)}, "other")):
        with pytest.raises(BenchError, match=rf"^(?!.*\n).*do not fit.*{word}"):
            load_torchvision_state(resnet(50, deformable_level=3), wrong)


def test_state_without_a_replaced_weight(original):
    lacking = {name: value for name, value in original.state_dict().items() if name != "layer4.0.conv2.weight"}
    with pytest.raises(BenchError, match="layer4.0.conv2"):
        load_torchvision_state(resnet(50, deformable_level=3), lacking)


@pytest.mark.parametrize(
    "error",
    [
        URLError("Name or service not known"),
        HTTPError("https://example.org", 503, "Service Unavailable", {}, None),
        ConnectionResetError(104, "Connection reset by peer"),
        RuntimeError("invalid hash value\nexpected something else"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_offline(monkeypatch, tmp_path, error):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def urlopen(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    with pytest.raises(BenchError, match=r"^(?!.*\n).*\br50\b.*go online"):
        load_imagenet(resnet(50), get_backbone("r50"))


def test_offline_swin(monkeypatch):
    import timm

    def create_model(*args, **kwargs):
        raise OSError("We couldn't connect to the hub\nand more lines")

    monkeypatch.setattr(timm, "create_model", create_model)
    with torch.device("meta"):
        model = swin("swin_s")
    with pytest.raises(BenchError, match=r"^(?!.*\n).*\bswin_s\b.*couldn't connect.*go online"):
        load_imagenet(model, get_backbone("swin_s"))


def test_backbone_without_weights():
    with pytest.raises(BenchError, match=r"'small'.*known are r50, r101, swin_s, swin_l"):
        load_imagenet(small_resnet(), get_backbone("small"))
