"""MaskFormer against the reference implementation and against transformers' MaskFormer."""

import pytest
import torch
from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, SwinConfig
from transformers.models.maskformer.modeling_maskformer import MaskFormerPixelDecoder

from baselines.maskformer import maskformer
from bench.experiments.experiment import experiment
from bench.weights.formats import maskformer_hub
from bench.zoo import build_model
from models.backbones.resnet import ResNet
from tests.parity import load_reference
from tests.parity import tiny_maskformer as tiny
from tests.reference import reference_image, reference_outputs, relative_error


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_every_prediction_equals_the_reference():
    """Training mode returns the predictions after all three layers."""
    model = load_reference("tiny_maskformer_swin").train()
    expected = reference_outputs("tiny_maskformer_swin")
    with torch.inference_mode():
        prediction = model(reference_image())
    assert relative_error(prediction.mask_logits, expected["pred_masks"]) < 1e-4
    assert len(prediction.intermediate) == 2
    for i, (class_logits, mask_logits) in enumerate(prediction.intermediate):
        assert relative_error(class_logits, expected[f"aux.{i}.pred_logits"]) < 1e-4
        assert relative_error(mask_logits, expected[f"aux.{i}.pred_masks"]) < 1e-4


def test_as_released_predicts_the_same_with_more_work():
    model = moved(tiny()).eval()
    calls = []
    model.decoder.heads.register_forward_hook(lambda *_: calls.append(1))
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        usual = model(images)
        assert len(calls) == 1
        released = model.as_released()(images)
    assert len(calls) == 1 + 3  # every decoder layer
    assert torch.equal(usual.class_logits, released.class_logits)
    assert torch.equal(usual.mask_logits, released.mask_logits)


def transformers_maskformer():
    """transformers' model with the sizes of `tiny`, its weights moved so that every part shows."""
    backbone = SwinConfig(
        image_size=128,
        embed_dim=16,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    decoder = DetrConfig(
        decoder_layers=3, decoder_attention_heads=4, decoder_ffn_dim=64, d_model=32, num_queries=10, dropout=0.0
    )
    config = MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, num_labels=5
    )
    model = MaskFormerForInstanceSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("size", [(128, 256), (96, 160), (100, 132), (75, 110)])
def test_model_equals_transformers(size):
    """Windows fit all stages of the first size; the others are padded to windows, patches and merging."""
    other = transformers_maskformer()
    model, state = tiny().eval(), maskformer_hub.FORMAT.to_ours(other.state_dict())
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected, prediction = other(images), model(images)
    assert relative_error(prediction.class_logits, expected.class_queries_logits) < 1e-4
    assert relative_error(prediction.mask_logits, expected.masks_queries_logits) < 1e-4
    assert relative_error(deviation(prediction.class_logits), deviation(expected.class_queries_logits)) < 1e-3
    assert relative_error(deviation(prediction.mask_logits), deviation(expected.masks_queries_logits)) < 1e-3


@pytest.mark.parametrize("size", [(75, 110), (101, 151)])
def test_convolutional_pixel_decoder_on_any_size(size):
    """With a ResNet, transformers' pixel decoder on our backbone's maps, whose sizes are rounded up."""
    backbone = ResNet((1, 1, 1, 1), width=16)
    other = MaskFormerPixelDecoder(backbone.channels[-1], feature_size=32, mask_feature_size=32,
                                   lateral_widths=list(backbone.channels[:-1])).eval()  # fmt: skip
    model = moved(maskformer(5, backbone, 2, 10, channels=32, heads=4, hidden=48)).eval()
    names = {"fpn.stem.": "pixel_decoder.top.", "mask_projection.": "pixel_decoder.mask_features."}
    for i in range(3):  # of the coarsest first
        names |= {
            f"fpn.layers.{i}.proj.": f"pixel_decoder.laterals.{2 - i}.",
            f"fpn.layers.{i}.block.": f"pixel_decoder.smooth.{2 - i}.",
        }
    ours = model.state_dict()
    state = {}
    for name in other.state_dict():
        part = next(part for part in names if name.startswith(part))
        state[name] = ours[names[part] + name.removeprefix(part)]
    other.load_state_dict(state)
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        features = model.backbone(images).features
        assert [tuple(f.shape[-2:]) for f in features] == [tuple(-(-n // s) for n in size) for s in (4, 8, 16, 32)]
        expected, (found, _) = other(list(features)), model.pixel_decoder(features)
        assert model(images).mask_logits.shape == (2, 10, -(-size[0] // 4), -(-size[1] // 4))
    assert relative_error(found, expected.last_hidden_state) < 1e-5


def deviation(logits):
    """From the mean over queries, which random weights make much alike."""
    return logits - logits.mean(1, keepdim=True)


@pytest.mark.parametrize(("backbone", "millions"), [("r50", 45.01), ("swin_s", 63.07), ("swin_l", 211.57)])
def test_parameter_count(backbone, millions):
    """Parameters of the reference for COCO panoptic, in millions to two decimals."""
    with torch.device("meta"):
        model = build_model(experiment("maskformer", backbone, "coco_panoptic", "paper"))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def moved(model):
    """New parameters moved: residual branches start at zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_gradients_reach_every_parameter():
    model = moved(build_model(experiment("maskformer", "small", "synthetic_panoptic", "small"), seed=0)).train()
    prediction = model(torch.randn(2, 3, 64, 96))
    pairs = (*prediction.intermediate, (prediction.class_logits, prediction.mask_logits))
    assert len(pairs) == 3 and len({masks.shape for _, masks in pairs}) == 1
    sum((torch.randn_like(t) * t).mean() for pair in pairs for t in pair).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_batch_equals_single_images_at_an_odd_size():
    backbone = ResNet((1, 1, 1, 1), width=16)
    model = maskformer(5, backbone, 2, num_queries=20, encoder_layers=1, channels=32, heads=4, hidden=48)
    model = moved(model).eval()
    images = torch.randn(2, 3, 97, 133)
    with torch.inference_mode():
        batched = model(images)
        single = [model(image[None]) for image in images]
    assert batched.mask_logits.shape == (2, 20, 25, 34)
    assert relative_error(batched.class_logits, torch.cat([p.class_logits for p in single])) < 1e-4
    assert relative_error(batched.mask_logits, torch.cat([p.mask_logits for p in single])) < 1e-4
