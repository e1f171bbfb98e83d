"""What stays in float32 under mixed precision, and what follows it."""

import pytest
import torch

from bench.experiments.experiment import experiment
from bench.training.criterion import SetCriterion
from bench.zoo import build_model
from models.clustering import cluster
from models.precision import in_float32
from tests.declared import images, targets


def built(method):
    return build_model(experiment(method, "small", "synthetic_panoptic", "small"), seed=0)


def seen(module):
    """What the module returns, filled by its next pass."""
    outputs = []
    module.register_forward_hook(lambda _, __, output: outputs.append(output))
    return outputs


@pytest.mark.parametrize("training", [False, True])
def test_mask2former_s_pixel_decoder_computes_in_float32(training):
    """From the backbone's features, rounded as mixed precision rounds them, to the bit what float32 gives."""
    model = built("mask2former").train(training)
    features, pixels, queries = seen(model.backbone), seen(model.pixel_decoder), seen(model.class_predictor)
    with torch.autocast("cpu", torch.bfloat16):
        model(images().float())
    (output,), rounded = pixels, features[0].features
    assert {x.dtype for x in rounded} == {torch.bfloat16} == {x.dtype for x in queries}, "the rest is mixed"
    expected = model.pixel_decoder(tuple(x.float() for x in rounded))
    assert output.mask_features.dtype == torch.float32 and torch.equal(output.mask_features, expected.mask_features)
    pairs = list(zip(output.multi_scale_features, expected.multi_scale_features, strict=True))
    assert len(pairs) == 3 and all(torch.equal(*pair) for pair in pairs)


def test_mask2former_trains_in_mixed_precision():
    """Losses, in float32, are those of float32 to bfloat16's rounding; gradients are finite."""
    model = built("mask2former").train()
    losses = {}
    for mixed in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            prediction = model(images().float())
        losses[mixed] = SetCriterion(10, 112)(prediction, targets())
    assert {loss.dtype for loss in losses[True].values()} == {torch.float32}
    exact, rounded = (torch.stack(list(losses[mixed].values())).sum() for mixed in (False, True))
    assert rounded.item() == pytest.approx(exact.item(), rel=0.05)
    rounded.backward()
    assert all(p.grad.isfinite().all() for p in model.pixel_decoder.parameters())


def test_clustering_computes_in_float32():
    """The same similarities, told apart at a scale of 0.01, from bfloat16 maps: rounded once, at the end."""
    torch.manual_seed(0)
    fine, coarse = torch.randn(1, 16, 6, 8).bfloat16(), torch.randn(1, 16, 3, 4).bfloat16()
    scale = torch.tensor([0.01])
    with torch.autocast("cpu", torch.bfloat16):
        assignment = cluster(fine, coarse, scale)
    assert assignment.dtype == torch.bfloat16
    assert torch.equal(assignment, cluster(fine.float(), coarse.float(), scale).bfloat16())


@pytest.mark.parametrize(("method", "part"), [("maskformer", "pixel_decoder"), ("hcformer+", "encoder")])
def test_other_pixel_decoders_and_encoders_follow_mixed_precision(method, part):
    model = built(method).eval()
    linear = [module for module in getattr(model, part).modules() if isinstance(module, torch.nn.Conv2d)]
    outputs = [seen(module) for module in linear]
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        model(images().float())
    assert linear and {x.dtype for found in outputs for x in found} == {torch.bfloat16}


def test_double_precision_stays():
    kinds = in_float32(lambda x, pair, text: (x.dtype, [y.dtype for y in pair], text))
    single, double, half = (torch.zeros(1, dtype=kind) for kind in (torch.float32, torch.float64, torch.bfloat16))
    assert kinds(double, (single, half), "a") == (torch.float64, [torch.float32, torch.float32], "a")
