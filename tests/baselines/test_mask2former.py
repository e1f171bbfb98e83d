"""Mask2Former against what the reference implementation returned, its published sizes, and its training mode."""

import pytest
import torch

from baselines.mask2former import mask2former
from models.backbones.resnet import resnet, small_resnet
from models.backbones.swin import swin
from tests.parity import load_reference
from tests.reference import reference_image, reference_outputs, relative_error


def small():
    return mask2former(
        5,
        small_resnet(),
        12,
        decoder_layers=3,
        encoder_layers=1,
        hidden_dim=64,
        encoder_feedforward=64,
        decoder_feedforward=64,
    )


@pytest.mark.parametrize("name", ["tiny_mask2former_swin", "mask2former_r50"])
def test_every_prediction_equals_the_reference(name):
    """Training mode (no dropout, frozen batch norm) gives the earlier predictions and the same last one."""
    model = load_reference(name)
    expected = reference_outputs(name)
    with torch.inference_mode():
        prediction = model.train()(reference_image())
        features = model.backbone(reference_image()).features
    assert relative_error(prediction.mask_logits, expected["pred_masks"]) < 1e-4
    compared = 0
    for i, (class_logits, mask_logits) in enumerate(prediction.intermediate):
        if f"aux.{i}.pred_logits" in expected:
            assert relative_error(class_logits, expected[f"aux.{i}.pred_logits"]) < 1e-4
            assert relative_error(mask_logits, expected[f"aux.{i}.pred_masks"]) < 1e-4
            compared += 1
    assert compared >= 2
    assert relative_error(features[3], expected["res5"]) < 1e-5


@pytest.mark.parametrize(
    ("backbone", "queries", "millions"),
    [(lambda: resnet(50), 100, 43.98), (lambda: swin("swin_s"), 100, 68.75), (lambda: swin("swin_l"), 200, 215.54)],
)
def test_parameter_count(backbone, queries, millions):
    """Parameters of the reference for COCO panoptic, in millions to two decimals."""
    with torch.device("meta"):
        model = mask2former(133, backbone(), queries)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_runs_on_the_meta_device():
    with torch.device("meta"):
        model = mask2former(133, swin("swin_l"), 200).eval()
        prediction = model(torch.zeros(1, 3, 800, 1344))
    assert prediction.class_logits.shape == (1, 200, 134)
    assert prediction.mask_logits.shape == (1, 200, 200, 336)
    assert prediction.mask_logits.device.type == "meta"


def test_batch_equals_single_images():
    torch.manual_seed(0)  # attention masks are thresholds: another picture might sit on one
    model = small().eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        batched = model(images)
        single = [model(image[None]) for image in images]
    assert relative_error(batched.class_logits, torch.cat([p.class_logits for p in single])) < 1e-4
    assert relative_error(batched.mask_logits, torch.cat([p.mask_logits for p in single])) < 1e-4


def test_initial_sampling_points_form_a_star():
    """Deformable DETR, appendix A.2, for 8 heads: head k starts in direction k of the 8 neighbours, point p p + 1
    cells away, and all points weigh the same."""
    with torch.no_grad():
        attention = small().pixel_decoder.encoder.layers[0].self_attn
        offsets = attention.sampling_offsets(torch.randn(64)).view(8, 3, 4, 2)
        weights = attention.attention_weights(torch.randn(64))
    star = torch.tensor([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]).float()
    expected = star[:, None, None] * torch.arange(1, 5)[:, None]
    assert torch.allclose(offsets, expected.expand(8, 3, 4, 2), atol=1e-5)
    assert torch.equal(weights, torch.zeros(96))


def test_trains_from_scratch():
    """Every parameter receives a gradient, and a few steps fit the masks and classes of one picture.

    The evaluation before it must leave nothing behind (transformers caches position embeddings).
    """
    torch.manual_seed(0)
    model = small()
    images = torch.randn(2, 3, 64, 64)
    masks = torch.zeros(2, 12, 32, 32)
    masks[:, :6, :, :16], masks[:, 6:, :, 16:] = 1, 1
    labels = torch.arange(12).remainder(6).expand(2, 12)
    with torch.inference_mode():
        model.eval()(images)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        prediction = model(images)
        assert len(prediction.intermediate) == 3
        loss = sum(
            torch.nn.functional.cross_entropy(c.flatten(0, 1), labels.flatten())
            + torch.nn.functional.binary_cross_entropy_with_logits(m, masks)
            for c, m in (*prediction.intermediate, (prediction.class_logits, prediction.mask_logits))
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert losses[-1] < 0.6 * losses[0]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="hidden_dim 48 must be a multiple of 32"):
        mask2former(5, small_resnet(), hidden_dim=48)
    with pytest.raises(ValueError, match="decoder_layers"):
        mask2former(5, small_resnet(), decoder_layers=0)
