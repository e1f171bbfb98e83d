"""How fast clustering, decoding, whole models and training steps are, side by side in one run, as ratios.

Everything of a group is timed in turns, so that slow phases of the machine hit all alike. The ratios are those of
medians; raw samples are kept.
"""

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.experiments.experiment import experiment
from bench.speed.listings import listing_1, listing_2
from bench.training.criterion import SetCriterion, Target
from bench.training.engine import MEMORY_FORMAT
from models.clustering import cluster, decode, fast_form, use_form
from models.folding import fold_batch_norms

METHODS = ("hcformer", "hcformer+", "maskformer", "mask2former")
FOLDED = ("hcformer", "maskformer")  # timed with their batch norms folded, too
IMAGE = (800, 1088)  # the commonest padded shape of COCO
PROBE = (64, 96)  # shows how a network is connected
TRAINING_CROP = 512
OBJECTS = 10
# Maps of the three clustering modules of R50 at the size of COCO: fine [H, W], with 128 channels and 100 masks.
SIZES = {"finest": (200, 336), "middle": (100, 168), "coarsest": (50, 84)}
CHANNELS, QUERIES = 128, 100
RATIOS = {  # name -> (numerator, denominator)
    "clustering_over_listing": ("clustering", "listing 1"),
    "decoding_over_listing": ("decoding", "listing 2"),
    "hcformer_over_maskformer": ("hcformer", "maskformer"),
    "hcformer_plus_over_maskformer": ("hcformer+", "maskformer"),
    "hcformer_over_mask2former": ("hcformer", "mask2former"),
    "hcformer_over_own_backbone": ("hcformer", "backbone of hcformer"),
    "hcformer_folded_over_hcformer": ("hcformer, folded", "hcformer"),
    "maskformer_folded_over_maskformer": ("maskformer, folded", "maskformer"),
    "train_step_hcformer_over_maskformer": ("train step hcformer", "train step maskformer"),
}
Functions = dict[str, Callable[[], object]]


def interleaved(
    functions: Functions, rounds: int, device: str, report: Callable[[str], None], settle: bool = False
) -> dict[str, list[float]]:
    """Milliseconds of each function, `rounds` samples each, taken in turns; one call of each before is not timed.

    settle: call each once more, untimed, right before it is timed. Functions of a few ms would otherwise be charged for
    the memory that their predecessor gave back to the system.
    """
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            if settle:
                function()
            start = _now(device)
            function()
            if round_:
                samples[name].append((_now(device) - start) * 1000)
            report(name)
    return samples


def timings(group: str, device: str, rounds: int, report: Callable[[int, str], None]) -> dict[str, list[float]]:
    """Samples in ms, by name, of one of GROUPS. report: called with the calls done, of `calls(group, rounds)`.

    rounds: of whole models and training steps; clustering and decoding take four times as many.
    """
    make, done = GROUPS[group][0], itertools.count(1)
    report(0, f"preparing {group}")
    settle = make is clustering_functions
    return interleaved(make(device), _rounds(group, rounds), device, lambda name: report(next(done), name), settle)


def calls(group: str, rounds: int) -> int:
    """How often `timings` calls something."""
    return GROUPS[group][1] * (_rounds(group, rounds) + 1)


def _rounds(group: str, rounds: int) -> int:
    return 4 * rounds if GROUPS[group][0] is clustering_functions else rounds


def ratios(samples: dict[str, list[float]]) -> dict[str, float]:
    """Median over median, by the names of RATIOS; smaller is faster."""
    return {
        name: statistics.median(samples[over]) / statistics.median(samples[under])
        for name, (over, under) in RATIOS.items()
    }


