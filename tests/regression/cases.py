"""Small models with weights from a formula, and what they returned when they agreed with the reference implementation
(per-pixel ones: with torchvision's and transformers' heads).

A guard against changes of the function that needs neither data nor ../shared (tests/parity.py is the comparison with
the reference itself). `python -m tests.regression.cases` writes the numbers anew: only after `tests/test_parity.py`
has passed.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.fpn import fpn
from baselines.mask2former import mask2former
from baselines.maskformer import maskformer
from baselines.per_pixel import deeplabv3, pspnet
from bench.training.criterion import SetCriterion, Target
from bench.training.pixel_criterion import PixelCriterion
from models.backbones.resnet import ResNet
from models.backbones.swin import Swin
from models.deformable import DeformableDownsampling
from models.hcformer import hcformer
from models.outputs import PixelPrediction
from models.per_pixel import hc_deeplabv3, hc_fcn_32s, hc_pspnet

EXPECTED = Path(__file__).with_suffix(".json")
# Of an output's largest value, of a loss's own. Weights changed by 3e-7 of themselves, more than rounding differs
# between processors, move the cases by less than 2e-4; this one by 2e-3, since its attention masks are thresholds.
TOLERANCE, TOLERANCES = 5e-4, {"mask2former, swin": 1e-2}
SEED = 3  # of the losses' random points: with these no matching is so close that rounding decides it
KEPT = 12  # numbers of each output that the file holds
SIZES = {"decoder_layers": 2, "num_queries": 6, "channels": 32, "heads": 4, "hidden": 48}
TINY_SWIN = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 4}
ASPP = {"atrous_rates": (1, 2, 3), "channels": 16}
Outputs = dict[str, list[float]]  # by output; a loss is an output of one number


def _hcformer(level: int, deformable: bool, decoder: str = "masked", encoder_layers: int = 0) -> nn.Module:
    backbone = ResNet((1, 1, 1, 1), width=8, deformable_level=level if deformable else 0)
    factors = {"hierarchical_level": level, "transformer_decoder": decoder, "encoder_layers": encoder_layers}
    return hcformer(5, backbone, **factors, **SIZES, dropout=0.0)


def tiny_hcformer(level: int = 3) -> nn.Module:
    backbone = Swin(**TINY_SWIN, drop_path_rate=0.0, out_norms=(3,))
    return hcformer(5, backbone, level, decoder_layers=2, num_queries=10, channels=32, heads=4, hidden=64)


def tiny_maskformer() -> nn.Module:
    backbone = Swin(**TINY_SWIN, drop_path_rate=0.0)
    return maskformer(5, backbone, decoder_layers=3, num_queries=10, channels=32, heads=4, hidden=64, dropout=0.0)


def tiny_mask2former(drop_path_rate: float = 0.0) -> nn.Module:
    sizes = {"decoder_layers": 2, "encoder_layers": 1, "hidden_dim": 32, "num_heads": 4, "decoder_feedforward": 64}
    return mask2former(5, Swin(**TINY_SWIN, drop_path_rate=drop_path_rate), 10, **sizes)


def _dilated() -> nn.Module:
    return ResNet((1, 1, 1, 1), width=8, dilated_stages=2)


def _deformable() -> nn.Module:
    return ResNet((1, 1, 1, 1), width=8, deformable_level=3)


CASES: dict[str, Callable[[], nn.Module]] = {
    "deformable downsampling": lambda: DeformableDownsampling(nn.Conv2d(3, 8, 3, stride=2, padding=1)),
    **{f"hcformer, level {n}": lambda n=n: _hcformer(n, deformable=True) for n in range(4)},
    "hcformer, convolution": lambda: _hcformer(3, deformable=False),
    "hcformer, standard decoder": lambda: _hcformer(3, deformable=True, decoder="standard"),
    "hcformer+": lambda: _hcformer(3, deformable=True, encoder_layers=2),
    "hcformer, swin": tiny_hcformer,
    "maskformer": lambda: maskformer(5, ResNet((1, 1, 1, 1), width=8), encoder_layers=2, **SIZES, dropout=0.0),
    "maskformer, swin": tiny_maskformer,
    "mask2former": lambda: mask2former(5, ResNet((1, 1, 1, 1), width=8), 6, 2, 2, 32, 4, 48, 48),
    "mask2former, swin": tiny_mask2former,
    "fpn": lambda: fpn(5, ResNet((1, 1, 1, 1), width=8), auxiliary=True, channels=32),
    "pspnet": lambda: pspnet(5, _dilated()),
    "deeplabv3": lambda: deeplabv3(5, _dilated(), **ASPP),
    "hc_fcn_32s": lambda: hc_fcn_32s(5, _deformable(), auxiliary=True),
    "hc_pspnet": lambda: hc_pspnet(5, _deformable()),
    "hc_deeplabv3": lambda: hc_deeplabv3(5, _deformable(), **ASPP),
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


def image() -> Tensor:
    """[1, 3, 96, 128]: waves on 70x100 pixels, which is no multiple of 32, padded."""
    rows, columns = torch.arange(70.0)[:, None], torch.arange(100.0)
    waves = torch.stack([torch.sin(rows / 5 + i) * torch.cos(columns / (7 + i)) for i in range(3)])[None]
    return nn.functional.pad(waves, (0, 28, 0, 26))


def measure(name: str) -> Outputs:
    """Some numbers of every output of one case, and each of its losses."""
    model = filled(CASES[name]())
    with torch.inference_mode():
        prediction = model.eval()(image())
    if isinstance(prediction, Tensor):  # of a layer
        return {"output": _some(prediction)}
    if isinstance(prediction, PixelPrediction):
        return _of_pixels(model, prediction)
    measured = {"class_logits": _some(prediction.class_logits), "mask_logits": _some(prediction.mask_logits)}
    measured |= {f"assignment {i}": _some(a) for i, a in enumerate(prediction.assignments)}
    rows, columns = torch.arange(70)[:, None], torch.arange(100)
    masks = torch.stack((rows < 30 + 0 * columns, columns > 50 + 0 * rows))
    target = Target(torch.tensor([1, 3]), nn.functional.pad(masks, (0, 28, 0, 26)))
    torch.manual_seed(SEED)
    losses = SetCriterion(5, 64)(model.train()(image()), [target])
    return measured | {name: [losses[name].item()] for name in sorted(losses)}


def _of_pixels(model: nn.Module, prediction: PixelPrediction) -> Outputs:
    """Losses in training where there is an auxiliary head; else as tested: one image is too few for pooled norms."""
    measured = {"logits": _some(prediction.logits)}
    measured |= {f"assignment {i}": _some(a) for i, a in enumerate(prediction.assignments)}
    columns = torch.arange(100).expand(70, 100)
    target = Target(torch.tensor([1, 3]), nn.functional.pad(torch.stack((columns < 40, columns > 50)), (0, 28, 0, 26)))
    torch.manual_seed(SEED)
    losses = PixelCriterion()(model.train(model.auxiliary_head is not None)(image()), [target])
    return measured | {name: [losses[name].item()] for name in sorted(losses)}


def expected() -> dict[str, Outputs]:
    """What `measure` gave, by case."""
    return json.loads(EXPECTED.read_text(encoding="utf-8"))


def changes(name: str, recorded: Outputs) -> dict[str, str]:
    """Output -> what is another than recorded, for people; empty where the case has not changed."""
    measured = measure(name)
    tolerance = TOLERANCES.get(name, TOLERANCE)
    found = {output: "is gone" for output in recorded.keys() - measured.keys()}
    found |= {output: "is new" for output in measured.keys() - recorded.keys()}
    for output in recorded.keys() & measured.keys():
        values, wanted = torch.tensor(measured[output]), torch.tensor(recorded[output])
        if values.shape != wanted.shape:
            found[output] = "has another size"
        elif not (error := ((values - wanted).abs().max() / wanted.abs().max()).item()) <= tolerance:
            found[output] = f"differs by {error:.1e}"
    return found


def _some(values: Tensor) -> list[float]:
    """Evenly spaced values and, last, the largest absolute one."""
    flat = values.flatten()
    return [*flat[:: max(1, flat.numel() // KEPT)][:KEPT].tolist(), flat.abs().max().item()]


if __name__ == "__main__":
    text = json.dumps({name: measure(name) for name in CASES}, indent=1)
    EXPECTED.write_text(text + "\n", encoding="utf-8")
