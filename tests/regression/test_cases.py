"""The function of every method stays what it was when it was compared with the reference (bench.regression.cases)."""

import pytest
import torch
from torchvision.ops import deform_conv2d

from bench.regression.cases import CASES, TOLERANCE, changes, expected, filled, image, measure

RECORDED = expected()


@pytest.mark.parametrize("name", CASES)
def test_function_has_not_changed(name):
    assert changes(name, RECORDED[name]) == {}


def test_numbers_are_worth_comparing():
    """Outputs that vary, so that a changed weight or index shows; losses that are there."""
    assert RECORDED.keys() == CASES.keys()
    for name, outputs in RECORDED.items():
        for output, values in outputs.items():
            if output.startswith("loss_"):
                assert len(values) == 1 and values[0] > 1e-3, (name, output)
            else:
                assert max(values) - min(values) > 1e-2 * max(map(abs, values)), (name, output)


@torch.no_grad()
def test_deformable_layer_is_torchvisions():
    """Also the recorded one, whose offsets give another output in the wrong order."""
    name = "deformable downsampling"
    layer = filled(CASES[name]())
    prediction = layer.offset(image())
    offsets, modulation = prediction[:, :18], prediction[:, 18:].sigmoid()

    def torchvisions(offsets):
        kernels = layer.deform.weight, layer.deform.bias
        return deform_conv2d(image(), offsets, *kernels, stride=2, padding=1, mask=modulation)

    wanted = torchvisions(offsets)
    torch.testing.assert_close(layer(image()), wanted, rtol=1e-4, atol=1e-5)
    kept = wanted.flatten()[:: wanted.numel() // 12][:12].tolist()
    assert RECORDED[name]["output"] == pytest.approx([*kept, wanted.abs().max().item()], rel=1e-3, abs=1e-4)
    swapped = torchvisions(torch.stack((offsets[:, 1::2], offsets[:, 0::2]), 2).flatten(1, 2))
    assert (swapped - wanted).abs().max() > 20 * TOLERANCE * wanted.abs().max()


def test_changes_are_named():
    recorded = measure("maskformer")
    values = recorded["mask_logits"]
    other = recorded | {"mask_logits": [values[0] + 0.01 * max(map(abs, values)), *values[1:]], "loss_extra": [1.0]}
    del other["class_logits"]
    found = changes("maskformer", other)
    assert found == {"mask_logits": "differs by 1.0e-02", "loss_extra": "is gone", "class_logits": "is new"}
