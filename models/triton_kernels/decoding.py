"""Kernels of decoding (eq. 5), forwards and backwards."""

from __future__ import annotations  # the types of the kernels' arguments must not need Triton

from models.triton_kernels.parts import (
    cells_of_program,
    channels_of_tile,
    combine_neighbours,
    gather,
    kernel,
    load,
    locate,
    locate_entries,
    multiply_neighbours,
    stack,
    store,
    tl,
)


@kernel
def decode_forward(
    masks, assignment, decoded, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    image, y, x, valid = cells_of_program(cells, rows, cols, P)
    channel = channels_of_tile(tl.program_id(1) * (R * L), R, L)
    entry, exists = locate_entries(image, y, x, height, width, valid)
    weights = tl.load(assignment + entry, mask=exists, other=0.0).to(tl.float32)
    sums = combine_neighbours(masks, weights, image, y, x, rows, cols, valid, channel, False, P, R, L, C)
    for i in tl.static_range(4):
        pixel, inside = locate(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid)
        store(decoded, sums[i], pixel, inside, channel, C)


@kernel
def decode_backward_masks(
    assignment, grad, grad_masks, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    image, y, x, valid = cells_of_program(cells, rows, cols, P)
    channel = channels_of_tile(tl.program_id(1) * (R * L), R, L)
    total = gather(grad, assignment, image, y, x, height, width, valid, channel, P, R, L, C)
    pixel, inside = locate(image, y, x, rows, cols, valid)
    store(grad_masks, total, pixel, inside, channel, C)


@kernel
def decode_backward_assignment(
    masks, grad, grad_assignment, cells, height, width, rows, cols,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    image, y, x, valid = cells_of_program(cells, rows, cols, P)
    entry, exists = locate_entries(image, y, x, height, width, valid)
    total = tl.full((P, 16, 4), 0.0, tl.float32)
    for first in range(0, C, R * L):
        channel = channels_of_tile(first, R, L)
        vectors = ()
        for i in tl.static_range(4):
            pixel, inside = locate(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid)
            vectors += (load(grad, pixel, inside, channel, C),)
        products = multiply_neighbours(masks, vectors, image, y, x, rows, cols, valid, channel, False, C)
        total += stack(products, P)
    tl.store(grad_assignment + entry, total.to(grad_assignment.dtype.element_ty), mask=exists)
