"""The per-pixel criterion against torch's cross-entropy and hand-computed values."""

import math

import pytest
import torch
import torch.nn.functional as F

from bench.training.criterion import Part, Target
from bench.training.pixel_criterion import PixelCriterion, label_map
from models.outputs import PixelPrediction


def target(labels: torch.Tensor) -> Target:
    """Of a map of class indices, 255 = ignored."""
    present = [int(value) for value in labels.unique() if value != 255]
    return Target(torch.tensor(present, dtype=torch.int64), torch.stack([labels == value for value in present]))


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (3, 12, 20), generator=generator)
    labels[0, :5] = 255
    labels[2, :, 7:] = 255
    return labels


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)


def test_label_map_inverts_masks(maps):
    for labels in maps:
        assert torch.equal(label_map(target(labels)), labels)


def test_hand_computed_value():
    """Uniform logits of K classes: every labelled pixel costs log K, whatever its label is."""
    labels = torch.tensor([[0, 1], [255, 3]])
    losses = PixelCriterion()(PixelPrediction(torch.zeros(1, 4, 1, 1)), [target(labels)])
    assert list(losses) == ["loss_pixel"]
    assert losses["loss_pixel"].item() == pytest.approx(math.log(4))


def test_is_the_mean_cross_entropy_over_labelled_pixels_at_the_labels_size(maps):
    coarse = logits(3, 5, 3, 5)
    losses = PixelCriterion()(PixelPrediction(coarse), [target(labels) for labels in maps])
    resized = F.interpolate(coarse, (12, 20), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(resized, maps, ignore_index=255)
    torch.testing.assert_close(losses["loss_pixel"], expected)


@pytest.mark.parametrize(("stride", "size"), [(8, (41, 57)), (4, (30, 43)), (32, (41, 97))])
def test_cells_that_reach_beyond_the_image_stay_as_large_as_the_others(stride, size):
    """As if labels and logits were padded to whole cells, which is how a test image is treated."""
    full = [-(-n // stride) * stride for n in size]
    values = logits(1, 5, *(n // stride for n in full))
    labels = torch.full(full, 255)
    labels[: size[0], : size[1]] = torch.randint(0, 5, size, generator=torch.Generator().manual_seed(0))
    expected = PixelCriterion()(PixelPrediction(values), [target(labels)])["loss_pixel"]
    found = PixelCriterion()(PixelPrediction(values), [target(labels[: size[0], : size[1]])])["loss_pixel"]
    torch.testing.assert_close(found, expected)


def test_auxiliary_head_and_scales_are_weighted(maps):
    same, scales = logits(3, 5, 3, 5), torch.tensor([0.1, -0.4, 0.1])
    prediction = PixelPrediction(same, auxiliary=same, scales=scales)
    losses = PixelCriterion(0.4, 0.1)(prediction, [target(labels) for labels in maps])
    assert losses["loss_auxiliary"].item() == pytest.approx(0.4 * losses["loss_pixel"].item())
    assert losses["loss_scale"].item() == pytest.approx(0.1 * 0.2)


def test_parts_sum_to_the_batch_with_their_gradients(maps):
    targets = [target(labels) for labels in maps]
    counts = tuple(PixelCriterion.count(t.labels, t.masks) for t in targets)
    assert counts == tuple(int((labels != 255).sum()) for labels in maps)
    scales = torch.full((3,), 0.1, requires_grad=True)
    results = []
    for parts in ([slice(0, 3)], [slice(0, 1), slice(1, 3)]):
        values = logits(3, 5, 3, 5)
        scales.grad, total = None, 0.0
        for own in parts:
            prediction = PixelPrediction(values[own], auxiliary=values[own], scales=scales)
            loss = sum(PixelCriterion()(prediction, targets[own], Part(counts, own)).values())
            loss.backward()
            total += loss.item()
        results.append((total, values.grad, scales.grad))
    torch.testing.assert_close(results[0], results[1])


def test_images_without_a_label_cost_nothing():
    empty = Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4, 4, dtype=torch.bool))
    values = logits(1, 5, 2, 2)
    loss = PixelCriterion()(PixelPrediction(values), [empty])["loss_pixel"]
    loss.backward()
    assert loss.item() == 0 and values.grad.abs().sum() == 0
