"""Clustering and decoding against direct evaluations of eq. 3 and eq. 5 over all pairs of pixels."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.clustering import NEIGHBOURS, Clustering, cluster, decode, decode_through, hard_assignment

SCALE = torch.tensor([0.1])
SIZES = [(8, 10), (7, 9), (2, 2), (1, 1), (1, 5), (5, 1), (6, 3)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def half(size):
    return tuple((n + 1) // 2 for n in size)


def maps(size, channels=3, batch=2, seed=0):
    """A fine and a coarse map of unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randn(batch, channels, *size, generator=generator)
    coarse = torch.randn(batch, channels, *half(size), generator=generator)
    return F.normalize(fine, dim=1), F.normalize(coarse, dim=1)


def neighbours(height, width):
    """[H, W, h, w]: is the coarse pixel in the 3x3 neighbourhood of the one that holds the fine pixel?"""
    rows, cols = half((height, width))
    near_y = (torch.arange(height)[:, None] // 2 - torch.arange(rows)).abs() <= 1
    near_x = (torch.arange(width)[:, None] // 2 - torch.arange(cols)).abs() <= 1
    return near_y[:, None, :, None] & near_x[None, :, None, :]


def dense_cluster(fine, coarse, scale):
    """Eq. 3 over all coarse pixels, all but the neighbours masked: [B, H, W, h, w]."""
    logits = torch.einsum("bchw,bcyx->bhwyx", fine, coarse) / abs(float(scale))
    logits = logits.masked_fill(~neighbours(*fine.shape[-2:]), float("-inf"))
    return logits.flatten(3).softmax(3).view_as(logits)


def scatter(assignment):
    """Nine entries a pixel to the dense assignment [B, H, W, h, w]; entries outside the map must be exactly 0."""
    height, width = assignment.shape[-2:]
    rows, cols = half((height, width))
    dense = assignment.new_zeros(len(assignment), height, width, rows, cols)
    for y in range(height):
        for x in range(width):
            for k, (dy, dx) in enumerate(NEIGHBOURS):
                row, col = y // 2 + dy, x // 2 + dx
                if 0 <= row < rows and 0 <= col < cols:
                    dense[:, y, x, row, col] = assignment[:, k, y, x]
                else:
                    assert torch.all(assignment[:, k, y, x] == 0)
    return dense


def listing_1(fine, coarse, scale):
    """What the paper's Listing 1 computes: neighbours outside the map are zero vectors that take part."""
    y, x = (torch.arange(n) // 2 + 1 for n in fine.shape[-2:])
    padded = F.pad(coarse, (1, 1, 1, 1))
    candidates = torch.stack([padded[:, :, y + dy][..., x + dx] for dy, dx in NEIGHBOURS], 1)  # [B, 9, C, H, W]
    return ((candidates * fine[:, None]).sum(2) / scale.abs()).softmax(1)


@pytest.mark.parametrize("size", SIZES)
def test_equals_the_dense_evaluation(size):
    fine, coarse = maps(size)
    assignment = cluster(fine, coarse, SCALE)
    assert assignment.shape == (2, 9, *size)
    torch.testing.assert_close(scatter(assignment), dense_cluster(fine, coarse, SCALE), rtol=1e-4, atol=1e-6)


@settings(max_examples=15)
@given(st.tuples(st.integers(1, 7), st.integers(1, 7)), st.floats(0.05, 5), st.integers(0, 1000))
def test_rows_are_distributions_over_the_neighbours_in_the_map(size, scale, seed):
    fine, coarse = maps(size, batch=1, seed=seed)
    dense = scatter(cluster(fine, coarse, torch.tensor([scale])))
    torch.testing.assert_close(dense.flatten(3).sum(3), torch.ones(1, *size))
    assert torch.equal(dense > 0, neighbours(*size)[None])


def test_equals_listing_1_in_the_interior_and_not_at_the_border():
    """Zero padding takes probability there; without that share, Listing 1 gives our values at the border too."""
    fine, coarse = maps((10, 12))
    ours, listing = cluster(fine, coarse, SCALE), listing_1(fine, coarse, SCALE)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ours[inner], listing[inner], rtol=1e-4, atol=1e-6)
    border = torch.ones(10, 12, dtype=torch.bool)
    border[inner] = False
    share = torch.where(ours == 0, listing, 0).sum(1)
    assert torch.all(share[:, border] > 0) and torch.all(share[:, ~border] == 0)
    assert (ours - listing).abs().amax(1)[:, border].max() > 0.1
    kept = torch.where(ours == 0, 0, listing)
    torch.testing.assert_close(ours, kept / kept.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_sign_of_the_scale_is_irrelevant():
    fine, coarse = maps((6, 8))
    assert torch.equal(cluster(fine, coarse, SCALE), cluster(fine, coarse, -SCALE))
    assert torch.isfinite(cluster(fine, coarse, torch.zeros(1))).all()


@pytest.mark.parametrize("size", [(8, 10), (7, 5)])
def test_small_scale_is_the_nearest_cluster(size):
    """Eq. 2 is the limit of eq. 3; a larger scale keeps the nearest cluster but spreads over the others."""
    fine, coarse = maps(size, channels=8)
    soft = cluster(fine, coarse, SCALE)
    hard = hard_assignment(soft)
    torch.testing.assert_close(cluster(fine, coarse, torch.tensor([1e-5])), hard, rtol=0, atol=1e-3)
    similarity = torch.einsum("bchw,bcyx->bhwyx", fine, coarse).masked_fill(~neighbours(*size), -2).flatten(3)
    assert torch.equal(scatter(hard).flatten(3).argmax(3), similarity.argmax(3))
    assert torch.all(hard.sum(1) == 1) and soft.max() < 1


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (1, 5)])
def test_odd_sizes_are_the_valid_part_of_the_even_ones(size):
    even = tuple(2 * n for n in half(size))
    fine, coarse = maps(even)
    valid = (..., slice(size[0]), slice(size[1]))
    whole = cluster(fine, coarse, SCALE)
    torch.testing.assert_close(cluster(fine[valid], coarse, SCALE), whole[valid])
    torch.testing.assert_close(decode(coarse, whole[valid].contiguous()), decode(coarse, whole)[valid])


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (1, 1)])
def test_gradients(size):
    fine, coarse = (x[:1].double().requires_grad_() for x in maps(size, channels=2))
    scale = torch.tensor([-0.5], dtype=torch.float64, requires_grad=True)
    masks = coarse.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(cluster, (fine, coarse, scale))
    assert torch.autograd.gradcheck(decode, (masks, cluster(fine, coarse, scale).detach().requires_grad_()))


