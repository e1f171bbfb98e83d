"""The function of every method stays what it was when it was compared with the reference (tests.regression.cases)."""

import pytest
import torch
from torchvision.ops import deform_conv2d

from bench.training.criterion import SetCriterion
from bench.training.pixel_criterion import PixelCriterion
from models import deformable
from tests.regression.cases import CASES, TOLERANCE, changes, expected, filled, image, measure

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


# --- Planted faults, each of which leaves the program running ---


def test_wrong_offset_order(monkeypatch):
    right = deformable.gathered_convolution

    def swapped(x, offsets, modulation, conv):
        return right(x, torch.stack((offsets[:, 1::2], offsets[:, 0::2]), 2).flatten(1, 2), modulation, conv)

    monkeypatch.setattr(deformable, "gathered_convolution", swapped)
    for name in ("deformable downsampling", "hcformer, level 1", "hc_fcn_32s"):
        outputs = {output for output in RECORDED[name] if not output.startswith("loss_")}
        assert changes(name, RECORDED[name]).keys() >= outputs, name
    assert changes("hcformer, convolution", RECORDED["hcformer, convolution"]) == {}, "which has no DCNv2"


@pytest.mark.parametrize(
    ("criterion", "name", "term"),
    [
        *((SetCriterion, "hcformer, level 3", f"loss_{term}") for term in ("class", "mask", "dice", "scale")),
        *((PixelCriterion, "hc_fcn_32s", f"loss_{term}") for term in ("pixel", "auxiliary", "scale")),
    ],
)
def test_dropped_loss_term(monkeypatch, criterion, name, term):
    right = criterion.forward
    monkeypatch.setattr(
        criterion, "forward",
        lambda *arguments: {loss: x for loss, x in right(*arguments).items() if not loss.startswith(term)},
    )  # fmt: skip
    found = changes(name, RECORDED[name])
    assert found and found == {loss: "is gone" for loss in RECORDED[name] if loss.startswith(term)}


def test_loss_term_without_weight(monkeypatch):
    monkeypatch.setattr(SetCriterion.__init__, "__defaults__", (12544, 2.0, 5.0, 0.0, 0.1, 0.1, None))
    found = changes("maskformer", RECORDED["maskformer"])
    dice = [loss for loss in RECORDED["maskformer"] if loss.startswith("loss_dice")]
    assert dice and found == dict.fromkeys(dice, "differs by 1.0e+00")
