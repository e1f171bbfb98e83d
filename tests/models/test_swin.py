"""Swin against the reference's outputs and against timm, and its behaviour at sizes no window divides."""

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock

from bench.weights.formats.imagenet_swin import SWIN
from bench.weights.rules import rename
from models.backbones.swin import Swin, load_imagenet, load_timm_state, shifted_window_mask, swin
from tests.reference import reference_image, reference_outputs, reference_state, relative_error, strip

TINY = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 4}
CASES = {
    "tiny_mask2former_swin": lambda: Swin(**TINY),
    "tiny_hcformer_swin": lambda: Swin(**TINY, out_norms=(3,)),
    "hcformer_swins": lambda: swin("swin_s", out_norms=(3,)),
    "maskformer_swins": lambda: swin("swin_s"),
}


@pytest.mark.parametrize("name", CASES)
def test_features_equal_the_reference(name):
    state = strip(reference_state(name, prefix="backbone."), "backbone.")
    state = {key: value for key, value in state.items() if "clustering" not in key}
    model = CASES[name]().eval()
    model.load_state_dict(rename(state, SWIN))
    with torch.inference_mode():
        features = model(reference_image()).features
    assert relative_error(features[3], reference_outputs(name)["res5"]) < 1e-5


def randomised(model, seed=0):
    """Large weights: with those of a new model the attention is uniform and shows nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return randomised(Swin(**TINY))


def test_equals_timm_where_windows_fit():
    sizes = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 7}
    other = randomised(SwinTransformer(img_size=224, always_partition=True, num_classes=3, **sizes))
    model = Swin(**sizes, out_norms=()).eval()
    load_timm_state(model, other.state_dict())
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = model(images)
        x = other.patch_embed(images)
        for i, layer in enumerate(other.layers):
            if i > 0:
                fine, down = output.pairs[i - 1]
                assert relative_error(fine, x.permute(0, 3, 1, 2)) < 1e-5
                assert relative_error(down, layer.downsample(x).permute(0, 3, 1, 2)) < 1e-5
            x = layer(x)
            assert relative_error(output.features[i], x.permute(0, 3, 1, 2)) < 1e-5


@pytest.mark.parametrize("window", [4, 7])
def test_mask_equals_timm(window):
    size = (3 * window, 2 * window)
    block = SwinTransformerBlock(8, size, window_size=window, shift_size=window // 2, always_partition=True)
    assert torch.equal(shifted_window_mask(*size, window, torch.zeros(())), block.attn_mask)


def test_any_size(tiny):
    """97x133 is 25x34, 13x17, 7x9, 4x5 patches: padded to the patch, to the merging and to the window."""
    with torch.inference_mode():
        output = tiny(torch.randn(2, 3, 97, 133))
    shapes = [(2, 16, 25, 34), (2, 32, 13, 17), (2, 64, 7, 9), (2, 128, 4, 5)]
    assert [tuple(f.shape) for f in output.features] == shapes
    assert [(tuple(f.shape), tuple(d.shape)) for f, d in output.pairs] == list(
        zip(shapes[:-1], shapes[1:], strict=True)
    )
    assert tiny.channels == (16, 32, 64, 128) and tiny.pair_channels == ((16, 32), (32, 64), (64, 128))


def test_batch_equals_single_images(tiny):
    images = torch.randn(2, 3, 72, 104)
    with torch.inference_mode():
        batched = tiny(images).features
        single = [tiny(image[None]).features for image in images]
    for i, feature in enumerate(batched):
        assert relative_error(feature, torch.cat([s[i] for s in single])) < 1e-5


def test_output_norm_belongs_to_the_feature_alone(tiny):
    """Pairs hold the stage output before its norm (reference fact 3), so norms change no pair and no later stage."""
    raw = Swin(**TINY, out_norms=()).eval()
    raw.load_state_dict({k: v for k, v in tiny.state_dict().items() if not k.startswith("norm")})
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        with_norms, without = tiny(images), raw(images)
        normed = tiny.norm1(without.features[1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    for i, (fine, down) in enumerate(with_norms.pairs):
        assert torch.equal(fine, without.features[i])
        assert torch.equal(down, without.pairs[i][1])
    assert torch.equal(with_norms.features[1], normed)


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        ("swin_s", "swin_small_patch4_window7_224.ms_in1k"),
        ("swin_l", "swin_large_patch4_window12_384.ms_in22k"),
    ],
)
def test_imagenet_weights_fit(monkeypatch, variant, weights):
    """Names and shapes of timm's own models, without their download; loading raises for any that does not fit."""
    create = timm.create_model
    asked = []

    def offline(name, pretrained, **kwargs):
        asked.append((name, pretrained))
        return create(name, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with torch.device("meta"):
        load_imagenet(swin(variant, out_norms=(3,)), variant)
    assert asked == [(weights, True)]


def test_missing_imagenet_weights_are_one_line(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(timm, "create_model", fail)
    with torch.device("meta"):
        model = swin("swin_s")
    with pytest.raises(RuntimeError, match="swin_small.*no route to host$"):
        load_imagenet(model, "swin_s")


def test_wrong_arguments_are_refused(tiny):
    with pytest.raises(ValueError, match="unknown Swin variant 'swin_x'"):
        swin("swin_x")
    with pytest.raises(ValueError, match="out_norms"):
        Swin(**TINY, out_norms=(4,))
    with pytest.raises(ValueError, match="does not fit"):
        load_timm_state(tiny, {"patch_embed.proj.bias": torch.zeros(16)})
