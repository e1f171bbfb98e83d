"""Small models with weights from a formula, and what they returned when they agreed with the reference implementation.

A guard against changes of the function for checkouts without ../shared (tests/parity.py is the comparison itself).
`python -m tests.regression` writes `regression.json` anew: only after `tests/test_parity.py` has passed.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.mask2former import mask2former
from baselines.maskformer import maskformer
from bench.training.criterion import SetCriterion, Target
from models.backbones.resnet import ResNet
from models.hcformer import hcformer
from tests.parity import tiny_hcformer, tiny_mask2former, tiny_maskformer

EXPECTED = Path(__file__).with_name("regression.json")
KEPT = 12  # numbers of each output that the file holds
SIZES = {"decoder_layers": 2, "num_queries": 6, "channels": 32, "heads": 4, "hidden": 48}


def _hcformer(level: int, deformable: bool, decoder: str = "masked", encoder_layers: int = 0) -> nn.Module:
    backbone = ResNet((1, 1, 1, 1), width=8, deformable_level=level if deformable else 0)
    factors = {"hierarchical_level": level, "transformer_decoder": decoder, "encoder_layers": encoder_layers}
    return hcformer(5, backbone, **factors, **SIZES, dropout=0.0)


CASES: dict[str, Callable[[], nn.Module]] = {
    **{f"hcformer, level {n}": lambda n=n: _hcformer(n, deformable=True) for n in range(4)},
    "hcformer, convolution": lambda: _hcformer(3, deformable=False),
    "hcformer, standard decoder": lambda: _hcformer(3, deformable=True, decoder="standard"),
    "hcformer+": lambda: _hcformer(3, deformable=True, encoder_layers=2),
    "hcformer, swin": tiny_hcformer,
    "maskformer": lambda: maskformer(5, ResNet((1, 1, 1, 1), width=8), encoder_layers=2, **SIZES, dropout=0.0),
    "maskformer, swin": tiny_maskformer,
    "mask2former": lambda: mask2former(5, ResNet((1, 1, 1, 1), width=8), 6, 2, 2, 32, 4, 48, 48),
    "mask2former, swin": tiny_mask2former,
}


@torch.no_grad()
def filled(model: nn.Module) -> nn.Module:
    """Every parameter and statistic from its name and position, the same on every machine."""
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        angles = torch.arange(value.numel(), dtype=torch.float64) * 0.7 + zlib.crc32(name.encode()) % 1000
        wave = angles.sin().reshape(value.shape)
        fan_in = value[0].numel() if value.ndim > 1 else 4
        centre = 1.0 if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")) else 0.0
        scale = 0.1 if name.endswith(".scale") else (0.2 if value.ndim < 2 else 2.0 * fan_in**-0.5)
        value.copy_(centre + scale * wave)
    return model


def measure(name: str) -> dict[str, list[float]]:
    """Some numbers of every output, and the losses, of one case; an image size that is no multiple of 32."""
    model = filled(CASES[name]())
    rows, columns = torch.arange(70.0)[:, None], torch.arange(100.0)
    image = torch.stack([torch.sin(rows / 5 + i) * torch.cos(columns / (7 + i)) for i in range(3)])[None]
    image = nn.functional.pad(image, (0, 28, 0, 26))
    with torch.inference_mode():
        prediction = model.eval()(image)
    measured = {"class_logits": _some(prediction.class_logits), "mask_logits": _some(prediction.mask_logits)}
    measured |= {f"assignment {i}": _some(a) for i, a in enumerate(prediction.assignments)}
    masks = torch.stack((rows < 30 + 0 * columns, columns > 50 + 0 * rows))
    torch.manual_seed(0)
    losses = SetCriterion(5, 64)(
        model.train()(image), [Target(torch.tensor([1, 3]), nn.functional.pad(masks, (0, 28, 0, 26)))]
    )
    return measured | {"losses": [losses[key].item() for key in sorted(losses)]}


def _some(values: Tensor) -> list[float]:
    """Evenly spaced values and, last, the largest absolute one."""
    flat = values.flatten()
    return [*flat[:: max(1, flat.numel() // KEPT)][:KEPT].tolist(), flat.abs().max().item()]


if __name__ == "__main__":
    text = json.dumps({name: measure(name) for name in CASES}, indent=1)
    EXPECTED.write_text(text + "\n", encoding="utf-8")
