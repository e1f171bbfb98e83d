"""Matching, point sampling and losses against hand computation, brute force and transformers' Mask2Former."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerHungarianMatcher, Mask2FormerLoss

from bench.training import criterion as module
from bench.training.criterion import Part, SetCriterion, Target
from bench.training.matcher import assign, matching_costs
from bench.training.points import PointDraws, draw_points, sample_points, uncertain_points
from models.outputs import MaskPrediction

ROOT = Path(__file__).resolve().parents[2]
CLASSES, POINTS = 4, 20


def prediction(batch=1, queries=5, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randn(batch, queries, CLASSES + 1, generator=generator)
    return MaskPrediction(classes, 3 * torch.randn(batch, queries, size, size, generator=generator))


def target(count, seed=0, size=16):
    generator = torch.Generator().manual_seed(100 + seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return Target(labels, torch.rand(count, size, size, generator=generator) < 0.4)


def constant(values, size=4):
    """Mask maps [1, Q, size, size] that are constant: points off the border all have that value."""
    return torch.tensor(values)[None, :, None, None].expand(1, -1, size, size).clone()


def take(p, image):
    return MaskPrediction(p.class_logits[image : image + 1], p.mask_logits[image : image + 1])


@pytest.fixture
def same_points(monkeypatch):
    """The same random points for every prediction, image and target, off the border (where zeros are mixed in)."""

    def draw(predictions, images, targets, num_points, device, own_images, own_targets):
        torch.manual_seed(0)
        one = draw_points(1, 1, 1, num_points, device)
        counts = {"matching": images, "candidates": targets, "uniform": targets}
        return PointDraws(
            **{name: (0.2 + 0.6 * getattr(one, name)).expand(predictions, n, -1, -1) for name, n in counts.items()}
        )

    monkeypatch.setattr(module, "draw_points", draw)


# Matching


def test_costs_of_every_pair_by_definition():
    torch.manual_seed(0)
    classes, logits = torch.randn(2, 3, CLASSES + 1), 4 * torch.randn(2, 3, 7)
    labels, wanted = torch.randint(CLASSES, (2, 2)), torch.rand(2, 2, 7)  # bilinear target values lie in 0..1
    costs = matching_costs(classes, logits, labels, wanted)
    assert costs.shape == (2, 3, 2)
    for m, q, n in itertools.product(range(2), range(3), range(2)):
        x, t = logits[m, q], wanted[m, n]
        cross_entropy = sum(-b * math.log(1 / (1 + math.exp(-a))) - (1 - b) * math.log(1 / (1 + math.exp(a)))
                            for a, b in zip(x.tolist(), t.tolist(), strict=True)) / 7  # fmt: skip
        p = [1 / (1 + math.exp(-a)) for a in x.tolist()]
        dice = 1 - (2 * sum(a * b for a, b in zip(p, t.tolist(), strict=True)) + 1) / (sum(p) + t.sum().item() + 1)
        probability = classes[m, q].softmax(0)[labels[m, n]].item()
        assert costs[m, q, n].item() == pytest.approx(-2 * probability + 5 * cross_entropy + 5 * dice, rel=1e-5)


def test_costs_stay_finite_for_saturated_masks():
    costs = matching_costs(
        torch.tensor([[[1e4, -1e4]]]), torch.tensor([[[-1e4, 1e4]]]), torch.zeros(1, 1).long(), torch.eye(2)[None]
    )
    assert costs.isfinite().all()


@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 2), st.integers(0, 10**6))
def test_assignment_has_the_least_cost_of_all(queries, count, padding, seed):
    generator = torch.Generator().manual_seed(seed)
    costs = torch.randn(1, queries, count + padding, generator=generator)
    costs[:, :, count:] = -100  # padded columns are never assigned, however cheap
    [(query, chosen)] = assign(costs, [count])
    assert len(query) == len(chosen) == min(queries, count)
    assert query.tolist() == sorted(set(query.tolist()))
    assert set(chosen.tolist()) <= set(range(count)) and len(set(chosen.tolist())) == len(chosen)
    cost = costs[0].double().numpy()
    few, many = (count, queries) if count <= queries else (queries, count)
    pairs = (lambda i, j: cost[j, i]) if count <= queries else (lambda i, j: cost[i, j])
    best = min(sum(pairs(i, j) for i, j in enumerate(p)) for p in itertools.permutations(range(many), few))
    assert cost[query.numpy(), chosen.numpy()].sum() == pytest.approx(best)


@pytest.mark.parametrize("count", [1, 3, 5, 8])
def test_matching_equals_transformers(count):
    p, t = prediction(), target(count)
    torch.manual_seed(3)
    expected = Mask2FormerHungarianMatcher(2.0, 5.0, 5.0, POINTS)(
        p.mask_logits, p.class_logits, [t.masks.float()], [t.labels]
    )
    torch.manual_seed(3)
    points = draw_points(1, 1, count, POINTS, torch.device("cpu")).matching[0]
    wanted = sample_points(t.masks[None].float(), points)
    costs = matching_costs(p.class_logits, sample_points(p.mask_logits, points), t.labels[None], wanted)
    assert [x.tolist() for x in assign(costs, [count])[0]] == [x.tolist() for x in expected[0]]


# Points


def centres(height, width):
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1)[None]


def test_samples_at_pixel_centres_are_the_pixels():
    maps = torch.randn(2, 3, 5, 7)
    values = sample_points(maps, centres(5, 7).expand(2, -1, -1))
    assert torch.allclose(values, maps.flatten(2), atol=1e-5)


def test_samples_between_pixels_are_means():
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 11.0]]]])
    points = torch.tensor([[[0.5, 0.25], [0.25, 0.5], [0.5, 0.5]]])  # (x, y)
    assert sample_points(maps, points)[0, 0].tolist() == pytest.approx([2.0, 3.0, 5.0])


def test_important_points_are_the_candidates_nearest_zero():
    mask = torch.randperm(36).view(1, 6, 6) - 17.3  # distances from zero all differ
    uniform = torch.rand(1, 3, 2)
    points = uncertain_points(mask, centres(6, 6), uniform)  # 36 candidates: P = 12, 9 of them important
    assert points.shape == (1, 12, 2)
    assert torch.equal(points[:, 9:], uniform)
    nearest = mask.flatten()[mask.flatten().abs().argsort()[:9]]
    assert sorted(sample_points(mask[None], points[:, :9]).flatten().tolist()) == pytest.approx(
        sorted(nearest.tolist()), abs=1e-4
    )


@pytest.mark.parametrize("num_points", [1, 2, 3, 10, 112, 12544])
def test_number_of_points(num_points):
    draws = draw_points(2, 3, 4, num_points, torch.device("cpu"))
    assert draws.matching.shape == (2, 3, num_points, 2)
    points = uncertain_points(torch.randn(4, 6, 6), draws.candidates[0], draws.uniform[0])
    assert points.shape == (4, num_points, 2)
    assert 0 <= points.min() and points.max() < 1


# Losses


def test_losses_of_a_case_computed_by_hand(same_points):
    """Two queries with constant masks (logits 2 and -1), one target of class 1 that fills the image."""
    p = MaskPrediction(torch.tensor([[[0.0, 1.0, 0.0], [0.5, 0.0, 0.0]]]), constant([2.0, -1.0]))
    losses = SetCriterion(2, 16)(p, [Target(torch.tensor([1]), torch.ones(1, 4, 4).bool())])
    matched = -math.log(math.e / (math.e + 2))
    unmatched = -math.log(1 / (math.exp(0.5) + 2))
    probability = 1 / (1 + math.exp(-2))
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        {
            "loss_class": 2 * (matched + 0.1 * unmatched) / 1.1,
            "loss_mask": 5 * -math.log(probability),
            "loss_dice": 5 * (1 - (2 * 16 * probability + 1) / (16 * probability + 16 + 1)),
        }
    )


def test_more_targets_than_queries(same_points):
    """One query, three targets: the loss of the best pair, divided by all three masks."""
    p = MaskPrediction(torch.zeros(1, 1, 5), constant([3.0]))
    masks = torch.stack((torch.zeros(4, 4), torch.ones(4, 4), torch.zeros(4, 4))).bool()
    losses = SetCriterion(4, 16)(p, [Target(torch.tensor([0, 1, 2]), masks)])
    probability = 1 / (1 + math.exp(-3))
    assert losses["loss_class"].item() == pytest.approx(2 * math.log(5))
    assert losses["loss_mask"].item() == pytest.approx(5 * -math.log(probability) / 3)
    assert losses["loss_dice"].item() == pytest.approx(5 * (1 - (32 * probability + 1) / (16 * probability + 17)) / 3)


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("counts", [(3,), (5,), (2, 4), (1, 3, 2)])
def test_losses_equal_transformers(counts, emptied):
    """All predictions of a batch, the same random points: transformers draws them in the same order. Also with targets
    of which the crop has left no pixel."""
    predictions = [prediction(len(counts), seed=seed) for seed in range(3)]
    targets = [target(count, seed) for seed, count in enumerate(counts)]
    if emptied:
        for t in targets:
            t.masks[::2] = False
    config = Mask2FormerConfig(num_labels=CLASSES, train_num_points=POINTS)
    torch.manual_seed(11)
    last, *earlier = [
        {"masks_queries_logits": p.mask_logits, "class_queries_logits": p.class_logits} for p in predictions
    ]
    masks, labels = [t.masks.float() for t in targets], [t.labels for t in targets]
    theirs = Mask2FormerLoss(config, {})(**last, mask_labels=masks, class_labels=labels, auxiliary_predictions=earlier)
    torch.manual_seed(11)
    intermediate = tuple((p.class_logits, p.mask_logits) for p in predictions[1:])
    p = MaskPrediction(predictions[0].class_logits, predictions[0].mask_logits, intermediate)
    ours = SetCriterion(CLASSES, POINTS)(p, targets)
    weight = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    expected = {
        name.replace("cross_entropy", "class"): weight["_".join(s for s in name.split("_") if not s.isdigit())] * value
        for name, value in theirs.items()
    }
    assert set(ours) == set(expected)
    for name, value in ours.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5), name


def with_gradients(p):
    classes, masks = p.class_logits.clone().requires_grad_(), p.mask_logits.clone().requires_grad_()
    return MaskPrediction(classes, masks), classes, masks


@pytest.mark.parametrize("batch", [1, 3])
def test_without_any_target_all_queries_learn_no_object(batch):
    p, classes, masks = with_gradients(prediction(batch))
    losses = SetCriterion(CLASSES, POINTS)(p, [target(0)] * batch)
    assert losses["loss_mask"].item() == losses["loss_dice"].item() == 0
    expected = 2 * F.cross_entropy(classes.flatten(0, 1), torch.full((5 * batch,), CLASSES))
    assert losses["loss_class"].item() == pytest.approx(expected.item())
    sum(losses.values()).backward()
    assert (classes.grad[..., -1] < 0).all() and (classes.grad[..., :-1] > 0).all()
    assert torch.equal(masks.grad, torch.zeros_like(masks))


def test_one_image_without_targets(same_points):
    """It adds its class loss only; the masks of the other image count as alone."""
    p, classes, masks = with_gradients(MaskPrediction(torch.zeros(2, 5, 5), constant([2.0] * 5).repeat(2, 1, 1, 1)))
    full = Target(torch.tensor([1]), torch.ones(1, 4, 4).bool())
    losses = SetCriterion(CLASSES, POINTS)(p, [target(0, size=4), full])
    assert losses["loss_mask"].item() == pytest.approx(5 * math.log(1 + math.exp(-2)))
    assert losses["loss_class"].item() == pytest.approx(2 * math.log(5))
    sum(losses.values()).backward()
    assert masks.grad[0].abs().sum() == 0 < masks.grad[1].abs().sum()
    assert classes.grad.isfinite().all()


@pytest.mark.parametrize("count", [0, 3])
def test_bfloat16_predictions_lose_nothing_in_the_criterion(count):
    """The losses are those of the same values in float32, and gradients flow back."""
    p, t = prediction(), [target(count)]
    classes, masks = (x.bfloat16().requires_grad_() for x in (p.class_logits, 100 * p.mask_logits))
    criterion = SetCriterion(CLASSES, POINTS)
    torch.manual_seed(0)
    losses = criterion(MaskPrediction(classes, masks), t)
    torch.manual_seed(0)
    expected = criterion(MaskPrediction(classes.detach().float(), masks.detach().float()), t)
    assert {name: value.item() for name, value in losses.items()} == {n: v.item() for n, v in expected.items()}
    torch.stack(list(losses.values())).sum().backward()
    assert classes.grad.isfinite().all() and masks.grad.isfinite().all()


def test_deep_supervision_treats_all_predictions_alike(same_points):
    p, t = prediction(2), [target(2, 0), target(3, 1)]
    single = SetCriterion(CLASSES, POINTS)(p, t)
    deep = MaskPrediction(p.class_logits, p.mask_logits, ((p.class_logits, p.mask_logits),) * 2)
    losses = SetCriterion(CLASSES, POINTS)(deep, t)
    assert set(losses) == {name + suffix for name in single for suffix in ("", "_0", "_1")}
    for name, value in losses.items():
        assert value.item() == pytest.approx(single[name.removesuffix("_0").removesuffix("_1")].item(), rel=1e-6)


def test_batch_is_the_weighted_mean_of_its_images(same_points):
    """Class losses by the classes' weights (1 a target, 0.1 a query without), mask losses by the number of masks."""
    p, t = prediction(2), [target(1, 0), target(4, 1)]
    criterion = SetCriterion(CLASSES, POINTS)
    single = [criterion(take(p, i), [t[i]]) for i in range(2)]
    losses = criterion(p, t)
    for name, weights in (("loss_class", (1 + 0.4, 4 + 0.1)), ("loss_mask", (1, 4)), ("loss_dice", (1, 4))):
        expected = sum(w * s[name].item() for w, s in zip(weights, single, strict=True)) / sum(weights)
        assert losses[name].item() == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("together", [1, 2, 4])
