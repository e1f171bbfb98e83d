"""Whether the fast forms of clustering and decoding equal the definition on a device, forwards and backwards.

The definition is the reference form in float64, on the same (rounded) inputs. Errors are relative to the largest value.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.errors import one_line
from models.clustering import cluster, decode
from models.shifted import Compiled

# Largest relative error allowed, by the type of the maps: rounding of the result, and of the logits before exp.
LIMITS = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
DTYPES = tuple(LIMITS)
# batch, channels or queries, fine size: single pixels, one row, odd sizes, the paper's finest map. Few different
# numbers of channels: each costs a compilation.
SHAPES = (
    (1, 5, (1, 1)),
    (2, 5, (5, 1)),
    (2, 128, (7, 9)),
    (1, 128, (50, 84)),
    (2, 100, (25, 42)),
    (1, 128, (200, 336)),
)
COMPILED_SHAPES = SHAPES[2:4]  # each type costs seconds of compilation
SCALES = (0.1, -1.0)


def check_forms(
    device: str, forms: tuple[str, ...], progress: Callable[[int, int, str], None],
    keep: Callable[[dict], None] = lambda result: None,
) -> list[dict]:  # fmt: skip
    """One line a form, operation and type: the worst error over shapes, layouts and scales, and whether it passes.

    {"form", "operation", "dtype", "cases", "error", "limit", "passed", "said"}; error None: no number came out, or
    `said` tells what went wrong. keep: called with {"rows": the lines so far} after each.
    """
    lines = [(form, name, dtype) for form in forms for name in OPERATIONS for dtype in DTYPES]
    result = []
    for number, (form, name, dtype) in enumerate(lines):
        kind = str(dtype).removeprefix("torch.")
        progress(number, len(lines), f"{form} {name} {kind}")
        errors, said = _errors(form, name, dtype, device)
        worst = torch.tensor(errors or [math.nan]).max().item()  # nan if one of them is
        line = {"form": form, "operation": name, "dtype": kind, "cases": len(errors)}
        line |= {"error": worst if worst == worst else None, "limit": LIMITS[dtype]}
        result.append(line | {"passed": not said and worst <= LIMITS[dtype], "said": said})
        keep({"rows": result})
    return result


def _errors(form: str, name: str, dtype: torch.dtype, device: str) -> tuple[list[float], str]:
    errors: list[float] = []
    try:
        errors += OPERATIONS[name](form, dtype, device, COMPILED_SHAPES if form == "compiled" else SHAPES)
    except Exception as error:  # compilers raise many kinds; the other forms are to be checked all the same
        return errors, f"{type(error).__name__}: {one_line(error)[:300]}"
    fell_back = form == "compiled" and Compiled.works is False  # the reference form took over
    return errors, "it could not be compiled" if fell_back else ""


def _clustering(form: str, dtype: torch.dtype, device: str, shapes) -> Iterator[float]:
    for batch, channels, (height, width) in shapes:
        coarse_size = (height + 1) // 2, (width + 1) // 2
        for scale in SCALES:
            fine = _random((batch, channels, height, width), dtype, device, 1)
            coarse = _random((batch, channels, *coarse_size), dtype, device, 2)
            s = torch.tensor([scale], device=device)
            yield _error(lambda *x: cluster(*x, form), lambda *x: cluster(*x), (fine, coarse, s))


def _decoding(form: str, dtype: torch.dtype, device: str, shapes) -> Iterator[float]:
    for batch, queries, (height, width) in shapes:
        for last in (True, False):
            masks = _random((batch, queries, (height + 1) // 2, (width + 1) // 2), dtype, device, 3)
            assignment = _random((batch, 9, height, width), torch.float32, device, 4).softmax(1).to(dtype)
            if last:
                masks = masks.contiguous(memory_format=torch.channels_last)
            yield _error(lambda *x: decode(*x, form), lambda *x: decode(*x), (masks, assignment))


OPERATIONS = {"clustering": _clustering, "decoding": _decoding}


def _error(fast: Callable[..., Tensor], definition: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> float:
    """Largest relative error of the output and of all gradients; that of the scale is a sum which cancels."""
    outputs, gradients = [], []
    for function, kind in ((fast, None), (definition, torch.float64)):
        leaves = [x.detach().to(kind or x.dtype).requires_grad_() for x in inputs]
        output = function(*leaves)
        weights = _random(output.shape, torch.float32, output.device, 7).to(
            outputs[0].dtype if outputs else output.dtype
        )
        gradients.append(torch.autograd.grad(output, leaves, weights.to(output.dtype)))
        outputs.append(output.detach())
    errors = [_relative(*outputs)]
    for leaf, ours, true in zip(inputs, *gradients, strict=True):
        terms = gradients[1][0].numel() ** 0.5 if leaf.numel() == 1 else 0.0  # a sum over all pixels that cancels
        errors.append(_relative(ours, true, floor=terms))
    return max(errors, key=lambda error: (error != error, error))


def _relative(ours: Tensor, true: Tensor, floor: float = 0.0) -> float:
    largest = max(true.abs().max().item(), floor, 1e-6)
    return (ours.double() - true).abs().max().item() / largest


def _random(shape, dtype: torch.dtype, device, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
