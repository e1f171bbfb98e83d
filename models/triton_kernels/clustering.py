"""Kernels of clustering (eq. 3), forwards and backwards."""

from __future__ import annotations  # the types of the kernels' arguments must not need Triton

from models.triton_kernels.parts import (
    cells_of_program,
    channels_of_tile,
    combine_neighbours,
    dot,
    gather,
    kernel,
    load,
    locate,
    locate_entries,
    multiply_neighbours,
    part,
    stack,
    store,
    tl,
    unit,
)


@part
def _temperature(scale):
    """|s| + 1e-8, the softmax's."""
    return tl.abs(tl.load(scale).to(tl.float32)) + 1e-8


@kernel
def cluster_forward(
    fine, coarse, scale, assignment, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    image, y, x, valid = cells_of_program(cells, rows, cols, P)
    channel = channels_of_tile(0, R, L)
    temperature = _temperature(scale)
    vectors = ()
    for i in tl.static_range(4):
        pixel, inside = locate(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid)
        vectors += (unit(load(fine, pixel, inside, channel, C))[0] / temperature,)
    logits = multiply_neighbours(coarse, vectors, image, y, x, rows, cols, valid, channel, True, C)
    k = tl.arange(0, 16)[None, :, None]
    near_y, near_x = y[:, None, None] + (k // 3 - 1), x[:, None, None] + (k % 3 - 1)
    exists = (k < 9) & (near_y >= 0) & (near_y < rows) & (near_x >= 0) & (near_x < cols)
    logits = tl.where(exists, stack(logits, P), float("-inf"))
    exponentials = tl.exp(logits - tl.max(logits, 1, keep_dims=True))
    result = exponentials / tl.sum(exponentials, 1, keep_dims=True)
    entry, inside = locate_entries(image, y, x, height, width, valid)
    tl.store(assignment + entry, result.to(assignment.dtype.element_ty), mask=inside)


@kernel
def cluster_backward_fine(
    fine, coarse, scale, assignment, grad, grad_fine, weights, grad_scale, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """With dlogit = A (dA - sum A dA) / temperature for the nine neighbours, and unit vectors f, c of lengths |F|, |C|:

    g = sum dlogit c, dF = (g - f <f, g>) / |F|, ds = -sign(s) sum <f, g> / temperature, as <f, g> = sum dlogit <f, c>.
    ds is the part of this program. Also written: weights = dlogit / |F|, for `cluster_backward_coarse`.
    """
    image, y, x, valid = cells_of_program(cells, rows, cols, P)
    channel = channels_of_tile(0, R, L)
    temperature = _temperature(scale)
    entry, exists = locate_entries(image, y, x, height, width, valid)
    a = tl.load(assignment + entry, mask=exists, other=0.0).to(tl.float32)
    da = tl.load(grad + entry, mask=exists, other=0.0).to(tl.float32)
    total = tl.sum(a, 1, keep_dims=True)
    a = a / tl.where(total > 0, total, 1.0)  # half precision rounded it; with sum 1, dlogit has sum 0
    dlogit = a * (da - tl.sum(a * da, 1, keep_dims=True)) / temperature
    g = combine_neighbours(coarse, dlogit, image, y, x, rows, cols, valid, channel, True, P, R, L, C)
    inverses, similarity = (), tl.full((P,), 0.0, tl.float32)
    for i in tl.static_range(4):
        pixel, inside = locate(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid)
        f, inverse, varies = unit(load(fine, pixel, inside, channel, C))
        along = dot(f, g[i])
        change = (g[i] - f * tl.where(varies, along, 0.0)[:, None, None]) * inverse[:, None, None]
        store(grad_fine, change, pixel, inside, channel, C)
        similarity += along
        inverses += (inverse,)
    factors = ()
    for _ in tl.static_range(9):
        factors += inverses
    tl.store(weights + entry, dlogit * stack(factors, P), mask=exists)
    s = tl.load(scale).to(tl.float32)
    sign = tl.where(s > 0, 1.0, tl.where(s < 0, -1.0, 0.0))
    tl.store(grad_scale + tl.program_id(0), -sign * tl.sum(similarity, 0) / temperature)


@kernel
def cluster_backward_coarse(
    fine, coarse, weights, grad_coarse, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """h = sum dlogit f = sum weights F over the windows around a cell, dC = (h - c <c, h>) / |C|."""
    image, y, x, valid = cells_of_program(cells, rows, cols, P)
    channel = channels_of_tile(0, R, L)
    h = gather(fine, weights, image, y, x, height, width, valid, channel, P, R, L, C)
    pixel, inside = locate(image, y, x, rows, cols, valid)
    c, inverse, varies = unit(load(coarse, pixel, inside, channel, C))
    change = (h - c * tl.where(varies, dot(c, h), 0.0)[:, None, None]) * inverse[:, None, None]
    store(grad_coarse, change, pixel, inside, channel, C)