def test_class_losses_are_means_over_the_images_of_one_gpu(same_points, together):
    """As the reference's: each process takes the weighted mean over its own images, their gradients are averaged. The
    other losses are those of the whole batch."""
    p, t = prediction(4), [target(count, seed) for seed, count in enumerate((2, 4, 0, 7))]
    whole = SetCriterion(CLASSES, POINTS)(p, t)
    losses = SetCriterion(CLASSES, POINTS, class_loss_images=together)(p, t)
    means = []
    for first in range(0, 4, together):
        own = slice(first, first + together)
        gpu = MaskPrediction(p.class_logits[own], p.mask_logits[own])
        means.append(SetCriterion(CLASSES, POINTS)(gpu, t[own])["loss_class"].item())
    assert losses["loss_class"].item() == pytest.approx(sum(means) / len(means), rel=1e-5)
    assert (losses["loss_mask"], losses["loss_dice"]) == (whole["loss_mask"], whole["loss_dice"])
    if together < 4:
        assert losses["loss_class"].item() != pytest.approx(whole["loss_class"].item(), rel=5e-5)


def test_an_empty_target_by_hand(same_points):
    """The query that says so most firmly takes it; dice and cross-entropy push it to nothing."""
    p, classes, masks = with_gradients(MaskPrediction(torch.zeros(1, 2, 3), constant([3.0, -2.0])))
    losses = SetCriterion(2, 16)(p, [Target(torch.tensor([1]), torch.zeros(1, 4, 4).bool())])
    probability = 1 / (1 + math.exp(2))
    assert losses["loss_mask"].item() == pytest.approx(5 * -math.log(1 - probability))
    assert losses["loss_dice"].item() == pytest.approx(5 * (1 - 1 / (16 * probability + 1)))
    sum(losses.values()).backward()
    assert classes.grad.isfinite().all() and masks.grad.isfinite().all()
    assert masks.grad[0, 0].abs().sum() == 0 and (masks.grad[0, 1] >= 0).all() and masks.grad[0, 1].sum() > 0


