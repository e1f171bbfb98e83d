"""The training losses and gradients against what the reference implementation returned for a fixed target."""

import json

import pytest
import torch
import torch.nn.functional as F

from bench.training.criterion import SetCriterion, Target
from models.backbones.resnet import resnet
from models.hcformer import hcformer
from tests.reference import MEAN, STD, _fill_module, reference_state, rename
from tests.reference_names import HCFORMER


def image(shared, name, hw):
    pixels = torch.as_tensor(_fill_module(shared).fill_image(name, (3, *hw)))
    return F.pad((pixels - MEAN[:, None, None]) / STD[:, None, None], (0, -hw[1] % 32, 0, -hw[0] % 32))


def target(height, width, count):
    """The fixture's rule: a rectangle of class 3 and a disc of class 77."""
    rows, cols = torch.arange(height)[:, None], torch.arange(width)[None]
    rectangle = (rows >= height // 8) & (rows < height // 2) & (cols >= width // 6) & (cols < width // 2)
    disc = (rows - 0.6 * height) ** 2 + (cols - 0.7 * width) ** 2 < (0.3 * height) ** 2
    return Target(torch.tensor([3, 77])[-count:], torch.stack((rectangle, disc))[-count:])


def official_loss_names(losses):
    for name, value in losses.items():
        name = name.replace("loss_class", "loss_ce").replace("loss_scale", "loss_l1")
        yield name, value.item()


@pytest.mark.parametrize("case", [0, 1, 2])
def test_hcformer_losses_and_gradients(shared, case):
    fixture = json.loads((shared / "reference" / "outputs" / "losses_hcformer_r50.json").read_text())
    hw, case = fixture["hw"], fixture["cases"][case]
    model = hcformer(133, resnet(50, 3)).train()
    state = reference_state(shared, "hcformer_r50")
    model.load_state_dict(rename(state, HCFORMER))
    images = torch.stack([image(shared, name, hw) for name in case["images"]])
    targets = [target(*hw, count) for count in case["masks_per_image"]]
    torch.manual_seed(case["manual_seed"])
    losses = SetCriterion(133, case["num_points"])(model(images), targets)
    assert dict(official_loss_names(losses)) == pytest.approx(case["losses"], rel=1e-4)
    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    ours = {name: next(iter(rename({name: torch.empty(0)}, HCFORMER))) for name in case["grad_norm"]}
    for name, expected in case["grad_norm"].items():
        norm = parameters[ours[name]].grad.norm().item()
        assert norm == pytest.approx(expected, rel=1e-3, abs=1e-6), name