def clustering_functions(device: str, size: str = "finest") -> Functions:
    """The paper's listings, the reference form and the fast form, on the same maps in the layout that each likes."""
    fine, coarse, masks, scale = clustering_inputs(device, size)
    unit_fine, unit_coarse = (nn.functional.normalize(x, dim=1).contiguous() for x in (fine, coarse))
    assignment = cluster(fine, coarse, scale).contiguous()
    last = [x.contiguous(memory_format=torch.channels_last) for x in (fine, coarse, masks)]
    form = fast_form(device)
    functions = {
        "clustering": lambda: cluster(last[0], last[1], scale, form),
        "clustering, reference": lambda: cluster(last[0], last[1], scale),
        "listing 1": lambda: listing_1(unit_fine, unit_coarse, scale),
        "decoding": lambda: decode(last[2], assignment, form),
        "decoding, reference": lambda: decode(last[2], assignment),
        "listing 2": lambda: listing_2(masks, assignment),
    }
    return {name: torch.inference_mode()(function) for name, function in functions.items()}


def clustering_inputs(device: str, size: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """fine [1, 128, H, W], coarse [1, 128, H/2, W/2], masks [1, 100, H/2, W/2], scale."""
    height, width = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    shapes = (CHANNELS, height, width), (CHANNELS, height // 2, width // 2), (QUERIES, height // 2, width // 2)
    maps = [torch.randn(1, *shape, generator=generator).to(device) for shape in shapes]
    return *maps, torch.tensor([0.1], device=device)


def build(method: str, device: str) -> nn.Module:
    """R50 model for COCO panoptic at paper scale, random weights, channels last, fast clustering."""
    from bench.zoo import build_model

    model = build_model(experiment(method, "r50", "coco_panoptic", "paper")).to(device)
    return use_form(model.to(memory_format=MEMORY_FORMAT), fast_form(device))


def model_functions(device: str) -> Functions:
    """Forward passes in inference mode, batch 1: of METHODS, of HCFormer's backbone alone, and of FOLDED."""
    models = {method: build(method, device).eval() for method in METHODS}
    models["backbone of hcformer"] = models["hcformer"].backbone
    models |= {f"{method}, folded": fold_batch_norms(models[method], _images(PROBE, device)) for method in FOLDED}
    return {name: _pass(model, device) for name, model in models.items()}


def model_function(method: str, device: str) -> Callable[[], object]:
    """One forward pass of one model."""
    return _pass(build(method, device).eval(), device)


def _pass(model: nn.Module, device: str) -> Callable[[], object]:
    image = _images(IMAGE, device)
    return torch.inference_mode()(lambda: model(image))


def training_functions(device: str, mixed_precision: bool = False) -> Functions:
    """Training steps (forward, matching and losses, backward, AdamW) of batch 1 on one crop with ten objects.

    Each returns its loss. mixed_precision: the model runs in bfloat16 where autocast lets it.
    """
    image = _images((TRAINING_CROP, TRAINING_CROP), device)
    corners = torch.randint(TRAINING_CROP - 150, (OBJECTS, 2), generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(OBJECTS, TRAINING_CROP, TRAINING_CROP, dtype=torch.bool)
    for mask, (y, x) in zip(masks, corners.tolist(), strict=True):
        mask[y : y + 120, x : x + 150] = True
    targets = [Target(torch.arange(OBJECTS, device=device), masks.to(device))]
    criterion = SetCriterion(133, 12544).to(device)
    functions = {}
    for method in ("hcformer", "maskformer"):
        model = build(method, device).train()
        optimiser = torch.optim.AdamW(model.parameters(), 1e-4)
        functions[f"train step {method}"] = lambda model=model, optimiser=optimiser: _step(
            model, optimiser, criterion, image, targets, mixed_precision
        )
    return functions


GROUPS: dict[str, tuple[Callable[[str], Functions], int]] = {  # what makes the functions, and how many
    "clustering": (clustering_functions, 6),
    "networks": (model_functions, len(METHODS) + 1 + len(FOLDED)),
    "training steps": (training_functions, 2),
}


def _step(
    model: nn.Module, optimiser, criterion: SetCriterion, image: Tensor, targets: list[Target], mixed_precision: bool
) -> float:
    torch.manual_seed(0)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=mixed_precision):
        prediction = model(image)
    loss = torch.stack(list(criterion(prediction, targets).values())).sum()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.item()


def _images(size: tuple[int, int], device: str) -> Tensor:
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(device, memory_format=MEMORY_FORMAT)


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()