@pytest.mark.parametrize("together", [None, 1, 2])
@pytest.mark.parametrize("counts", [(2, 4, 0, 7), (0, 0, 0, 3), (0, 0, 0, 0)])
@pytest.mark.parametrize("cuts", [(0, 2, 4), (0, 1, 3, 4)])
def test_parts_of_a_batch_sum_to_the_whole(counts, cuts, together):
    """Losses and gradients, also where an image has more targets than the five queries, where a part has none and where
    a part cuts images apart whose class losses are normalised together."""
    targets = [target(count, seed) for seed, count in enumerate(counts)]
    criterion = SetCriterion(CLASSES, POINTS, class_loss_images=together)
    scales = torch.tensor([0.3, -0.1], requires_grad=True)

    def losses(classes, masks, first, last, part):
        torch.manual_seed(5)
        deep = ((classes[first:last] + 1, masks[first:last] * 0.5),)
        p = MaskPrediction(classes[first:last], masks[first:last], deep, scales=scales)
        return criterion(p, targets[first:last], part)

    def total(*parts):
        _, classes, masks = with_gradients(prediction(4))
        scales.grad = None
        found = [losses(classes, masks, *part) for part in parts]
        sum(sum(one.values()) for one in found).backward()
        summed = {name: sum(one[name].item() for one in found) for name in found[0]}
        return summed, classes.grad, masks.grad, scales.grad

    whole, *gradients = total((0, 4, None))
    summed, *others = total(*((a, b, Part(counts, slice(a, b))) for a, b in itertools.pairwise(cuts)))
    assert summed == pytest.approx(whole, rel=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [3, 7])
