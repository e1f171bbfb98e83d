"""Fused CUDA kernels, in Triton, for clustering (eq. 3) and decoding (eq. 5), forwards and backwards.

Maps lie channels last, so a pixel is one vector. A program takes some coarse pixels, the "cells", with the 2x2 window
of fine pixels of each: it loads the nine neighbours of a cell once for four fine pixels, so that every map is read and
written about once from DRAM. Sums over the windows around a cell, for the gradients of the coarse maps, are gathered:
no atomics, so results are deterministic. Arithmetic is in float32, whatever the type of the maps.
"""

from __future__ import annotations  # the types of the kernels' arguments must not need Triton

import math
import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

try:
    import triton
    import triton.language as tl
except ImportError:  # it exists for Linux only
    triton = tl = None

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton looks, too, when a kernel is defined
WARPS = 4
QUERY_BLOCK = 128  # queries of a program, or of a step of its loop


def is_available() -> bool:
    """Whether the functions below can run: Triton with a CUDA device, or with its interpreter (TRITON_INTERPRET=1)."""
    return triton is not None and (INTERPRETED or torch.cuda.is_available())


def cluster(fine: Tensor, coarse: Tensor, scale: Tensor) -> Tensor:
    """Soft assignment of fine pixels to clusters by cosine similarity, eq. 3; differentiable once in all arguments.

    fine: [B, C, H, W]; coarse: [B, C, ceil(H/2), ceil(W/2)]; both are l2-normalised here, over C.
    scale: s, a float32 tensor of one element, used as |s|.
    Returns [B, 9, H, W], channels last in memory, of fine's type: the softmax over the neighbours k = 3 (dy+1) + (dx+1)
    of <f(y, x), c(y//2 + dy, x//2 + dx)> / (|s| + 1e-8), exactly 0 where the neighbour lies outside the map.

    Maps may be float32, bfloat16 or float16, in any memory layout (copied unless channels last); gradients have the
    type of their map. Raises ValueError if sizes or types do not fit, RuntimeError off CUDA.
    """
    height, width = fine.shape[-2:]
    if coarse.shape[-2:] != ((height + 1) // 2, (width + 1) // 2) or fine.shape[:2] != coarse.shape[:2]:
        raise ValueError(
            f"cannot cluster {tuple(fine.shape)} with {tuple(coarse.shape)}: the coarse map must be half as large"
        )
    if scale.numel() != 1:
        raise ValueError(f"the scale must have one element, not {scale.numel()}")
    _check(fine, coarse, scale)
    return _Cluster.apply(fine, coarse, scale)


def decode(masks: Tensor, assignment: Tensor) -> Tensor:
    """Upsample cluster values to the pixels of the clusters, eq. 5; differentiable once in both arguments.

    masks: [B, Q, ceil(H/2), ceil(W/2)]; assignment: [B, 9, H, W]. Returns [B, Q, H, W], channels last in memory, of the
    masks' type: sum_k assignment[k, y, x] masks[q, y//2 + dy, x//2 + dx], where masks are 0 outside their map.

    Types and layouts as for `cluster`; the two may differ. Raises ValueError if sizes or types do not fit,
    RuntimeError off CUDA.
    """
    height, width = assignment.shape[-2:]
    if masks.shape[-2:] != ((height + 1) // 2, (width + 1) // 2) or len(masks) != len(assignment):
        raise ValueError(
            f"cannot decode {tuple(masks.shape)} by {tuple(assignment.shape)}: the masks must be half as large"
        )
    if assignment.shape[1] != 9:
        raise ValueError(f"the assignment must have nine entries a pixel, not {assignment.shape[1]}")
    _check(masks, assignment)
    return _Decode.apply(masks, assignment)


class _Cluster(torch.autograd.Function):
    @staticmethod
    @custom_fwd(device_type="cuda")
    def forward(ctx, fine: Tensor, coarse: Tensor, scale: Tensor) -> Tensor:
        fine, coarse = _rows(fine), _rows(coarse)
        assignment = _map_like(fine, 9)
        _launch(_cluster_forward, coarse, fine, _tile(fine), (fine, coarse, scale, _rows(assignment)))
        ctx.save_for_backward(fine, coarse, scale, assignment)
        return assignment

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cuda")
    def backward(ctx, grad: Tensor):
        fine, coarse, scale, assignment = ctx.saved_tensors
        tile = _tile(fine, share=8)
        grad_fine, grad_coarse = _map_like(fine), None
        weights = fine.new_empty(*fine.shape[:3], 9, dtype=torch.float32)
        grad_scale = fine.new_empty(_programs(coarse, tile), dtype=torch.float32)
        maps = (fine, coarse, scale, _rows(assignment), _rows(grad), _rows(grad_fine), weights, grad_scale)
        _launch(_cluster_backward_fine, coarse, fine, tile, maps)
        if ctx.needs_input_grad[1]:
            grad_coarse = _map_like(coarse)
            _launch(_cluster_backward_coarse, coarse, fine, tile, (fine, coarse, weights, _rows(grad_coarse)))
        return grad_fine, grad_coarse, grad_scale.sum().to(scale.dtype).view_as(scale)


class _Decode(torch.autograd.Function):
    @staticmethod
    @custom_fwd(device_type="cuda")
    def forward(ctx, masks: Tensor, assignment: Tensor) -> Tensor:
        masks, assignment = _rows(masks), _rows(assignment)
        decoded = _map_like(assignment, masks.shape[3], masks.dtype)
        tile = _tile(masks, QUERY_BLOCK)
        _launch(_decode_forward, masks, assignment, tile, (masks, assignment, _rows(decoded)), _blocks(tile))
        ctx.save_for_backward(masks, assignment)
        return decoded

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cuda")
    def backward(ctx, grad: Tensor):
        masks, assignment = ctx.saved_tensors
        grad_masks = grad_assignment = None
        grad, tile = _rows(grad), _tile(masks, QUERY_BLOCK)
        if ctx.needs_input_grad[0]:
            grad_masks = _map_like(masks)
            maps = (assignment, grad, _rows(grad_masks))
            _launch(_decode_backward_masks, masks, assignment, tile, maps, _blocks(tile))
        if ctx.needs_input_grad[1]:
            grad_assignment = _map_like(assignment)
            maps = (masks, grad, _rows(grad_assignment))
            _launch(_decode_backward_assignment, masks, assignment, tile, maps)
        return grad_masks, grad_assignment


def _check(first: Tensor, *others: Tensor) -> None:
    for x in (first, *others):
        if x.dtype not in DTYPES:
            raise ValueError(f"the kernels take float32, bfloat16 and float16, not {x.dtype}")
        if triton is None or x.device != first.device or not (x.is_cuda or INTERPRETED):
            raise RuntimeError(f"the kernels need Triton and all tensors on one CUDA device, not on {x.device}")


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> contiguous [B, H, W, C]: a view if the map is channels last, else a copy."""
    return x.permute(0, 2, 3, 1).contiguous()


def _map_like(rows: Tensor, channels: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """A new map [B, C, H, W], channels last in memory, for rows [B, H, W, C]."""
    batch, height, width, own = rows.shape
    size = (batch, own if channels is None else channels, height, width)
    return torch.empty(size, dtype=dtype or rows.dtype, device=rows.device, memory_format=torch.channels_last)


def _tile(rows: Tensor, most: int | None = None, share: int = 16) -> dict[str, int]:
    """What one program handles at a time: P cells with R x L (a power of 2, `most` at most) of their C channels.

    Threads side by side hold a row of L channels, each 16 bytes of it, if alignment allows, and all R rows. So a thread
    has about `share` channels of a cell: few enough for the registers (more than 512 channels at a time are too many,
    and slow), enough to make sums over channels cheap.
    """
    channels = rows.shape[3]
    block = 1 << max(channels - 1, 0).bit_length()
    if most is not None:
        block = min(block, most)
    vector = math.gcd(channels, 16 // rows.element_size())
    row = min(block, 32 * vector, max(32, block // share * vector))
    return dict(P=min(32, max(1, 32 * WARPS * vector // row)), R=block // row, L=row, C=channels)


def _programs(coarse: Tensor, tile: dict[str, int]) -> int:
    return -(-coarse.shape[:3].numel() // tile["P"])


def _blocks(tile: dict[str, int]) -> int:
    return -(-tile["C"] // (tile["R"] * tile["L"]))


def _launch(kernel: Callable, coarse: Tensor, fine: Tensor, tile: dict[str, int], maps: tuple, blocks: int = 1) -> None:
    """Run a kernel over all cells of the coarse rows [B, h, w, :] and blocks of channels. fine: [B, H, W, :]."""
    cells = coarse.shape[:3].numel()
    if cells and blocks:
        with torch.cuda.device_of(fine):
            grid = (_programs(coarse, tile), blocks)
            kernel[grid](*maps, cells, *fine.shape[1:3], *coarse.shape[1:3], **tile, num_warps=WARPS)


def _kernel(function: Callable) -> Callable:
    """A kernel is compiled once for each type and number of channels; the sizes of the maps stay variable."""
    sizes = ["cells", "height", "width", "rows", "cols"]
    return function if triton is None else triton.jit(function, do_not_specialize=sizes)


def _part(function: Callable) -> Callable:
    return function if triton is None else triton.jit(function)


@_part
def _cells(cells, rows, cols, P: tl.constexpr):
    """The cells of this program, [P]: image, row, column, and whether there is such a cell."""
    cell = tl.program_id(0) * P + tl.arange(0, P)
    return cell // cols // rows, cell // cols % rows, cell % cols, cell < cells


@_part
def _channels(first, R: tl.constexpr, L: tl.constexpr):
    """Numbers of the channels of a tile, [1, R, L]."""
    return first + tl.arange(0, R)[None, :, None] * L + tl.arange(0, L)[None, None, :]


@_part
def _pixel(image, y, x, height, width, valid):
    """Which pixel in memory this is, and whether it is inside the map."""
    inside = valid & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return (image.to(tl.int64) * height + y) * width + x, inside


@_part
def _load(rows, pixel, inside, channel, C: tl.constexpr):
    """Vectors of pixels [P] as float32 [P, R, L], 0 outside the map."""
    pointers = (rows + pixel * C)[:, None, None] + channel
    return tl.load(pointers, mask=inside[:, None, None] & (channel < C), other=0.0).to(tl.float32)


@_part
def _store(rows, vectors, pixel, inside, channel, C: tl.constexpr):
    pointers = (rows + pixel * C)[:, None, None] + channel
    tl.store(pointers, vectors.to(rows.dtype.element_ty), mask=inside[:, None, None] & (channel < C))


@_part
def _entries(image, y, x, height, width, valid):
    """Where entry k of fine pixel i of the cells' windows is, [P, 16, 4], in an assignment; whether it exists."""
    k, i = tl.arange(0, 16)[None, :, None], tl.arange(0, 4)[None, None, :]
    image, y, x, valid = image[:, None, None], y[:, None, None], x[:, None, None], valid[:, None, None]
    pixel, inside = _pixel(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid & (k < 9))
    return pixel * 9 + k, inside


@_part
def _stack(columns, P: tl.constexpr):
    """A tuple of 36 vectors [P], number 4 k + i for neighbour k and fine pixel i, as [P, 16, 4]; the rest is 0."""
    for _ in tl.static_range(28):
        columns += (tl.zeros_like(columns[0]),)
    for n in tl.static_range(6):
        pairs = ()
        for j in tl.static_range(32 >> n):
            pairs += (tl.join(columns[j], columns[j + (32 >> n)]),)
        columns = pairs
    return tl.reshape(columns[0], (P, 16, 4))


@_part
def _unstack(entries, P: tl.constexpr):
    """Inverse of `_stack`, as a tuple of [P, 1, 1]."""
    columns = (tl.reshape(entries, (P, 1, 1, 2, 2, 2, 2, 2, 2)),)
    for n in tl.static_range(6):
        first, second = (), ()
        for j in tl.static_range(1 << n):
            low, high = tl.split(columns[j])
            first += (low,)
            second += (high,)
        columns = first + second
    return columns


@_part
def _dot(a, b):
    """Scalar products over the channels: [P, R, L] x [P, R, L] -> [P]."""
    return tl.sum(tl.sum(a * b, 1), 1)


@_part
def _unit(vectors):
    """Unit vectors [P, R, L], 1 / length [P], and whether the length is not below 1e-12, which is the least taken."""
    length = tl.sqrt(_dot(vectors, vectors))
    inverse = 1 / tl.maximum(length, 1e-12)
    return vectors * inverse[:, None, None], inverse, length >= 1e-12  # as clamp_min has a gradient


@_part
def _temperature(scale):
    """|s| + 1e-8, the softmax's."""
    return tl.abs(tl.load(scale).to(tl.float32)) + 1e-8


@_part
def _neighbours(rows, k, image, y, x, height, width, valid, channel, UNIT: tl.constexpr, C: tl.constexpr):
    """The vectors [P, R, L] of the k-th neighbours of the cells, as unit vectors if UNIT; 0 outside the map."""
    pixel, inside = _pixel(image, y + (k // 3 - 1), x + (k % 3 - 1), height, width, valid)
    vectors = _load(rows, pixel, inside, channel, C)
    if UNIT:
        vectors = _unit(vectors)[0]
    return vectors


@_part
def _products(rows, vectors, image, y, x, height, width, valid, channel, UNIT: tl.constexpr, C: tl.constexpr):
    """The scalar products of the neighbours with vectors of the four fine pixels, as 36 vectors [P]; see `_stack`."""
    products = ()
    for k in tl.static_range(9):
        neighbours = _neighbours(rows, k, image, y, x, height, width, valid, channel, UNIT, C)
        for i in tl.static_range(4):
            products += (_dot(neighbours, vectors[i]),)
    return products


@_part
def _combine(
    rows, weights, image, y, x, height, width, valid, channel,
    UNIT: tl.constexpr, P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sums of the neighbours, weighted by [P, 16, 4]: four of [P, R, L], one for each fine pixel."""
    columns = _unstack(weights, P)
    zero = tl.full((P, R, L), 0.0, tl.float32)
    sums = (zero, zero, zero, zero)
    for k in tl.static_range(9):
        neighbours = _neighbours(rows, k, image, y, x, height, width, valid, channel, UNIT, C)
        added = ()
        for i in tl.static_range(4):
            added += (sums[i] + columns[4 * k + i] * neighbours,)
        sums = added
    return sums


@_part
def _gather(
    rows, weights, image, y, x, height, width, valid, channel,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sums [P, R, L] of the fine pixels that have the cells as neighbours, each weighted by its entry for the cell."""
    total = tl.full((P, R, L), 0.0, tl.float32)
    for k in range(9):  # unrolled, as by static_range, it would take too many registers
        for i in tl.static_range(4):
            fine_y, fine_x = 2 * (y - (k // 3 - 1)) + i // 2, 2 * (x - (k % 3 - 1)) + i % 2
            pixel, inside = _pixel(image, fine_y, fine_x, height, width, valid)
            weight = tl.load(weights + pixel * 9 + k, mask=inside, other=0.0).to(tl.float32)
            total += weight[:, None, None] * _load(rows, pixel, inside, channel, C)
    return total


@_kernel
def _cluster_forward(
    fine, coarse, scale, assignment, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    image, y, x, valid = _cells(cells, rows, cols, P)
    channel = _channels(0, R, L)
    temperature = _temperature(scale)
    vectors = ()
    for i in tl.static_range(4):
        pixel, inside = _pixel(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid)
        vectors += (_unit(_load(fine, pixel, inside, channel, C))[0] / temperature,)
    logits = _products(coarse, vectors, image, y, x, rows, cols, valid, channel, True, C)
    k = tl.arange(0, 16)[None, :, None]
    near_y, near_x = y[:, None, None] + (k // 3 - 1), x[:, None, None] + (k % 3 - 1)
    exists = (k < 9) & (near_y >= 0) & (near_y < rows) & (near_x >= 0) & (near_x < cols)
    logits = tl.where(exists, _stack(logits, P), float("-inf"))
    exponentials = tl.exp(logits - tl.max(logits, 1, keep_dims=True))
    result = exponentials / tl.sum(exponentials, 1, keep_dims=True)
    entry, inside = _entries(image, y, x, height, width, valid)
    tl.store(assignment + entry, result.to(assignment.dtype.element_ty), mask=inside)


@_kernel
def _cluster_backward_fine(
    fine, coarse, scale, assignment, grad, grad_fine, weights, grad_scale, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """With dlogit = A (dA - sum A dA) / temperature for the nine neighbours, and unit vectors f, c of lengths |F|, |C|:

    g = sum dlogit c, dF = (g - f <f, g>) / |F|, ds = -sign(s) sum <f, g> / temperature, as <f, g> = sum dlogit <f, c>.
    ds is the part of this program. Also written: weights = dlogit / |F|, for `_cluster_backward_coarse`.
    """
    image, y, x, valid = _cells(cells, rows, cols, P)
    channel = _channels(0, R, L)
    temperature = _temperature(scale)
    entry, exists = _entries(image, y, x, height, width, valid)
    a = tl.load(assignment + entry, mask=exists, other=0.0).to(tl.float32)
    da = tl.load(grad + entry, mask=exists, other=0.0).to(tl.float32)
    total = tl.sum(a, 1, keep_dims=True)
    a = a / tl.where(total > 0, total, 1.0)  # half precision rounded it; with sum 1, dlogit has sum 0
    dlogit = a * (da - tl.sum(a * da, 1, keep_dims=True)) / temperature
    g = _combine(coarse, dlogit, image, y, x, rows, cols, valid, channel, True, P, R, L, C)
    inverses, similarity = (), tl.full((P,), 0.0, tl.float32)
    for i in tl.static_range(4):
        pixel, inside = _pixel(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid)
        f, inverse, varies = _unit(_load(fine, pixel, inside, channel, C))
        along = _dot(f, g[i])
        change = (g[i] - f * tl.where(varies, along, 0.0)[:, None, None]) * inverse[:, None, None]
        _store(grad_fine, change, pixel, inside, channel, C)
        similarity += along
        inverses += (inverse,)
    factors = ()
    for _ in tl.static_range(9):
        factors += inverses
    tl.store(weights + entry, dlogit * _stack(factors, P), mask=exists)
    s = tl.load(scale).to(tl.float32)
    sign = tl.where(s > 0, 1.0, tl.where(s < 0, -1.0, 0.0))
    tl.store(grad_scale + tl.program_id(0), -sign * tl.sum(similarity, 0) / temperature)


@_kernel
def _cluster_backward_coarse(
    fine, coarse, weights, grad_coarse, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """h = sum dlogit f = sum weights F over the windows around a cell, dC = (h - c <c, h>) / |C|."""
    image, y, x, valid = _cells(cells, rows, cols, P)
    channel = _channels(0, R, L)
    h = _gather(fine, weights, image, y, x, height, width, valid, channel, P, R, L, C)
    pixel, inside = _pixel(image, y, x, rows, cols, valid)
    c, inverse, varies = _unit(_load(coarse, pixel, inside, channel, C))
    change = (h - c * tl.where(varies, _dot(c, h), 0.0)[:, None, None]) * inverse[:, None, None]
    _store(grad_coarse, change, pixel, inside, channel, C)


@_kernel
def _decode_forward(
    masks, assignment, decoded, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    image, y, x, valid = _cells(cells, rows, cols, P)
    channel = _channels(tl.program_id(1) * (R * L), R, L)
    entry, exists = _entries(image, y, x, height, width, valid)
    weights = tl.load(assignment + entry, mask=exists, other=0.0).to(tl.float32)
    sums = _combine(masks, weights, image, y, x, rows, cols, valid, channel, False, P, R, L, C)
    for i in tl.static_range(4):
        pixel, inside = _pixel(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid)
        _store(decoded, sums[i], pixel, inside, channel, C)


@_kernel
def _decode_backward_masks(
    assignment, grad, grad_masks, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    image, y, x, valid = _cells(cells, rows, cols, P)
    channel = _channels(tl.program_id(1) * (R * L), R, L)
    total = _gather(grad, assignment, image, y, x, height, width, valid, channel, P, R, L, C)
    pixel, inside = _pixel(image, y, x, rows, cols, valid)
    _store(grad_masks, total, pixel, inside, channel, C)


@_kernel
def _decode_backward_assignment(
    masks, grad, grad_assignment, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    image, y, x, valid = _cells(cells, rows, cols, P)
    entry, exists = _entries(image, y, x, height, width, valid)
    total = tl.full((P, 16, 4), 0.0, tl.float32)
    for first in range(0, C, R * L):
        channel = _channels(first, R, L)
        vectors = ()
        for i in tl.static_range(4):
            pixel, inside = _pixel(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid)
            vectors += (_load(grad, pixel, inside, channel, C),)
        products = _products(masks, vectors, image, y, x, rows, cols, valid, channel, False, C)
        total += _stack(products, P)
    tl.store(grad_assignment + entry, total.to(grad_assignment.dtype.element_ty), mask=exists)
