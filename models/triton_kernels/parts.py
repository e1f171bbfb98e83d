"""What the kernels share: where pixels lie, loads and stores, sums over channels and over neighbours.

A program has P cells, and R x L of the C channels of their maps.
"""

from __future__ import annotations  # the types of the kernels' arguments must not need Triton

import os
from collections.abc import Callable

try:
    import triton
    import triton.language as tl
except ImportError:  # it exists for Linux only
    triton = tl = None

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton looks, too, when a kernel is defined


def kernel(function: Callable) -> Callable:
    """A kernel is compiled once for each type and number of channels; the sizes of the maps stay variable."""
    sizes = ["cells", "height", "width", "rows", "cols"]
    return function if triton is None else triton.jit(function, do_not_specialize=sizes)


def part(function: Callable) -> Callable:
    return function if triton is None else triton.jit(function)


@part
def cells_of_program(cells, rows, cols, P: tl.constexpr):
    """The cells of this program, [P]: image, row, column, and whether there is such a cell."""
    cell = tl.program_id(0) * P + tl.arange(0, P)
    return cell // cols // rows, cell // cols % rows, cell % cols, cell < cells


@part
def channels_of_tile(first, R: tl.constexpr, L: tl.constexpr):
    """Numbers of the channels of a tile, [1, R, L]."""
    return first + tl.arange(0, R)[None, :, None] * L + tl.arange(0, L)[None, None, :]


@part
def locate(image, y, x, height, width, valid):
    """Which pixel in memory this is, and whether it is inside the map."""
    inside = valid & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return (image.to(tl.int64) * height + y) * width + x, inside


@part
def load(rows, pixel, inside, channel, C: tl.constexpr):
    """Vectors of pixels [P] as float32 [P, R, L], 0 outside the map."""
    pointers = (rows + pixel * C)[:, None, None] + channel
    return tl.load(pointers, mask=inside[:, None, None] & (channel < C), other=0.0).to(tl.float32)


@part
def store(rows, vectors, pixel, inside, channel, C: tl.constexpr):
    pointers = (rows + pixel * C)[:, None, None] + channel
    tl.store(pointers, vectors.to(rows.dtype.element_ty), mask=inside[:, None, None] & (channel < C))


@part
def locate_entries(image, y, x, height, width, valid):
    """Where entry k of fine pixel i of the cells' windows is, [P, 16, 4], in an assignment; whether it exists."""
    k, i = tl.arange(0, 16)[None, :, None], tl.arange(0, 4)[None, None, :]
    image, y, x, valid = image[:, None, None], y[:, None, None], x[:, None, None], valid[:, None, None]
    pixel, inside = locate(image, 2 * y + i // 2, 2 * x + i % 2, height, width, valid & (k < 9))
    return pixel * 9 + k, inside


@part
def stack(columns, P: tl.constexpr):
    """A tuple of 36 vectors [P], number 4 k + i for neighbour k and fine pixel i, as [P, 16, 4]; the rest is 0."""
    for _ in tl.static_range(28):
        columns += (tl.zeros_like(columns[0]),)
    for n in tl.static_range(6):
        pairs = ()
        for j in tl.static_range(32 >> n):
            pairs += (tl.join(columns[j], columns[j + (32 >> n)]),)
        columns = pairs
    return tl.reshape(columns[0], (P, 16, 4))


@part
def unstack(entries, P: tl.constexpr):
    """Inverse of `stack`, as a tuple of [P, 1, 1]."""
    columns = (tl.reshape(entries, (P, 1, 1, 2, 2, 2, 2, 2, 2)),)
    for n in tl.static_range(6):
        first, second = (), ()
        for j in tl.static_range(1 << n):
            low, high = tl.split(columns[j])
            first += (low,)
            second += (high,)
        columns = first + second
    return columns


@part
def dot(a, b):
    """Scalar products over the channels: [P, R, L] x [P, R, L] -> [P]."""
    return tl.sum(tl.sum(a * b, 1), 1)


@part
def unit(vectors):
    """Unit vectors [P, R, L], 1 / length [P], and whether the length is not below 1e-12, which is the least taken."""
    length = tl.sqrt(dot(vectors, vectors))
    inverse = 1 / tl.maximum(length, 1e-12)
    return vectors * inverse[:, None, None], inverse, length >= 1e-12  # as clamp_min has a gradient


@part
def load_neighbours(rows, k, image, y, x, height, width, valid, channel, UNIT: tl.constexpr, C: tl.constexpr):
    """The vectors [P, R, L] of the k-th neighbours of the cells, as unit vectors if UNIT; 0 outside the map."""
    pixel, inside = locate(image, y + (k // 3 - 1), x + (k % 3 - 1), height, width, valid)
    vectors = load(rows, pixel, inside, channel, C)
    if UNIT:
        vectors = unit(vectors)[0]
    return vectors


@part
def multiply_neighbours(rows, vectors, image, y, x, height, width, valid, channel, UNIT: tl.constexpr, C: tl.constexpr):
    """The scalar products of the neighbours with vectors of the four fine pixels, as 36 vectors [P]; see `stack`."""
    products = ()
    for k in tl.static_range(9):
        neighbours = load_neighbours(rows, k, image, y, x, height, width, valid, channel, UNIT, C)
        for i in tl.static_range(4):
            products += (dot(neighbours, vectors[i]),)
    return products


@part
def combine_neighbours(
    rows, weights, image, y, x, height, width, valid, channel,
    UNIT: tl.constexpr, P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sums of the neighbours, weighted by [P, 16, 4]: four of [P, R, L], one for each fine pixel."""
    columns = unstack(weights, P)
    zero = tl.full((P, R, L), 0.0, tl.float32)
    sums = (zero, zero, zero, zero)
    for k in tl.static_range(9):
        neighbours = load_neighbours(rows, k, image, y, x, height, width, valid, channel, UNIT, C)
        added = ()
        for i in tl.static_range(4):
            added += (sums[i] + columns[4 * k + i] * neighbours,)
        sums = added
    return sums


@part
def gather(
    rows, weights, image, y, x, height, width, valid, channel,
    P: tl.constexpr, R: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sums [P, R, L] of the fine pixels that have the cells as neighbours, each weighted by its entry for the cell."""
    total = tl.full((P, R, L), 0.0, tl.float32)
    for k in range(9):  # unrolled, as by static_range, it would take too many registers
        for i in tl.static_range(4):
            fine_y, fine_x = 2 * (y - (k // 3 - 1)) + i // 2, 2 * (x - (k % 3 - 1)) + i % 2
            pixel, inside = locate(image, fine_y, fine_x, height, width, valid)
            weight = tl.load(weights + pixel * 9 + k, mask=inside, other=0.0).to(tl.float32)
            total += weight[:, None, None] * load(rows, pixel, inside, channel, C)
    return total
