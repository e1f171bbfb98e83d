"""The one way from a prediction to results: each kind of prediction, what is wanted of it, what is counted."""

import pytest
import torch

from bench.evaluation.postprocess import instance_predictions, panoptic_segments, resize_masks
from bench.evaluation.results import RESULTS, Results, results_of
from models.outputs import MaskPrediction, PixelPrediction

SIZES = ((32, 64), (30, 60), (15, 40))
IS_THING = [True, True, False]
TASKS = list(RESULTS)


def masks(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    classes, logits = (8 * torch.randn(1, *shape, generator=generator) for shape in ((5, 4), (5, 8, 16)))
    classes[0, 0, 1], logits[0, 0] = 40, 40  # so that there is one segment at least
    return MaskPrediction(classes.to(device), logits.to(device))


@pytest.mark.parametrize("task", TASKS)
def test_what_is_not_wanted_is_not_there_and_the_rest_is_the_same(task):
    everything = results_of(masks(), task, SIZES, IS_THING)
    assert {name for name in RESULTS["panoptic"] if getattr(everything, name) is not None} == set(RESULTS[task])
    for wanted in RESULTS[task]:
        only = results_of(masks(), task, SIZES, IS_THING, (wanted,))
        assert {name for name in RESULTS["panoptic"] if getattr(only, name) is not None} == {wanted}
        for one, other in zip(tensors(only), tensors(getattr(everything, wanted)), strict=True):
            assert torch.equal(one, other)


def tensors(value):
    """All tensors in results, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in getattr(value, "__dict__", {}).values() for tensor in tensors(part)]


def test_masks_give_what_post_processing_gives():
    prediction = masks()
    found = results_of(prediction, "panoptic", SIZES, IS_THING)
    logits = prediction.class_logits[0], resize_masks(prediction.mask_logits[0], *SIZES)
    expected = panoptic_segments(*logits, IS_THING)
    assert torch.equal(found.panoptic.segmentation, expected.segmentation)
    assert found.panoptic.segments == expected.segments and len(expected.scores) == len(expected.segments) > 0
    assert torch.equal(found.instances.masks, instance_predictions(*logits, IS_THING).masks)


def test_boxes_by_hand():
    """A box of 12x8 pixels of the image, half as large in the original, of class 3 of 1, 2, ..."""
    boxes = [{
        "boxes": torch.tensor([[6.0, 4.0, 18.0, 12.0]]), "scores": torch.tensor([0.7]), "labels": torch.tensor([3]),
        "masks": torch.ones(1, 1, 28, 28),
    }]  # fmt: skip
    found = results_of(boxes, "instance", ((32, 64), (30, 60), (15, 30)), IS_THING).instances
    assert (found.scores.tolist(), found.labels.tolist(), found.masks.shape) == ([pytest.approx(0.7)], [2], (1, 15, 30))
    rows, columns = found.masks[0].nonzero().T
    edges = [int(edge) for edge in (rows.min(), rows.max(), columns.min(), columns.max())]
    assert edges == pytest.approx([2, 5, 3, 8], abs=1)  # torchvision pastes a mask a little larger than its box


@pytest.mark.parametrize("task", TASKS)
def test_counting_works_without_values(task):
    found = results_of(masks("meta"), task, SIZES, (), counted=True)
    assert (found.labels is not None) == ("labels" in RESULTS[task]) and found.panoptic is found.instances is None


def test_kinds_without_results_are_refused():
    with pytest.raises(ValueError, match="no panoptic results"):
        results_of(PixelPrediction(torch.zeros(1, 3, 4, 4)), "panoptic", SIZES, IS_THING)
    with pytest.raises(ValueError, match="no semantic results"):
        results_of([{}], "semantic", SIZES, IS_THING)
    with pytest.raises(TypeError, match="a str"):
        results_of("text", "semantic", SIZES, IS_THING)
    assert results_of([{"masks": torch.zeros(1, 1, 28, 28, device="meta")}], "instance", SIZES, (), counted=True) == (
        Results()
    )
