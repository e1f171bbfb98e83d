"""Batch norms folded into the convolutions before them: the same function in evaluation, with fewer passes over maps.

A batch norm with fixed statistics multiplies and shifts each channel, which the weights and bias of a convolution can
do as well. Counts of FLOPs are those of the model as it was (bench/measure/complexity), since the paper's are.
"""

from collections import Counter
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from models.deformable import DeformableDownsampling


def fold_batch_norms(model: nn.Module, image: Tensor) -> nn.Module:
    """A copy of `model`, in evaluation mode, whose batch norms are part of its convolutions wherever that is certain.

    image [B, 3, H, W], small: one pass shows which convolution's output a batch norm takes. A pair is folded if each is
    called once and no other operator, nor whoever has the result, sees the output between them; all else stays.
    The model itself is returned where nothing can be folded, e.g. Swin. The activation of timm's norms is kept.
    Raises ValueError for a model of which any part is in training mode.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("batch norms of a model in training mode cannot be folded: call its eval() first")
    pairs = _pairs(model, image)
    if not pairs:
        return model
    model = deepcopy(model)
    for convolution, norm in pairs:
        _fold(model.get_submodule(convolution), model.get_submodule(norm))
        parent, _, name = norm.rpartition(".")
        setattr(model.get_submodule(parent), name, _after(model.get_submodule(norm)))
    return model


def _pairs(model: nn.Module, image: Tensor) -> list[tuple[str, str]]:
    """Names of the convolutions and batch norms that can be folded."""
    convolutions = {name: module for name, module in model.named_modules() if _is_convolution(module)}
    norms = {name: module for name, module in model.named_modules() if _is_batch_norm(module)}
    if not convolutions or not norms:
        return []
    probe = _Probe()
    handles = [module.register_forward_hook(probe.after(name)) for name, module in convolutions.items()]
    handles += [module.register_forward_pre_hook(probe.before(name)) for name, module in norms.items()]
    # Compiled and Triton functions do not show what they read.
    forms = [(module, module.form) for module in model.modules() if hasattr(module, "form")]
    try:
        for module, _ in forms:
            module.form = "reference"
        with torch.inference_mode(False), torch.no_grad(), probe:
            result = model(image)
    finally:
        for module, form in forms:
            module.form = form
        for handle in handles:
            handle.remove()
    kept = set(probe.outputs.values())  # alive: the result holds them
    del result
    return [
        (convolution, norm)
        for norm, convolution in probe.inputs.items()
        if convolution not in kept and probe.calls[convolution] == probe.calls[norm] == probe.uses[convolution] == 1
    ]


class _Probe(TorchDispatchMode):
    """calls: of each module, by name. uses: how many operators take a convolution's output, by its name. outputs:
    tensors that are alive -> the convolution that made them. inputs: batch norm -> the convolution before it."""

    def __init__(self):
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.uses: Counter[str] = Counter()
        self.outputs = WeakTensorKeyDictionary()
        self.inputs: dict[str, str] = {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        taken = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x in self.outputs]
        self.uses.update(self.outputs[x] for x in taken)
        return operator(*args, **(kwargs or {}))

    def after(self, name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.calls[name] += 1
            self.outputs[output] = name

        return hook

    def before(self, name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.calls[name] += 1
            if inputs and inputs[0] in self.outputs:
                self.inputs[name] = self.outputs[inputs[0]]

        return hook


def _is_convolution(module: nn.Module) -> bool:
    """Subclasses may change the weight (weight standardisation, parametrisations), and hooks the output."""
    known = type(module) is DeformableDownsampling or type(module) is nn.Conv2d and "weight" in module._parameters
    return known and not _is_hooked(module)


def _is_batch_norm(module: nn.Module) -> bool:
    """With fixed statistics: torch's and timm's, and the frozen ones of torchvision, timm and ours by name, since
    they have nothing else in common."""
    known = isinstance(module, nn.modules.batchnorm._BatchNorm) or "FrozenBatchNorm" in type(module).__name__
    return known and getattr(module, "running_var", None) is not None and not _is_hooked(module)


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


@torch.no_grad()
def _fold(module: nn.Module, norm: nn.Module) -> None:
    """norm(w x + b) = (s w) x + (s (b - mean) + shift), with s = scale / sqrt(variance + eps), a value a channel."""
    convolution = module.deform if isinstance(module, DeformableDownsampling) else module
    weight = convolution.weight  # [C', C / groups, k, k]
    scale = (norm.running_var.double() + norm.eps).rsqrt()  # [C']
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double() if convolution.bias is None else convolution.bias.double() - norm.running_mean
    bias = scale * bias
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    scaled = weight * scale.to(weight.dtype)[:, None, None, None]  # keeps the memory format
    convolution.weight = nn.Parameter(scaled, requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)


def _after(norm: nn.Module) -> nn.Module:
    """What is left of a batch norm: in timm's, dropout and activation."""
    parts = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)
