"""Every fixture of the reference implementation: outputs, losses and gradients of whole models (see tests.parity)."""

import importlib.util
import json
import math

import pytest
import torch

from tests.parity import CASES, LOSS_CASES, loss_errors, output_errors
from tests.reference import is_ours, kept_outputs, load_json, reference_outputs, reference_state

# Against the same computation in float64, single gradients of the reference itself are off by up to 2.7e-4 (HCFormer)
# and 4.5e-4 (Mask2Former): no tolerance below that can hold on every machine. All of them together agree to 1e-5.
SINGLE_GRADIENTS = {"hcformer_r50": 5e-4, "mask2former_r50": 1e-3}


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_the_reference(name):
    errors = output_errors(name)
    assert math.isnan(errors["assignments"]) != ("hcformer" in name)
    assert all(error < 1e-4 for error in errors.values() if not math.isnan(error)), errors


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, count in LOSS_CASES.items() for case in range(count)]
)
def test_losses_and_gradients_equal_the_reference(name, case):
    errors = loss_errors(name, case)
    assert errors["losses"] < 1e-4
    assert errors["gradient norm"] < 1e-4
    assert errors["single gradient norms"] < SINGLE_GRADIENTS[name]


def test_fixtures_are_the_whole_recordings(shared):
    """Kept numbers, names, and the formula of the weights."""
    folder = shared / "reference"
    spec = importlib.util.spec_from_file_location("recorded_fill", folder / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    for path in filter(is_ours, folder.glob("outputs/*.safetensors")):
        kept, ours = kept_outputs(folder, path.stem), reference_outputs(path.stem)
        assert kept.keys() == ours.keys() and all(torch.equal(kept[name], ours[name]) for name in kept)
    for path in filter(is_ours, folder.glob("names/*.json")):
        assert json.loads(path.read_text()) == load_json(f"names/{path.stem}")
    for path in filter(is_ours, folder.glob("outputs/losses_*.json")):
        assert json.loads(path.read_text()) == load_json(path.stem)
    for name, value in {**reference_state("tiny_hcformer_swin"), **reference_state("tiny_mask2former_swin")}.items():
        assert torch.equal(value, torch.as_tensor(fill.fill(name, tuple(value.shape)))), name