def test_gradients_are_finite_at_the_paper_scale():
    fine, coarse = (x.requires_grad_() for x in maps((9, 7)))
    scale = SCALE.clone().requires_grad_()
    (cluster(fine, coarse, scale) * torch.randn(2, 9, 9, 7)).sum().backward()
    for tensor in (fine, coarse, scale):
        assert torch.isfinite(tensor.grad).all() and tensor.grad.any()


def test_memory_layout_is_irrelevant():
    fine, coarse = maps((7, 8))
    masks = torch.randn(2, 5, 4, 4)
    expected = cluster(fine, coarse, SCALE)
    decoded = decode(masks, expected)
    for layout in (
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.stack((x, x), 4)[..., 0],
    ):
        torch.testing.assert_close(cluster(layout(fine), layout(coarse), SCALE), expected)
        torch.testing.assert_close(decode(layout(masks), layout(expected)), decoded)


def test_batch_equals_single_maps():
    fine, coarse = maps((7, 8), batch=3)
    masks = torch.randn(3, 5, 4, 4)
    batched = cluster(fine, coarse, SCALE)
    single = [cluster(fine[i : i + 1], coarse[i : i + 1], SCALE) for i in range(3)]
    torch.testing.assert_close(batched, torch.cat(single))
    parts = [decode(masks[i : i + 1], single[i]) for i in range(3)]
    torch.testing.assert_close(decode(masks, batched), torch.cat(parts))


