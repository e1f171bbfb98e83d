"""Whole models against what the reference implementation returned. `python -m tests.parity` prints a table."""

import math
from collections.abc import Callable

import torch
from tabulate import tabulate
from torch import nn

from baselines.mask2former import mask2former
from baselines.maskformer import maskformer
from bench.training.criterion import SetCriterion, Target
from models.backbones.resnet import resnet
from models.backbones.swin import swin
from models.hcformer import hcformer
from tests.reference import load_json, reference_image, reference_outputs, reference_state, relative_error
from tests.regression.cases import tiny_hcformer, tiny_mask2former, tiny_maskformer
from tests.weights.checkpoints import PUBLISHED

CASES: dict[str, Callable[[], nn.Module]] = {
    "hcformer_r50": lambda: hcformer(133, resnet(50, 3)),
    "hcformer_r50_level2": lambda: hcformer(133, resnet(50, 2), hierarchical_level=2),
    "hcformer_r50_mfdec": lambda: hcformer(133, resnet(50, 3), transformer_decoder="standard", decoder_layers=9),
    "hcformer_plus_r50": lambda: hcformer(133, resnet(50, 3), encoder_layers=6),
    "hcformer_swins": lambda: hcformer(133, swin("swin_s", out_norms=(3,))),
    "tiny_hcformer_swin": tiny_hcformer,
    "maskformer_r50": lambda: maskformer(133, resnet(50), encoder_layers=6),
    "maskformer_swins": lambda: maskformer(133, swin("swin_s")),
    "tiny_maskformer_swin": tiny_maskformer,
    "mask2former_r50": lambda: mask2former(133, resnet(50)),
    "tiny_mask2former_swin": tiny_mask2former,
}
LOSS_CASES = {"hcformer_r50": 3, "mask2former_r50": 3}  # fixtures with losses, and how many targets each has
LOSS_NAMES = {"loss_class": "loss_ce", "loss_scale": "loss_l1"}


def load_reference(name: str) -> nn.Module:
    """The case's model with the reference's weights, every entry of either side used."""
    model = CASES[name]()
    method = next(method for method in ("hcformer", "mask2former", "maskformer") if method in name)
    model.load_state_dict(PUBLISHED[method].to_ours(reference_state(name)))
    return model


@torch.inference_mode()
def output_errors(name: str) -> dict[str, float]:
    """Largest error of class logits, mask logits and assignments, relative to their largest absolute value."""
    model, expected = load_reference(name).eval(), reference_outputs(name)
    prediction = model(reference_image())
    count = sum(key.startswith("assign.") for key in expected)
    assert len(prediction.assignments) == count and prediction.intermediate == ()
    assignments = (relative_error(a, expected[f"assign.{i}"]) for i, a in enumerate(prediction.assignments))
    return {
        "assignments": max(assignments, default=math.nan),
        "class logits": relative_error(prediction.class_logits, expected["pred_logits"]),
        "mask logits": relative_error(prediction.mask_logits, expected["pred_masks"]),
    }


def loss_errors(name: str, case: int) -> dict[str, float]:
    """Largest relative error of the single losses, of single gradient norms, and of the whole gradient's norm."""
    fixture = load_json(f"losses_{name}")
    hw, case = fixture["hw"], fixture["cases"][case]
    model = load_reference(name).train()
    images = torch.cat([reference_image(hw, key) for key in case["images"]])
    targets = [_target(*hw, count) for count in case["masks_per_image"]]
    torch.manual_seed(case["manual_seed"])
    losses = SetCriterion(133, case["num_points"])(model(images), targets)
    torch.stack(list(losses.values())).sum().backward()

    official = {_official_loss(key): value.item() for key, value in losses.items()}
    gradients = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    rename = PUBLISHED[name.removesuffix("_r50")].to_ours
    ours = {theirs: list(rename({theirs: torch.zeros(3)})) for theirs in case["grad_norm"]}
    assert sorted(sum(ours.values(), [])) == sorted(gradients), "the norms do not cover every trained parameter"
    norms = {theirs: torch.stack([gradients[n].norm() for n in parts]).norm().item() for theirs, parts in ours.items()}
    # Signed gradients of the scales, which are single numbers.
    scales = {theirs: gradients[ours[theirs][0]].item() for theirs in case["temp_grad"]}
    signed = {theirs: value[0] if isinstance(value, list) else value for theirs, value in case["temp_grad"].items()}
    return {
        "losses": _largest(official, case["losses"]),
        "single gradient norms": max(_largest(norms, case["grad_norm"]), _largest(scales, signed)),
        "gradient norm": abs(math.hypot(*norms.values()) / math.hypot(*case["grad_norm"].values()) - 1),
    }


def _largest(actual: dict[str, float], expected: dict[str, float]) -> float:
    """Largest relative error; what is below 1e-3 (gradients that vanish) counts absolutely, in thousandths."""
    assert actual.keys() == expected.keys()
    return max((abs(actual[k] - v) / max(abs(v), 1e-3) for k, v in expected.items()), default=math.nan)


def _target(height: int, width: int, count: int) -> Target:
    """The fixture's rule: a rectangle of class 3 and a disc of class 77; of one mask, the disc."""
    rows, cols = torch.arange(height)[:, None], torch.arange(width)[None]
    rectangle = (rows >= height // 8) & (rows < height // 2) & (cols >= width // 6) & (cols < width // 2)
    disc = (rows - 0.6 * height) ** 2 + (cols - 0.7 * width) ** 2 < (0.3 * height) ** 2
    return Target(torch.tensor([3, 77])[-count:], torch.stack((rectangle, disc))[-count:])


def _official_loss(name: str) -> str:
    for ours, theirs in LOSS_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def table() -> str:
    """One line a fixture: its largest relative errors."""
    rows = []
    for name in CASES:
        row = output_errors(name)
        cases = [loss_errors(name, case) for case in range(LOSS_CASES.get(name, 0))]
        row |= {key: max(case[key] for case in cases) for key in (cases[0] if cases else ())}
        rows.append({"fixture": name} | {key: "" if math.isnan(v) else f"{v:.1e}" for key, v in row.items()})
    return tabulate(rows, headers="keys", tablefmt="github", missingval="", disable_numparse=True)


if __name__ == "__main__":
    print(table())
