"""The fast form of clustering and decoding: nine shifted products over channels-last maps, compiled to one loop each.

`torch.compile` turns each function below into a kernel that reads its inputs and writes its output about once, so that
memory bounds it. Sizes stay symbolic: one compilation serves all image sizes (one for batches, one for single images;
training and inference are apart). Where there is no compiler, the reference form of `models/clustering.py` takes over.
"""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.precision import wide

NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
NORM_EPSILON = 1e-12
SCALE_EPSILON = 1e-8


class Compiled:
    """A function that is compiled at its first call; None instead of its result where no compiler works."""

    works: bool | None = None  # for all functions; unknown before the first call

    def __init__(self, function: Callable[..., Tensor]):
        self._function = function
        self._compiled: Callable[..., Tensor] | None = None

    def __call__(self, *tensors: Tensor) -> Tensor | None:
        if Compiled.works is False:
            return None
        try:
            if self._compiled is None:
                self._compiled = torch.compile(self._function, dynamic=True)
            with torch.fx.experimental._config.patch(use_duck_shape=False):  # equal sizes are a coincidence
                result = self._compiled(*tensors)
        except Exception as error:  # dynamo and inductor raise many kinds; once it has worked, a failure is a real one
            if Compiled.works:
                raise
            Compiled.works = False
            reason = next(iter(str(error).strip().splitlines()), "")
            warnings.warn(f"clustering runs uncompiled ({type(error).__name__}: {reason})", stacklevel=4)
            return None
        Compiled.works = True
        return result


def cluster(fine: Tensor, coarse: Tensor, scale: Tensor) -> Tensor | None:
    """`models.clustering.cluster`, compiled. None without a compiler."""
    height, width = fine.shape[-2:]
    rows, cols = coarse.shape[-2:]
    clusters = _COMPILED_CLUSTERS(coarse.permute(0, 2, 3, 1).contiguous())
    if clusters is None:
        return None
    windows = _even(fine).permute(0, 2, 3, 1).contiguous().unflatten(2, (cols, 2)).unflatten(1, (rows, 2))
    outside_y, outside_x = (_outside(n, axis, fine.device) for axis, n in enumerate((rows, cols)))
    assignment = _COMPILED_ASSIGN(windows, clusters, scale, outside_y[:, :, None], outside_x[:, None])
    return None if assignment is None else assignment[..., :height, :width]


def decode(masks: Tensor, assignment: Tensor) -> Tensor | None:
    """`models.clustering.decode`, compiled; the result lies channels last in memory. None without a compiler."""
    height, width = assignment.shape[-2:]
    rows, cols = masks.shape[-2:]
    padded = F.pad(masks.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    windows = _even(assignment).contiguous().unflatten(3, (cols, 2)).unflatten(2, (rows, 2))
    decoded = _COMPILED_DECODE(padded, windows)
    if decoded is None:
        return None
    return decoded.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)[..., :height, :width]


def _clusters(coarse: Tensor) -> Tensor:
    """Unit vectors of the clusters [B, h, w, C], with a ring of zeros: [B, h+2, w+2, C], at least float32."""
    coarse = wide(coarse)
    return F.pad(coarse / _norm(coarse.square().sum(-1, keepdim=True)), (0, 0, 1, 1, 1, 1))


def _assign(windows: Tensor, clusters: Tensor, scale: Tensor, outside_y: Tensor, outside_x: Tensor) -> Tensor:
    """windows [B, h, 2, w, 2, C], outside_y [9, 2h, 1], outside_x [9, 1, 2w] (0 or -inf) -> [B, 9, 2h, 2w]."""
    fine = wide(windows)
    products = [(fine * shifted).sum(-1) for shifted in _shifts(clusters, fine)]
    squares = fine.square().sum(-1)
    sums = torch.stack([*products, squares], 1).flatten(4, 5).flatten(2, 3)  # all ten in one pass over the pixels
    temperature = scale.abs() + SCALE_EPSILON
    logits = sums[:, :9] / (_norm(sums[:, 9:]) * temperature) + outside_y + outside_x
    return logits.softmax(1).to(windows.dtype)


def _decode(padded: Tensor, assignment: Tensor) -> Tensor:
    """padded [B, h+2, w+2, Q], assignment [B, 9, h, 2, w, 2] -> [B, h, 2, w, 2, Q]."""
    shifts = _shifts(padded, assignment[:, 0, ..., None])
    terms = [wide(shifted) * wide(assignment[:, k, ..., None]) for k, shifted in enumerate(shifts)]
    return sum(terms[1:], terms[0]).to(padded.dtype)


def _shifts(padded: Tensor, windows: Tensor) -> list[Tensor]:
    """The nine neighbours of each window's cluster: views [B, h, 1, w, 1, C] of [B, h+2, w+2, C]."""
    rows, cols = windows.shape[1], windows.shape[3]
    return [padded[:, 1 + dy : 1 + dy + rows, None, 1 + dx : 1 + dx + cols, None] for dy, dx in NEIGHBOURS]


def _norm(square: Tensor) -> Tensor:
    return square.sqrt().clamp_min(NORM_EPSILON)


def _even(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    return F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x


def _outside(clusters: int, axis: int, device: torch.device) -> Tensor:
    """[9, 2 * clusters]: -inf where the neighbour in that direction lies outside the map, else 0."""
    position = torch.arange(2 * clusters, device=device) // 2
    shifts = torch.tensor(NEIGHBOURS, device=device)[:, axis, None]
    inside = (position + shifts >= 0) & (position + shifts < clusters)
    return torch.zeros(inside.shape, device=device).masked_fill(~inside, float("-inf"))


_COMPILED_CLUSTERS, _COMPILED_ASSIGN, _COMPILED_DECODE = Compiled(_clusters), Compiled(_assign), Compiled(_decode)
