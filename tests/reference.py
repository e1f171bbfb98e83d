"""What the reference implementation recorded: tests/fixtures/reference (its README says how), under our names.

`python -m tests.reference FOLDER` writes the fixtures from the whole recordings in FOLDER.
"""

import json
import lzma
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.fill import filled, filled_image

FIXTURES = Path(__file__).parent / "fixtures" / "reference"
MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])
WHOLE, EVERY = 4096, 3  # of outputs with more numbers than that, every third number is kept
METHODS = ("hcformer", "mask2former", "maskformer")
# Those whose last feature of the backbone, `res5`, is kept.
WITH_FEATURES = ("hcformer_swins", "maskformer_swins", "mask2former_r50")
WITH_INTERMEDIATE = ("mask2former_r50",)  # whose intermediate predictions, `aux.*`, are kept
SUFFIX = ".safetensors"


def reference_names(model: str) -> list[tuple[str, tuple[int, ...], bool]]:
    """Official name, shape, and whether `tests.fill` gives the value, of every entry of the model's state."""
    return [(name, tuple(shape), is_filled) for name, shape, _, _, is_filled in load_json(f"names/{model}")]


def reference_state(model: str, prefix: str = "") -> dict[str, Tensor]:
    """Float parameters and buffers of a reference model under their official names that start with prefix."""
    names = reference_names(model)
    return {name: filled(name, shape) for name, shape, is_filled in names if is_filled and name.startswith(prefix)}


def reference_outputs(model: str) -> dict[str, Tensor]:
    """What the reference returned (`pred_logits`, `pred_masks`, `assign.i`, ...), large ones as `sampled`."""
    return load_file(FIXTURES / f"{model}{SUFFIX}")


def load_json(name: str):
    """Content of NAME.json.xz."""
    return json.loads(lzma.decompress((FIXTURES / f"{name}.json.xz").read_bytes()))


def reference_image(hw: tuple[int, int] = (64, 96), name: str = "input.image") -> Tensor:
    """The fixtures' input [1, 3, H, W]: normalised, then zero padded right and bottom to multiples of 32."""
    image = (filled_image(name, (3, *hw)) - MEAN[:, None, None]) / STD[:, None, None]
    return F.pad(image, (0, -hw[1] % 32, 0, -hw[0] % 32))[None]


def strip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def sampled(values: Tensor) -> Tensor:
    """Every third number of a large tensor, as a vector; a small one as it is."""
    return values.flatten()[::EVERY].clone() if values.numel() > WHOLE else values


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """max |actual - expected| / max |expected|; where `expected` was sampled, so is `actual`."""
    actual = actual if actual.shape == expected.shape else sampled(actual)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def kept_outputs(folder: Path, model: str) -> dict[str, Tensor]:
    """What the fixtures keep of a model's recorded outputs."""
    recorded = load_file(folder / "outputs" / f"{model}{SUFFIX}")
    if model == "units":
        return recorded
    kept = ("pred_", "assign.")
    kept += ("res5",) if model in WITH_FEATURES or model.startswith("tiny_") else ()
    kept += ("aux.",) if model in WITH_INTERMEDIATE or model.startswith("tiny_") else ()
    return {name: sampled(values) for name, values in recorded.items() if name.startswith(kept)}


def is_ours(path: Path) -> bool:
    """Whether a recording is of a method that is built here, or of pieces of them."""
    return path.stem == "units" or path.stem.removeprefix("tiny_").removeprefix("losses_").startswith(METHODS)


def write(folder: Path) -> None:
    """The fixtures from the whole recordings."""
    (FIXTURES / "names").mkdir(parents=True, exist_ok=True)
    for path in (*folder.glob("names/*.json"), *folder.glob("outputs/losses_*.json")):
        if is_ours(path):
            target = FIXTURES / ("names" if path.parent.name == "names" else ".") / f"{path.name}.xz"
            target.write_bytes(lzma.compress(path.read_bytes(), preset=9))
    for path in folder.glob(f"outputs/*{SUFFIX}"):
        if is_ours(path):
            save_file(kept_outputs(folder, path.stem), FIXTURES / path.name)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
