"""Fused CUDA kernels, in Triton, for clustering (eq. 3) and decoding (eq. 5), forwards and backwards.

Maps lie channels last, so a pixel is one vector. A program takes some coarse pixels, the "cells", with the 2x2 window
of fine pixels of each: it loads the nine neighbours of a cell once for four fine pixels, so that every map is read and
written about once from DRAM. Sums over the windows around a cell, for the gradients of the coarse maps, are gathered:
no atomics, so results are deterministic. Arithmetic is in float32, whatever the type of the maps.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from models.triton_kernels.clustering import cluster_backward_coarse, cluster_backward_fine, cluster_forward
from models.triton_kernels.decoding import decode_backward_assignment, decode_backward_masks, decode_forward
from models.triton_kernels.parts import INTERPRETED, triton

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
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
        _launch(cluster_forward, coarse, fine, _tile(fine), (fine, coarse, scale, _rows(assignment)))
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
        _launch(cluster_backward_fine, coarse, fine, tile, maps)
        if ctx.needs_input_grad[1]:
            grad_coarse = _map_like(coarse)
            _launch(cluster_backward_coarse, coarse, fine, tile, (fine, coarse, weights, _rows(grad_coarse)))
        return grad_fine, grad_coarse, grad_scale.sum().to(scale.dtype).view_as(scale)


class _Decode(torch.autograd.Function):
    @staticmethod
    @custom_fwd(device_type="cuda")
    def forward(ctx, masks: Tensor, assignment: Tensor) -> Tensor:
        masks, assignment = _rows(masks), _rows(assignment)
        decoded = _map_like(assignment, masks.shape[3], masks.dtype)
        tile = _tile(masks, QUERY_BLOCK)
        _launch(decode_forward, masks, assignment, tile, (masks, assignment, _rows(decoded)), _blocks(tile))
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
            _launch(decode_backward_masks, masks, assignment, tile, maps, _blocks(tile))
        if ctx.needs_input_grad[1]:
            grad_assignment = _map_like(assignment)
            maps = (masks, grad, _rows(grad_assignment))
            _launch(decode_backward_assignment, masks, assignment, tile, maps)
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
