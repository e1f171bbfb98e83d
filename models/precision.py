"""What is computed in float32 also where training or inference is of mixed precision (`torch.autocast`)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """The tensor in float32, unless it is float64: what half precision is computed in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with autocast off and its positional tensors, also those in tuples, made `wide`.

    So are HCFormer's clustering (eq. 3) and the pixel decoder of Mask2Former, whose released
    `MSDeformAttnPixelDecoder.forward_features` runs with autocast off on features cast to float32. MaskFormer's pixel
    decoders, with and without transformer encoder, have no such rule in its released code and follow autocast; so
    does HCFormer+'s encoder, of the same layers, for which no other rule is known.
    """

    @wraps(function)
    @torch.autocast("cuda", enabled=False)
    @torch.autocast("cpu", enabled=False)
    def wrapped(*arguments: Any) -> Any:
        return function(*map(_widened, arguments))

    return wrapped


def _widened(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return tuple(map(_widened, argument))
    return wide(argument) if isinstance(argument, Tensor) else argument