@pytest.mark.parametrize("coarse", [(2, 3, 4, 4), (2, 3, 8, 9), (2, 3, 5, 5), (2, 4, 4, 5)])
def test_maps_that_do_not_belong_together_are_refused(coarse):
    with pytest.raises(ValueError, match="half as large"):
        cluster(torch.zeros(2, 3, 8, 9), torch.zeros(coarse), SCALE)


@pytest.mark.parametrize("size", SIZES)
def test_decoding_equals_the_matrix_product(size):
    """Eq. 5 with the whole assignment matrix, [HW, hw]."""
    assignment = cluster(*maps(size), SCALE)
    masks = torch.randn(2, 5, *half(size))
    matrix = scatter(assignment).flatten(3).flatten(1, 2)
    expected = (masks.flatten(2) @ matrix.mT).view(2, 5, *size)
    torch.testing.assert_close(decode(masks, assignment), expected, rtol=1e-4, atol=1e-5)


def test_decoding_averages_and_copies():
    """A constant mask stays constant (border included); a hard assignment copies its cluster's value."""
    assignment = cluster(*maps((7, 10)), SCALE)
    constant = torch.tensor([-3.0, 0.0, 7.0])[:, None, None].expand(2, 3, 4, 5)
    torch.testing.assert_close(decode(constant, assignment), constant[..., :1, :1].expand(2, 3, 7, 10))
    hard = hard_assignment(assignment)
    numbers = torch.arange(20.0).view(1, 1, 4, 5).expand(2, -1, -1, -1)  # every cluster its index
    assert torch.equal(decode(numbers, hard)[:, 0].long(), scatter(hard).flatten(3).argmax(3))


def test_decoding_through_levels_is_composition():
    """From 2x3 through 4x5 and 7x9 to 13x18, coarsest assignment first; the matrices multiply."""
    sizes = [(4, 5), (7, 9), (13, 18)]
    assignments = tuple(cluster(*maps(size, seed=i), SCALE) for i, size in enumerate(sizes))
    masks = torch.randn(2, 4, 2, 3)
    matrices = [scatter(a).flatten(3).flatten(1, 2) for a in assignments]
    expected = matrices[2] @ matrices[1] @ matrices[0] @ masks.flatten(2).mT
    decoded = decode_through(masks, assignments)
    torch.testing.assert_close(decoded, expected.mT.unflatten(2, sizes[-1]), rtol=1e-4, atol=1e-5)
    assert decode_through(masks, ()) is masks


def test_module_has_the_parts_of_the_paper():
    """Figure 2: layer norms, bias-free embeddings to 128 channels; appendix D: scale 0.1."""
    module = Clustering(12, 24)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == {
        "fine_norm.weight": (12,),
        "fine_norm.bias": (12,),
        "coarse_norm.weight": (24,),
        "coarse_norm.bias": (24,),
        "fine_embedding.weight": (128, 12, 1, 1),
        "coarse_embedding.weight": (128, 24, 1, 1),
        "scale": (1,),
    }
    assert module.scale.item() == pytest.approx(0.1)


def test_module_compares_unit_embeddings_of_normalised_features():
    module = Clustering(12, 24, 16)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        fine, coarse = 100 * torch.randn(2, 12, 5, 8), torch.randn(2, 24, 3, 4) + 5

        def embed(x, norm, embedding):
            x = x.movedim(1, -1)
            deviation = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            x = (x - x.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias
            x = x @ embedding.weight.flatten(1).T
            return (x / x.square().sum(-1, keepdim=True).sqrt()).movedim(-1, 1)

        unit = embed(fine, module.fine_norm, module.fine_embedding)
        coarse_unit = embed(coarse, module.coarse_norm, module.coarse_embedding)
        expected = dense_cluster(unit, coarse_unit, module.scale)
        torch.testing.assert_close(scatter(module(fine, coarse)), expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(module(fine * 7, coarse * 7), module(fine, coarse), rtol=1e-3, atol=1e-4)
