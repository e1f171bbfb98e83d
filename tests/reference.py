"""The reference fixtures of ../shared/reference: their weights under our names, their input, their outputs."""

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])


@cache
def fill_module(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_fill", shared / "reference" / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference_state(shared: Path, model: str, seed: int = 0, prefix: str = "") -> dict[str, Tensor]:
    """Float parameters and buffers of a reference model under their official names that start with prefix.

    `tiny_*` models carry their weights in the fixture file; all others get theirs from `fill.py`.
    """
    if model.startswith("tiny_"):
        tensors = reference_outputs(shared, model, states=True)
        named = ((name.removeprefix("state."), value) for name, value in tensors.items())
        return {
            name: value
            for name, value in named
            if name.startswith(prefix) and value.is_floating_point() and name != "criterion.empty_weight"
        }
    entries = json.loads((shared / "reference" / "names" / f"{model}.json").read_text())
    fill = fill_module(shared).fill
    return {
        name: torch.as_tensor(fill(name, tuple(shape), seed))
        for name, shape, _, _, filled in entries
        if filled and name.startswith(prefix)
    }


def reference_outputs(shared: Path, model: str, states: bool = False) -> dict[str, Tensor]:
    """What the reference returned (`pred_logits`, `pred_masks`, `res5`, `assign.i`, ...), or its `state.*`."""
    tensors = load_file(shared / "reference" / "outputs" / f"{model}.safetensors")
    return {name: value for name, value in tensors.items() if name.startswith("state.") == states}


def reference_image(shared: Path, hw: tuple[int, int] = (64, 96), seed: int = 0) -> Tensor:
    """The fixtures' input [1, 3, H, W]: normalised, then zero padded right and bottom to multiples of 32."""
    image = torch.as_tensor(fill_module(shared).fill_image("input.image", (3, *hw), seed))
    image = (image - MEAN[:, None, None]) / STD[:, None, None]
    return F.pad(image, (0, -hw[1] % 32, 0, -hw[0] % 32))[None]


def strip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """max |actual - expected| / max |expected|."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return ((actual - expected).abs().max() / expected.abs().max()).item()
