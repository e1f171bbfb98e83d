"""Backbones from timm: the pairs found by rule, the maps of `features_only`, any size, every kind of model on top."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import DropPath
from torch import nn

from baselines.fpn import fpn
from baselines.mask2former import mask2former
from baselines.maskformer import maskformer
from baselines.per_pixel import fcn_32s
from bench.experiments.backbones import Normalisation
from bench.measure.complexity.counter import count_flops
from models.backbones.resnet import FrozenBatchNorm2d, resnet
from models.backbones.timm_pyramid import timm_normalisation, timm_pyramid
from models.hcformer import hcformer
from models.per_pixel import hc_fcn_32s
from tests.reference import relative_error

STAGED = ("stages.1.downsample", "stages.2.downsample", "stages.3.downsample")
MERGED = ("layers.1.downsample", "layers.2.downsample", "layers.3.downsample")
BLOCKS = ("blocks.2.0", "blocks.3.0", "blocks.5.0")
# The modules that return the downsampled maps, and whether images are padded.
MODELS = {
    "resnet50": (("layer2.0", "layer3.0", "layer4.0"), False),
    "convnext_tiny": (STAGED, True),
    "swin_tiny_patch4_window7_224": (MERGED, True),
    "swinv2_tiny_window8_256": (MERGED, True),
    "tf_efficientnet_lite0": (BLOCKS, False),
    "mobilenetv3_large_100": (BLOCKS, False),
    "pvt_v2_b0": (STAGED, False),
    "regnety_004": (("s2.b1", "s3.b1", "s4.b1"), False),
    "fastvit_t8": (STAGED, False),
    "edgenext_xx_small": (STAGED, True),
}
# Small enough to be run many times; the first is padded.
SMALL = ["test_convnext", "test_resnet", "test_efficientnet"]
NARROW = {"channels": 32, "heads": 2, "hidden": 32, "decoder_layers": 1, "num_queries": 5}


def built(name, **arguments):
    torch.manual_seed(0)
    return timm_pyramid(name, **arguments)


@pytest.fixture(scope="module")
def small():
    return {name: built(name).eval() for name in SMALL}


def expected(size, stride):
    return -(-size[0] // stride), -(-size[1] // stride)


def check_sizes(model, output, batch, size):
    shapes = [(batch, c, *expected(size, s)) for c, s in zip(model.channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(feature.shape) for feature in output.features] == shapes
    for i, (fine, coarse) in enumerate(output.pairs):
        assert fine is output.features[i]
        assert fine.shape[1] == model.pair_channels[i][0]
        assert tuple(coarse.shape) == (batch, model.pair_channels[i][1], *expected(size, 8 * 2**i))
    assert len(output.pairs) == len(model.pair_channels) == 3


@pytest.mark.parametrize("name", MODELS)
def test_pairs_are_found_by_rule_and_counted_on_the_meta_device(name):
    with torch.device("meta"):
        model = timm_pyramid(name).eval()
        check_sizes(model, model(torch.zeros(2, 3, 101, 171)), 2, (101, 171))
    assert (model.downsamplings, model.padded) == MODELS[name]
    assert count_flops(model, (torch.zeros(1, 3, 64, 96, device="meta"),))[0] > 1e6


def test_a_stage_that_holds_its_blocks_apart_gives_its_first_block():
    with torch.device("meta"):
        model = timm_pyramid("resnetv2_50")
    assert model.downsamplings == ("stages.1.blocks.0", "stages.2.blocks.0", "stages.3.blocks.0")


def test_resnet_is_the_projects_own():
    """Names, features, pairs, parameters and FLOPs of `models.backbones.resnet`, whose pairs were chosen by hand."""
    own, model = resnet(50).eval(), built("resnet50", freeze_norms=True).eval()
    model.model.load_state_dict(own.state_dict())
    images = torch.randn(1, 3, 97, 129)
    with torch.inference_mode():
        output, wanted = model(images), own(images)
    for maps, others in [(output.features, wanted.features), *zip(output.pairs, wanted.pairs, strict=True)]:
        for x, y in zip(maps, others, strict=True):
            assert relative_error(x, y) < 1e-5
    assert (model.channels, model.pair_channels) == (own.channels, own.pair_channels)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in own.parameters())
    counts = [count_flops(m.to("meta"), (images.to("meta"),)) for m in (model, own)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "tf_efficientnet_lite0", "pvt_v2_b0", *SMALL])
def test_features_are_those_of_features_only(name):
    model = built(name).eval()
    other = timm.create_model(name, features_only=True).eval()
    names = [key.removeprefix("model.").replace("_", ".") for key in other.state_dict()]  # stages.1 is stages_1 there
    assert names == [key.replace("_", ".") for key in model.model.state_dict()]
    other.load_state_dict(dict(zip(other.state_dict(), model.model.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        features, wanted = model(images).features, other(images)[-4:]
    for feature, x in zip(features, wanted, strict=True):
        assert torch.equal(feature, x if x.shape == feature.shape else x.permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", MODELS)
def test_hcformer_trains_on_it(name):
    """65x97 is 17x25, 9x13, 5x7, 3x4 pixels. Clusters reach back into every pair."""
    model = hcformer(4, built(name), hierarchical_level=3, embedding_channels=16, **NARROW).train()
    prediction = model(torch.randn(2, 3, 65, 97))
    assert prediction.mask_logits.shape == (2, 5, 17, 25) and prediction.class_logits.shape == (2, 5, 5)
    (prediction.mask_logits.square().mean() + prediction.class_logits.square().mean()).backward()
    for parameter, value in model.backbone.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), parameter
    assert all(module.fine_embedding.weight.grad.abs().sum() > 0 for module in model.clustering)


@pytest.mark.parametrize("name", ["convnext_tiny", "mobilenetv3_large_100"])
def test_every_kind_of_model_takes_it(name):
    backbone = built(name)
    narrow = {"hidden_dim": 32, "num_heads": 2, "encoder_feedforward": 32, "decoder_feedforward": 32}
    models = [
        (maskformer(4, backbone, **NARROW), (17, 25)),
        (maskformer(4, backbone, **NARROW, encoder_layers=1), (17, 25)),
        (mask2former(4, backbone, 5, 1, 1, **narrow), (17, 25)),
        (hcformer(4, backbone, 2, encoder_layers=1, **NARROW), (9, 13)),
        (fpn(4, backbone, True, channels=32), (17, 25)),
        (fcn_32s(4, backbone, True), (3, 4)),
        (hc_fcn_32s(4, backbone, 3, 16), (17, 25)),
    ]
    images = torch.randn(1, 3, 65, 97)
    for model, size in models:
        with torch.inference_mode():
            prediction = model.eval()(images)
        masks = prediction.mask_logits if hasattr(prediction, "mask_logits") else prediction.logits
        assert masks.shape[-2:] == size and masks.isfinite().all()
    maskformer(4, backbone, **NARROW).train()(images.repeat(2, 1, 1, 1)).mask_logits.mean().backward()


@settings(deadline=None, max_examples=15)
@given(height=st.integers(33, 140), width=st.integers(33, 140), name=st.sampled_from(SMALL))
def test_any_size_and_batch_equals_single_images(small, height, width, name):
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * width))
    with torch.inference_mode():
        batched = small[name](images)
        single = [small[name](image[None]) for image in images]
    check_sizes(small[name], batched, 2, (height, width))
    for i, feature in enumerate(batched.features):
        assert relative_error(feature, torch.cat([one.features[i] for one in single])) < 1e-5
    for i, (_, coarse) in enumerate(batched.pairs):
        assert relative_error(coarse, torch.cat([one.pairs[i][1] for one in single])) < 1e-5


def test_padding_is_with_zeros_and_only_where_the_model_rounds_down(small):
    images = torch.randn(1, 3, 70, 90)
    padded = nn.functional.pad(images, (0, 96 - 90, 0, 96 - 70))
    with torch.inference_mode():
        for name, equal in zip(SMALL, (True, False, False), strict=True):
            output, whole = small[name](images), small[name](padded)
            assert small[name].padded == equal
            assert torch.equal(output.features[0], whole.features[0][..., :18, :23]) == equal
            assert torch.equal(output.pairs[0][1], whole.pairs[0][1][..., :9, :12]) == equal


@pytest.mark.parametrize("name", ["resnet50", "swin_tiny_patch4_window7_224", "mobilenetv3_large_100"])
def test_weights_of_a_classifier_load_by_name(name):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
        missing, unexpected = timm_pyramid(name).model.load_state_dict(state, strict=False)
        model = hcformer(4, timm_pyramid(name), **NARROW)
    assert missing == []
    assert {key.split(".")[0] for key in unexpected} <= {"fc", "norm", "head", "conv_head", "norm_head", "classifier"}
    first = next(iter(state))
    assert f"backbone.model.{first}" in model.state_dict()


def test_construction_leaves_no_trace():
    torch.manual_seed(0)
    model = timm_pyramid("test_resnet")
    after = torch.rand(1)
    torch.manual_seed(0)
    timm.create_model("test_resnet", features_only=True, out_indices=(-4, -3, -2, -1), feature_cls="getter")
    assert torch.equal(after, torch.rand(1))
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(b.item() == 0 for name, b in model.named_buffers() if name.endswith("num_batches_tracked"))
    model(torch.randn(2, 3, 64, 64))
    assert not any(module._forward_hooks for module in model.modules())


def test_stochastic_depth_is_what_is_asked_for():
    """Some models of timm have it by default; those without it have none to set."""
    with torch.device("meta"):
        for rate in (0.0, 0.3):
            modules = timm_pyramid("swin_tiny_patch4_window7_224", rate).modules()
            rates = [module.drop_prob for module in modules if isinstance(module, DropPath)]
            assert max(rates, default=0.0) == pytest.approx(rate)
        timm_pyramid("vgg11_bn", 0.3)


@pytest.mark.parametrize("name", ["resnet50", "regnety_004"])  # the second's batch norms hold their activations
def test_frozen_batch_norms_compute_the_same_in_evaluation(name):
    free, frozen = built(name), built(name, freeze_norms=True)
    free.train()(torch.randn(2, 3, 64, 64))  # moves the statistics
    frozen.load_state_dict(free.state_dict())
    images = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        for x, y in zip(frozen(images).features, free.eval()(images).features, strict=True):
            assert relative_error(x, y) < 1e-5
    norms = [module for module in free.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    sizes = [sum(p.numel() for p in model.parameters()) for model in (free, frozen, nn.ModuleList(norms))]
    assert sizes[0] - sizes[1] == sizes[2]


def test_new_frozen_batch_norms_leave_no_branch_dead():
    frozen = built("test_resnet", freeze_norms=True)
    assert all(module.weight.min() == 1 for module in frozen.modules() if isinstance(module, FrozenBatchNorm2d))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_224", r"no feature pyramid .*strides \(16, 16, 16, 16\).*: take another"),
        ("levit_128s", "no feature pyramid .*: take another"),  # three maps
        ("hiera_tiny_224", "for images of any size .*: take another"),
        ("maxvit_tiny_tf_224", "for images of any size .*window.*: take another"),
        ("mvitv2_tiny", "no module returns a map of 17x25 .*: take another"),  # tokens
        ("resnet5O", r"timm has no model 'resnet5O': did you mean resnet50, "),
        ("hf-hub:timm/resnet50", "timm has no model"),
        ("?", "list_models"),
        ("resnet50.mine", "no weights 'resnet50.mine': known are .*resnet50.a1_in1k"),
    ],
)
def test_what_is_refused_says_why_on_one_line(name, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message) as caught:
        timm_pyramid(name)
    assert "\n" not in str(caught.value)


def test_normalisation_is_the_models_own():
    half = ((127.5,) * 3, (127.5,) * 3)
    assert timm_normalisation("tf_efficientnet_lite0") == timm_normalisation("tf_efficientnet_lite0.in1k") == half
    mean, std = timm_normalisation("resnet50")
    assert mean == pytest.approx(Normalisation().mean) and std == pytest.approx(Normalisation().std)  # ImageNet's
    with pytest.raises(ValueError, match="did you mean"):
        timm_normalisation("resnet5O")
