"""Parameter groups and the learning-rate schedule of a recipe."""

import torch
from torch import nn

from bench.experiments.recipe import Recipe

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def build_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, with four groups at most: backbone or head, decayed or not.

    The modules that a model names in `backbone_modules` (default: "backbone") learn at backbone_multiplier times the
    rate: for HCFormer clustering and encoder too, as in the reference. The offsets of DCNv2 learn at
    offset_multiplier times the rate. Norms, embeddings and Swin's relative
    position biases are not decayed (Mask2Former's recipe); the scales of the clustering are.
    """
    parts = getattr(model, "backbone_modules", ("backbone",))
    free = _undecayed(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = recipe.learning_rate * _multiplier(name, parts, recipe)
        decay = 0.0 if id(parameter) in free else recipe.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    settings = [
        {"params": p, "lr": rate, "initial_lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()
    ]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(settings, momentum=recipe.momentum, foreach=True)
    return torch.optim.AdamW(settings, foreach=True)


def _multiplier(name: str, parts: tuple[str, ...], recipe: Recipe) -> float:
    if ".offset." in name:
        return recipe.offset_multiplier
    return recipe.backbone_multiplier if name.split(".")[0] in parts else 1.0


def _undecayed(model: nn.Module) -> set[int]:
    free = {id(p) for n, p in model.named_parameters() if n.endswith("relative_position_bias_table")}
    for module in model.modules():
        if isinstance(module, (*NORMS, nn.Embedding)):
            free |= {id(p) for p in module.parameters(recurse=False)}
    return free


def set_learning_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, iteration: int) -> None:
    """Set the rate of every group for a step, counted from 0: its initial one times `rate_factor`."""
    factor = rate_factor(recipe, iteration)
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor


def rate_factor(recipe: Recipe, iteration: int) -> float:
    """Linear warm-up, and then "step": the rate falls by step_factor at each of step_fractions of the iterations;
    or "poly": it is (1 - iteration / iterations) ** poly_power (appendix D)."""
    warmup = min(1.0, (iteration + 1) / max(1, recipe.warmup_iterations))
    if recipe.schedule == "poly":
        return (1 - iteration / recipe.iterations) ** recipe.poly_power * warmup
    passed = sum(iteration >= fraction * recipe.iterations for fraction in recipe.step_fractions)
    return recipe.step_factor**passed * warmup