def test_order_of_queries_and_targets_does_not_matter(same_points, count):
    p, t = prediction(), target(count)
    queries, order = torch.tensor([3, 0, 4, 1, 2]), torch.arange(count).roll(2)
    shuffled = MaskPrediction(p.class_logits[:, queries], p.mask_logits[:, queries])
    criterion = SetCriterion(CLASSES, POINTS)
    expected = criterion(p, [t])
    losses = criterion(shuffled, [Target(t.labels[order], t.masks[order])])
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5), name


@pytest.mark.parametrize(("scales", "expected"), [([0.3, -0.1, 0.2], 0.04), ([-0.3, -0.2], 0.05)])
def test_scale_loss(scales, expected):
    p = prediction()
    with_scales = MaskPrediction(p.class_logits, p.mask_logits, scales=torch.tensor(scales))
    assert SetCriterion(CLASSES, POINTS)(with_scales, [target(2)])["loss_scale"].item() == pytest.approx(expected)
    assert "loss_scale" not in SetCriterion(CLASSES, POINTS)(p, [target(2)])


PEAK = """
import re, torch
from bench.training.points import draw_points
torch.rand(1000)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024  # MiB
before = peak()
draws = draw_points(10, 16, 640, 6272, torch.device("cpu"), slice(2, 4), slice(80, 160))
print(draws.candidates.shape[1], peak() - before)
"""


def test_points_of_other_images_are_not_kept():
    """10 predictions of a batch with 640 targets, 80 of them here: their points take 130 MiB, a prediction's of the
    whole batch 100, those of all predictions 1036."""
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True)
    kept, peak = done.stdout.split()
    assert kept == "80" and float(peak) < 320
